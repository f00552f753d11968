"""Three whole brokers without Ray, one cluster: whoever is asked, whoever dies."""

import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import NewTopic

from tests.lab.clusters.plain_broker import PlainBroker
from tests.lab.clusters.replicated import WITHIN_S, admin, bootstrap, running_brokers
from tests.lab.waiting import until

PARTITIONS = 6


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory, zookeeper: str) -> Iterator[list[PlainBroker]]:
    """For all tests of this file: each leaves them running."""
    folder = tmp_path_factory.mktemp("together")
    with running_brokers(folder, zookeeper, offsets_topic_replication_factor="1") as made:
        yield made


def _create(topic: str, *brokers: PlainBroker) -> None:
    client = admin(list(brokers))  # it must outlive the call
    client.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(WITHIN_S)


def _leaders(topic: str, *brokers: PlainBroker) -> dict[int, int]:
    partitions = admin(list(brokers)).list_topics(topic, timeout=10).topics[topic].partitions
    return {p: metadata.leader for p, metadata in partitions.items()}


def _produce(topic: str, partitions: list[int], values: range, brokers: list[PlainBroker]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap(brokers), "log_level": 0, "acks": "all"})
    failed: list[Any] = []
    for value in values:
        for partition in partitions:
            producer.produce(
                topic, str(value), partition=partition, on_delivery=lambda e, m: failed.append(e) if e else None
            )
    assert producer.flush(WITHIN_S) == 0
    assert failed == []


def _consume(topic: str, count: int, group: str, brokers: list[PlainBroker]) -> dict[int, list[int]]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap(brokers),
            "log_level": 0,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    found: dict[int, list[int]] = {}
    deadline = time.monotonic() + WITHIN_S
    try:
        while sum(map(len, found.values())) < count:
            assert time.monotonic() < deadline, {p: len(values) for p, values in found.items()}
            for message in consumer.consume(500, 0.5):
                assert message.error() is None, message.error()
                found.setdefault(message.partition() or 0, []).append(int(message.value() or b""))
        consumer.commit(asynchronous=False)
    finally:
        consumer.close()
    return found


def test_every_broker_answers_for_the_whole_cluster(brokers: list[PlainBroker]) -> None:
    for i, asked in enumerate(brokers):
        _create(f"by-{i}", asked)
    for asked in brokers:
        metadata = admin([asked]).list_topics(timeout=10)
        assert {b.id: f"{b.host}:{b.port}" for b in metadata.brokers.values()} == {
            b.settings.broker_id: b.bootstrap for b in brokers
        }
        assert set(metadata.topics) >= {"by-0", "by-1", "by-2"}
        assert sorted(_leaders("by-0", asked).values()) == [0, 0, 1, 1, 2, 2]
    _produce("by-1", list(range(PARTITIONS)), range(50), brokers[:1])
    for i, asked in enumerate(brokers):
        found = _consume("by-1", 50 * PARTITIONS, f"group-{i}", [asked])
        assert found == {p: list(range(50)) for p in range(PARTITIONS)}


def test_what_a_killed_broker_led_is_back_with_it_and_the_rest_goes_on_meanwhile(brokers: list[PlainBroker]) -> None:
    _create("spread", *brokers)
    _produce("spread", list(range(PARTITIONS)), range(100), brokers)
    controller = next(broker for broker in brokers if "is active with epoch" in broker.log_text)
    victims = [controller, next(broker for broker in brokers if broker is not controller)]
    count = 100
    for victim in victims:
        others = [broker for broker in brokers if broker is not victim]
        led = [p for p, leader in _leaders("spread", *brokers).items() if leader == victim.settings.broker_id]
        assert len(led) == 2
        victim.kill()
        until(lambda o=others, led=led: all(_leaders("spread", *o)[p] == -1 for p in led), "the loss is known")
        rest = [p for p in range(PARTITIONS) if p not in led]
        _produce("spread", rest, range(count, count + 10), others)
        victim.start()
        victim.wait_serving(WITHIN_S)
        until(lambda led=led: all(_leaders("spread", *brokers)[p] >= 0 for p in led), "its partitions are led again")
        _produce("spread", led, range(count, count + 10), brokers)
        count += 10
        found = _consume("spread", count * PARTITIONS, secrets.token_hex(4), brokers)
        assert found == {p: list(range(count)) for p in range(PARTITIONS)}
