"""Clients notice nothing of a broker's stop, a broker's kill and a controller's kill but the time that it takes.

All ride through the same faults at once, on three brokers without Ray. confluent-kafka, on which the handles stand, has
tests of its own in test_replication.py and test_failover.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab.clusters.plain_broker import PlainBroker
from tests.lab.clusters.replicated import (
    BROKERS,
    WITHIN_S,
    bootstrap,
    controller,
    create,
    metadata,
    running_brokers,
    wait_in_sync,
)
from tests.lab.waiting import until
from tests.node.riders import Aiokafka, Handles, Java, Rider

pytestmark = pytest.mark.timeout(400)
PARTITIONS = 3  # so that every broker leads one of each topic
MORE = 100


@pytest.fixture(scope="module")
def riders(tmp_path_factory: pytest.TempPathFactory, zookeeper: str) -> Iterator[dict[str, Rider]]:
    """The riders, when all faults are over and everything that was acknowledged has been read."""
    with ExitStack() as stack:
        brokers = stack.enter_context(running_brokers(tmp_path_factory.mktemp("brokers"), zookeeper))
        addresses = bootstrap(brokers)
        made: dict[str, Rider] = {
            "aiokafka": Aiokafka(addresses, "aiokafka"),
            "java": Java(addresses, "java", tmp_path_factory.mktemp("java")),
            "handles": Handles(addresses, "handles"),
        }
        for topic in made:
            create(brokers, topic, PARTITIONS, min_insync_replicas="2")
        for rider in made.values():
            rider.start()
            stack.callback(rider.end)
        wait_more(made)
        stop_in_order(brokers, made)
        left = kill_the_controllers_broker(brokers, made)
        kill_the_controller(left, made)
        for rider in made.values():
            rider.stop_producing()
        for name, rider in made.items():
            until(lambda rider=rider: set(rider.acked) <= set(rider.read.values()), f"{name} has read all it wrote")
        yield made


def wait_more(riders: dict[str, Rider]) -> None:
    """Until each has written and read more, and committed."""
    targets = {name: tuple(map(sum, zip(r.progress(), (MORE, MORE, 2), strict=True))) for name, r in riders.items()}

    def moved(name: str) -> bool:
        return all(now >= target for now, target in zip(riders[name].progress(), targets[name], strict=True))

    for name, rider in riders.items():
        until(lambda name=name: moved(name), f"{name} goes on: {rider.progress()} {rider.refused[:3]}")


def stop_in_order(brokers: list[PlainBroker], riders: dict[str, Rider]) -> None:
    leader = brokers[metadata(brokers, "java").leader]
    leader.stop()
    wait_more(riders)
    leader.start()
    leader.wait_serving(WITHIN_S)
    for topic in riders:
        for partition in range(PARTITIONS):
            wait_in_sync(brokers, topic, BROKERS, partition)


def kill_the_controllers_broker(brokers: list[PlainBroker], riders: dict[str, Rider]) -> list[PlainBroker]:
    """Those that are left, which go on as two."""
    victim = controller(brokers)
    victim.kill()
    wait_more(riders)
    return [broker for broker in brokers if broker is not victim]


def kill_the_controller(brokers: list[PlainBroker], riders: dict[str, Rider]) -> None:
    (process,) = controller(brokers).children("controller")
    process.kill()
    wait_more(riders)
    controller(brokers)


@pytest.mark.parametrize("client", ["aiokafka", "java", "handles"])
def test_a_client_rides_through_every_fault(riders: dict[str, Rider], client: str) -> None:
    rider = riders[client]
    assert rider.refused == []
    numbers = list(rider.read.values())
    assert set(rider.acked) <= set(numbers), "what was acknowledged is there"
    assert len(numbers) == len(set(numbers)), "and once"
    for partition in range(PARTITIONS):
        places = sorted(place for place in rider.read if place[0] == partition)
        assert [offset for _, offset in places] == list(range(len(places))), "no offset was left out"
        in_order = [rider.read[place] for place in places]
        assert in_order == sorted(in_order), "in the order of sending"
