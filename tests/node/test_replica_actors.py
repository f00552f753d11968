"""Replica actors of whole brokers without Ray: how many there are may change, and one may die, while clients write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raykafka.broker.replica_actors import EACH
from tests.lab.clusters.plain_broker import PlainBroker
from tests.lab.clusters.replicated import (
    BROKERS,
    bootstrap,
    create,
    leader_and_follower,
    metadata,
    running_brokers,
    stored,
    wait_in_sync,
)
from tests.lab.processes import running_holder
from tests.lab.waiting import until
from tests.node.workload import IDEMPOTENT, ProduceRun, check_once

PARTITIONS = 8
MANY = 20


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory, zookeeper: str) -> Iterator[list[PlainBroker]]:
    """For all tests of this file, each with two replica actors."""
    with running_brokers(tmp_path_factory.mktemp("actors"), zookeeper, replica_actors=2) as made:
        yield made


def writers(broker: PlainBroker, topic: str) -> list[int]:
    """The processes that have this broker's replicas of a topic open; fewer where some are open nowhere."""
    directories = broker.data_dir.glob(f"{topic}-*")
    return [writer.pid for directory in directories if (writer := running_holder(directory)) is not None]


def shared_by(broker: PlainBroker, topic: str, actors: int) -> bool:
    """Whether all replicas of a topic are open and the broker has so many replica actors, and no other one."""
    open_in = writers(broker, topic)
    return len(open_in) == PARTITIONS and len(broker.children("replica")) == actors


def check_replicas(brokers: list[PlainBroker], run: ProduceRun) -> None:
    """Every record once and in order, and all replicas alike."""
    check_once(bootstrap(brokers), run)
    for partition in range(run.partitions):
        wait_in_sync(brokers, run.topic, BROKERS, partition)
        until(
            lambda p=partition: len({stored(broker, run.topic, p) for broker in brokers}) == 1,
            "the segment files are equal",
        )


def test_replicas_move_between_actors_without_an_error_and_lead_on(brokers: list[PlainBroker]) -> None:
    create(brokers, "movers", PARTITIONS, min_insync_replicas="2")
    with ProduceRun(bootstrap(brokers), "movers", PARTITIONS, IDEMPOTENT) as run:
        run.wait_for_more(50)
        leaders = [metadata(brokers, "movers", p).leader for p in range(PARTITIONS)]
        for broker in brokers:
            broker.use_actors(1)
            until(lambda b=broker: shared_by(b, "movers", 1), "one actor has all replicas")
            run.wait_for_more(20)
        broker = brokers[0]
        broker.use_actors(EACH)
        until(lambda: len(set(writers(broker, "movers"))) == PARTITIONS, "each replica has an actor of its own")
        run.wait_for_more(20)
        for broker in brokers:
            broker.use_actors(2)
            until(lambda b=broker: shared_by(b, "movers", 2), "there are two actors again")
            run.wait_for_more(20)
        assert [metadata(brokers, "movers", p).leader for p in range(PARTITIONS)] == leaders
        run.finish()
    check_replicas(brokers, run)


def test_a_killed_replica_actor_hands_over_all_that_it_led(brokers: list[PlainBroker]) -> None:
    create(brokers, "many", MANY, min_insync_replicas="2")
    with ProduceRun(bootstrap(brokers), "many", MANY, IDEMPOTENT) as run:
        run.wait_for_more(50)
        leader, _ = leader_and_follower(brokers, "many")
        led = [p for p in range(MANY) if metadata(brokers, "many", p).leader == leader.settings.broker_id]
        killed = leader.actor_of("many")
        ended = [p for p in led if leader.actor_of("many", p) == killed]
        kept = [p for p in led if p not in ended]
        assert ended and kept
        killed.kill()
        run.wait_for_more(50)
        until(
            lambda: all(metadata(brokers, "many", p).leader != leader.settings.broker_id for p in ended),
            "other brokers lead what it led",
        )
        assert all(metadata(brokers, "many", p).leader == leader.settings.broker_id for p in kept)
        until(lambda: len(writers(leader, "many")) == MANY, "its replicas are open again")
        run.finish()
    check_replicas(brokers, run)
