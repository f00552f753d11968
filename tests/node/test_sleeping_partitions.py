"""Three whole brokers that hold many partitions which nobody writes: they are read, elected and in sync asleep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import ElectionType, KafkaError, Producer, TopicPartition

from raykafka.log.batch import iter_batches
from raykafka.log.seal import SEAL_FILE
from tests.lab.clusters.plain_broker import PlainBroker
from tests.lab.clusters.replicated import (
    BROKERS,
    WITHIN_S,
    admin,
    bootstrap,
    create,
    metadata,
    running_brokers,
    stored,
    wait_in_sync,
)
from tests.lab.waiting import until
from tests.lab.wire import WireConnection, fetch_request, record_values

PARTITIONS = 300
WRITTEN = range(0, PARTITIONS, 25)


@pytest.fixture
def brokers(tmp_path: Path, zookeeper: str) -> Iterator[list[PlainBroker]]:
    with running_brokers(tmp_path, zookeeper, replica_idle_ms="1000") as made:
        yield made


def write(brokers: list[PlainBroker], topic: str, partitions: Iterable[int]) -> None:
    failed: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap(brokers), "log_level": 0, "acks": "all"})
    for partition in partitions:
        value = b"%d" % partition
        producer.produce(topic, value, partition=partition, on_delivery=lambda e, _: failed.append(e) if e else None)
    assert producer.flush(WITHIN_S) == 0
    assert failed == []


def replica_pids(broker: PlainBroker) -> set[int]:
    return {child.pid for child in broker.children("replica")}


def wait_asleep(broker: PlainBroker) -> set[int]:
    """Until every log of this broker is sealed and its spares are all the replica processes there are: their pids."""
    logs = [path.parent for path in broker.data_dir.glob("*/partition.metadata")]
    until(
        lambda: (
            all((log / SEAL_FILE).exists() for log in logs)
            and len(replica_pids(broker)) == broker.settings.spare_replicas
        ),
        f"all replicas of broker {broker.settings.broker_id} sleep",
    )
    return replica_pids(broker)


def in_sync(brokers: list[PlainBroker], topic: str) -> int:
    """How many partitions have all of their replicas in sync, in the eyes of one of ``brokers``."""
    partitions = admin(brokers).list_topics(topic, timeout=10).topics[topic].partitions
    return sum(len(partition.isrs) == BROKERS for partition in partitions.values())


def all_led_by_preferred(brokers: list[PlainBroker], topic: str) -> bool:
    """Have every partition led by its first replica, which takes one that is in sync; whether that is so now."""
    client = admin(brokers)  # it must outlive the call
    every = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    outcome = client.elect_leaders(ElectionType.PREFERRED, every).result(WITHIN_S)
    return all(error is None or error.code() == KafkaError.ELECTION_NOT_NEEDED for error in outcome.values())


def values_read_from(broker: PlainBroker, topic: str, partitions: Iterable[int]) -> dict[int, list[bytes]]:
    found = {}
    with WireConnection(broker.bootstrap) as wire:
        for partition in partitions:
            answer = wire.call(fetch_request(topic, 0, partition=partition)).responses[0].partitions[0]
            assert answer.error_code.value == 0, (partition, answer.error_code)
            found[partition] = [value for _, value in record_values(answer.records)]
    return found


def test_a_restarted_broker_serves_and_rejoins_sleeping_partitions_without_a_process(
    brokers: list[PlainBroker],
) -> None:
    create(brokers, "sleeping", PARTITIONS)
    write(brokers, "sleeping", WRITTEN)
    restarted, *others = brokers
    led = [p for p in WRITTEN if metadata(brokers, "sleeping", p).leader == 0]
    assert led
    for end in (restarted.kill, restarted.stop):
        # a replica that wakes takes a spare, and then there is another one
        spares = [wait_asleep(broker) for broker in brokers][1:]
        end()
        restarted.start()
        restarted.wait_serving(WITHIN_S)
        until(lambda: in_sync(others, "sleeping") == PARTITIONS, "all replicas are in sync again")
        until(lambda: all_led_by_preferred(others, "sleeping"), "each partition is led by its first replica again")
        assert values_read_from(restarted, "sleeping", led) == {p: [b"%d" % p] for p in led}
        assert [wait_asleep(broker) for broker in others] == spares
        wait_asleep(restarted)
        assert not any((restarted.data_dir / f"sleeping-{p}").exists() for p in range(PARTITIONS) if p not in WRITTEN)


def test_a_replica_that_missed_records_of_a_sleeping_partition_gets_them(brokers: list[PlainBroker]) -> None:
    create(brokers, "sleeping")
    write(brokers, "sleeping", [0])
    follower = brokers[(metadata(brokers, "sleeping").leader + 1) % len(brokers)]
    others = [broker for broker in brokers if broker is not follower]
    for broker in brokers:
        wait_asleep(broker)
    follower.kill()
    wait_in_sync(others, "sleeping", len(others))
    write(others, "sleeping", [0])
    for broker in others:
        wait_asleep(broker)
    follower.start()
    follower.wait_serving(WITHIN_S)
    wait_in_sync(others, "sleeping", BROKERS)
    until(lambda: len({stored(broker, "sleeping") for broker in brokers}) == 1, "all logs are equal")
    assert len(list(iter_batches(memoryview(stored(follower, "sleeping"))))) == 2
