"""Replicated partitions on three whole brokers without Ray: nothing acknowledged is lost, whoever is killed."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from raykafka.log.batch import iter_batches
from tests.integration.plain_broker import PlainBroker

WITHIN_S = 60
BROKERS = 3
AT_ONCE = 200
MORE_THAN_SOCKETS_HOLD = 24
CONFIG = {"offsets.topic.replication.factor": "3"}


@pytest.fixture
def brokers(tmp_path: Path, zookeeper: str) -> Iterator[list[PlainBroker]]:
    chroot, secret = secrets.token_hex(4), secrets.token_hex(32)
    made = [
        PlainBroker(
            tmp_path / f"broker-{i}", f"{zookeeper}/{chroot}", broker_id=i, secret_hex=secret, config=dict(CONFIG)
        )
        for i in range(BROKERS)
    ]
    try:
        for broker in made:
            broker.start()
        for broker in made:
            broker.wait_serving(WITHIN_S)
        _until(lambda: len(_admin(made).list_topics(timeout=10).brokers) == BROKERS, "all brokers are known")
        yield made
    finally:
        for broker in made:
            print(f"broker {broker.settings.broker_id}:\n{broker.log_text}")  # shown when the test failed
            broker.end()


def _until(holds: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.05)


def _bootstrap(brokers: list[PlainBroker]) -> str:
    return ",".join(broker.bootstrap for broker in brokers)


def _admin(brokers: list[PlainBroker]) -> AdminClient:
    return AdminClient({"bootstrap.servers": _bootstrap(brokers), "log_level": 0})


def _create(brokers: list[PlainBroker], topic: str, partitions: int = 1, **config: str) -> None:
    names = {name.replace("_", "."): value for name, value in config.items()}
    new = NewTopic(topic, partitions, BROKERS, config=names)
    admin = _admin(brokers)
    admin.create_topics([new])[topic].result(WITHIN_S)


def _metadata(brokers: list[PlainBroker], topic: str, partition: int = 0) -> Any:
    return _admin(brokers).list_topics(topic, timeout=10).topics[topic].partitions[partition]


def _wait_in_sync(brokers: list[PlainBroker], topic: str, members: int, partition: int = 0) -> None:
    _until(
        lambda: len(_metadata(brokers, topic, partition).isrs) == members,
        f"{topic}-{partition} has {members} replicas in sync",
    )


class Load:
    """A producer (idempotent, acks=all) that writes numbers to one partition until told to stop, and what of it was
    acknowledged."""

    def __init__(self, brokers: list[PlainBroker], topic: str, partition: int = 0) -> None:
        self.acked: list[tuple[int, int]] = []
        self.failed: list[Any] = []
        self._topic, self._partition = topic, partition
        self._stop = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": _bootstrap(brokers),
                "log_level": 0,
                "enable.idempotence": True,
                "linger.ms": 2,
                "retry.backoff.ms": 20,
                "retry.backoff.max.ms": 100,
                "topic.metadata.refresh.fast.interval.ms": 50,
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 200,
                "message.timeout.ms": WITHIN_S * 1000,
            }
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            while len(self._producer) < AT_ONCE:
                self._producer.produce(
                    self._topic, str(number).encode(), partition=self._partition, on_delivery=self._delivered(number)
                )
                number += 1
            self._producer.poll(0.005)
        self._producer.flush(WITHIN_S)

    def _delivered(self, number: int) -> Callable[[Any, Any], None]:
        def delivered(error: Any, message: Any) -> None:
            if error is None:
                self.acked.append((number, message.offset()))
            else:
                self.failed.append((number, error))

        return delivered

    def wait_more(self, count: int = 200) -> None:
        """Until ``count`` more records have been acknowledged."""
        target = len(self.acked) + count
        _until(lambda: len(self.acked) >= target, f"{count} more records are acknowledged")

    def stop(self) -> list[tuple[int, int]]:
        self._stop.set()
        self._thread.join(WITHIN_S * 2)
        assert self.failed == []
        return self.acked


def _read(brokers: list[PlainBroker], topic: str, partition: int = 0) -> dict[int, int]:
    """Offset -> number of every record that a consumer gets."""
    consumer = Consumer({"bootstrap.servers": _bootstrap(brokers), "log_level": 0, "group.id": "reader"})
    try:
        place = TopicPartition(topic, partition)
        _, end = consumer.get_watermark_offsets(place, timeout=WITHIN_S)
        consumer.assign([TopicPartition(topic, partition, 0)])
        found: dict[int, int] = {}
        deadline = time.monotonic() + WITHIN_S
        while len(found) < end:
            assert time.monotonic() < deadline, (len(found), end)
            for message in consumer.consume(1000, 0.5):
                assert message.error() is None, message.error()
                found[message.offset() or 0] = int(message.value() or b"")
        return found
    finally:
        consumer.close()


def _stored(broker: PlainBroker, topic: str, partition: int = 0) -> bytes:
    directory = broker.data_dir / f"{topic}-{partition}"
    return b"".join(path.read_bytes() for path in sorted(directory.glob("*.log")))


def _check(brokers: list[PlainBroker], topic: str, acked: list[tuple[int, int]], partition: int = 0) -> None:
    """Everything acknowledged is there, once, where it was said to be and in order; all replicas are byte-equal."""
    found = _read(brokers, topic, partition)
    assert {offset: number for number, offset in acked}.items() <= found.items()
    assert list(found.values()) == sorted(set(found.values()))
    _wait_in_sync(brokers, topic, BROKERS, partition)
    _until(lambda: len({_stored(b, topic, partition) for b in brokers}) == 1, "the segment files are equal")
    batches = list(iter_batches(memoryview(_stored(brokers[0], topic, partition))))
    assert batches[-1][1].last_offset + 1 == len(found)


def _runs_anew(broker: PlainBroker, topic: str, before: int) -> bool:
    try:
        return broker.replica_of(topic).pid != before
    except (psutil.NoSuchProcess, FileNotFoundError, IndexError):
        return False


def _leader_and_follower(brokers: list[PlainBroker], topic: str) -> tuple[PlainBroker, PlainBroker]:
    leader = _metadata(brokers, topic).leader
    return brokers[leader], brokers[(leader + 1) % BROKERS]


def test_acks_all_is_on_every_replica(brokers: list[PlainBroker]) -> None:
    _create(brokers, "plain", 3)
    loads = [Load(brokers, "plain", partition) for partition in range(3)]
    for load in loads:
        load.wait_more()
    for partition, load in enumerate(loads):
        _check(brokers, "plain", load.stop(), partition)


def test_a_killed_follower_replica_comes_back_and_nothing_acknowledged_is_lost(brokers: list[PlainBroker]) -> None:
    _create(brokers, "follower")
    load = Load(brokers, "follower")
    load.wait_more()
    _, follower = _leader_and_follower(brokers, "follower")
    for _ in range(2):
        killed = follower.replica_of("follower")
        killed.kill()
        _until(lambda killed=killed: _runs_anew(follower, "follower", killed.pid), "another process has the log")
        load.wait_more()
    _check(brokers, "follower", load.stop())


def test_a_killed_leader_replica_hands_over_and_nothing_acknowledged_is_lost(brokers: list[PlainBroker]) -> None:
    _create(brokers, "leader")
    load = Load(brokers, "leader")
    load.wait_more()
    for _ in range(3):
        leader, _ = _leader_and_follower(brokers, "leader")
        leader.replica_of("leader").kill()
        load.wait_more()
        _until(
            lambda leader=leader: _metadata(brokers, "leader").leader != leader.settings.broker_id,
            "another broker leads",
        )
        _wait_in_sync(brokers, "leader", BROKERS)
    _check(brokers, "leader", load.stop())


def test_a_killed_broker_is_replaced_and_catches_up_and_nothing_acknowledged_is_lost(
    brokers: list[PlainBroker],
) -> None:
    _create(brokers, "whole", min_insync_replicas="2")
    load = Load(brokers, "whole")
    load.wait_more()
    for _ in range(2):
        leader, _ = _leader_and_follower(brokers, "whole")
        others = [broker for broker in brokers if broker is not leader]
        leader.kill()
        load.wait_more()
        assert _metadata(others, "whole").leader != leader.settings.broker_id
        leader.start()
        leader.wait_serving(WITHIN_S)
        _wait_in_sync(brokers, "whole", BROKERS)
    _check(brokers, "whole", load.stop())


def test_a_stopped_broker_moves_its_leaderships_first(brokers: list[PlainBroker]) -> None:
    _create(brokers, "stopped", min_insync_replicas="2")
    load = Load(brokers, "stopped")
    load.wait_more()
    leader, _ = _leader_and_follower(brokers, "stopped")
    others = [broker for broker in brokers if broker is not leader]
    leader.stop()
    load.wait_more()
    assert "is stopping" in "".join(broker.log_text for broker in brokers)
    assert _metadata(others, "stopped").leader != leader.settings.broker_id
    leader.start()
    leader.wait_serving(WITHIN_S)
    _wait_in_sync(brokers, "stopped", BROKERS)
    _check(brokers, "stopped", load.stop())


def test_records_that_only_a_dead_leader_had_are_truncated(brokers: list[PlainBroker]) -> None:
    """acks=1 says nothing of the followers: what they never got goes, and the logs agree again."""
    _create(brokers, "tail")
    load = Load(brokers, "tail")
    load.wait_more()
    acked = load.stop()
    leader, _ = _leader_and_follower(brokers, "tail")
    others = [broker for broker in brokers if broker is not leader]
    stopped = [psutil.Process(b.process.pid) for b in others] + [b.replica_of("tail") for b in others]
    for process in stopped:
        process.suspend()
    producer = Producer({"bootstrap.servers": leader.bootstrap, "log_level": 0, "acks": 1, "linger.ms": 0})
    extra: list[int] = []
    for _ in range(MORE_THAN_SOCKETS_HOLD):
        producer.produce("tail", b"x" * 900_000, partition=0, on_delivery=lambda e, m: extra.append(m.offset()))
    assert producer.flush(WITHIN_S) == 0
    before = len(_stored(leader, "tail"))
    leader.replica_of("tail").kill()
    for process in stopped:
        process.resume()
    _until(lambda: _metadata(brokers, "tail").leader != leader.settings.broker_id, "another broker leads")
    _wait_in_sync(brokers, "tail", BROKERS)
    assert "truncated from" in leader.log_text
    assert len(_stored(leader, "tail")) < before
    _until(lambda: len({_stored(broker, "tail") for broker in brokers}) == 1, "the segment files are equal")
    offsets = [header.base_offset for _, header in iter_batches(memoryview(_stored(leader, "tail")))]
    assert max(offset for _, offset in acked) <= max(offsets) < max(extra)
