"""Replication throttles on whole brokers: a rate bounds what all throttled replicas of a broker copy, and nothing else;
it is set, and taken back, while they copy."""

import os
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer

import raykafka
from raykafka.broker.partitions.replication_throttle import BURST_S
from tests.lab.clusters.plain_broker import PlainBroker
from tests.lab.clusters.replicated import (
    BROKERS,
    WITHIN_S,
    bootstrap,
    command,
    create,
    holders,
    place,
    running_brokers,
    stored,
    wait_in_sync,
)
from tests.lab.peer.kafka import run_tool
from tests.lab.waiting import until

RATE = 100_000
BATCH_BYTES = 60_000
# at RATE nobody copies this within WITHIN_S
BATCHES = 2 * WITHIN_S * RATE // BATCH_BYTES


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory, zookeeper: str) -> Iterator[list[PlainBroker]]:
    with running_brokers(tmp_path_factory.mktemp("throttled"), zookeeper) as made:
        yield made


def fill(brokers: list[PlainBroker], topic: str, partitions: int = 1, batches: int = BATCHES) -> None:
    """Write so many batches, as many to each partition; acks=all."""
    producer = Producer({"bootstrap.servers": bootstrap(brokers), "log_level": 0, "batch.size": BATCH_BYTES})
    failed: list[object] = []
    for n in range(batches):
        value = os.urandom(BATCH_BYTES - 1000)
        producer.produce(topic, value, partition=n % partitions, on_delivery=lambda e, _: failed.append(e) if e else 0)
        producer.poll(0)
    assert producer.flush(WITHIN_S) == 0 and not failed


def bounded(copied: Callable[[], int], streams: int, since: float) -> Callable[[], bool]:
    """Whether more than three seconds' worth has been copied; never may that be more than the rate allows. Each stream
    may be one batch ahead."""

    def holds() -> bool:
        size = copied()
        assert size <= RATE * (time.monotonic() - since + BURST_S) + streams * BATCH_BYTES
        return size > 3 * RATE

    return holds


def test_a_throttled_move_copies_at_its_rate_and_the_rest_at_once_when_it_is_taken_back(
    brokers: list[PlainBroker],
) -> None:
    place(brokers, "moved", [0, 1], [0, 1])
    fill(brokers, "moved", 2)
    since = time.monotonic()
    command(brokers, "partitions", "reassign", "moved", "--to", "1,2", "--throttle", str(RATE))
    until(
        bounded(lambda: sum(len(stored(brokers[2], "moved", p)) for p in range(2)), 2, since),
        "something is copied",
    )
    fill(brokers, "moved", 2, 20)
    for partition in range(2):
        assert holders(brokers, "moved", partition)[1] == {0, 1}, "what is live went to those in sync"
    assert "moving" in command(brokers, "partitions", "verify", "--json", exit_code=2)
    raykafka.connect(bootstrap(brokers)).admin().unthrottle(["moved"])
    for partition in range(2):
        until(lambda p=partition: sorted(holders(brokers, "moved", p)[0]) == [1, 2], "the partition has moved")


def test_a_followers_own_rate_bounds_what_it_catches_up(brokers: list[PlainBroker]) -> None:
    create(brokers, "caught")
    fill(brokers, "caught", batches=1)
    away, at = brokers[2], ("--bootstrap-server", bootstrap(brokers[:2]), "--alter")
    wait_in_sync(brokers, "caught", BROKERS)
    until(lambda: stored(away, "caught") == stored(brokers[1], "caught"), "the follower has all")
    rate, replicas = "follower.replication.throttled.rate", "follower.replication.throttled.replicas"
    broker_2, topic = (
        ("--entity-type", "brokers", "--entity-name", "2"),
        ("--entity-type", "topics", "--entity-name", "caught"),
    )
    run_tool("kafka-configs", *at, *broker_2, "--add-config", f"{rate}={RATE}")
    run_tool("kafka-configs", *at, *topic, "--add-config", f"{replicas}=[0:0,0:2]")
    away.stop()
    fill(brokers[:2], "caught")
    before, since = len(stored(away, "caught")), time.monotonic()
    away.start()
    away.wait_serving(WITHIN_S)
    until(bounded(lambda: len(stored(away, "caught")) - before, 1, since), "something is caught up")
    run_tool("kafka-configs", *at, *broker_2, "--delete-config", rate)
    wait_in_sync(brokers, "caught", BROKERS)
    until(lambda: len({stored(broker, "caught") for broker in brokers}) == 1, "the segment files are equal")
