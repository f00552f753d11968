"""Three whole brokers without Ray, load on them, and what must hold of replicated partitions afterwards."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from raykafka.cli import raykafka
from raykafka.log.batch import iter_batches
from tests.lab.clusters.plain_broker import PATIENT_SESSION_MS, PlainBroker
from tests.lab.processes import running_holder
from tests.lab.waiting import until

WITHIN_S = 120
BROKERS = 3
AT_ONCE = 200
CONFIG = {"offsets.topic.replication.factor": "3"}


@contextmanager
def running_brokers(
    directory: Path, zookeeper: str, *, session_ms: int = PATIENT_SESSION_MS, replica_actors: int = 1, **config: str
) -> Iterator[list[PlainBroker]]:
    """Three brokers of one cluster that know each other, each with so many replica actors (0: one for every replica);
    ``config`` with underscores for dots."""
    chroot, secret = secrets.token_hex(4), secrets.token_hex(32)
    settings = CONFIG | {name.replace("_", "."): value for name, value in config.items()}
    made = [
        PlainBroker(
            directory / f"broker-{i}",
            f"{zookeeper}/{chroot}",
            broker_id=i,
            secret_hex=secret,
            config=settings,
            session_ms=session_ms,
            replica_actors=replica_actors,
        )
        for i in range(BROKERS)
    ]
    try:
        start(made)
        with telling(made):
            yield made
    finally:
        for broker in made:
            broker.end()


def start(brokers: list[PlainBroker]) -> None:
    """Start those that do not run, until all know each other."""
    started = [broker for broker in brokers if not broker.runs]
    for broker in started:
        broker.start()
    for broker in started:
        broker.wait_serving(WITHIN_S)
    until(lambda: len(admin(brokers).list_topics(timeout=10).brokers) == BROKERS, "all brokers are known")


@contextmanager
def telling(brokers: list[PlainBroker]) -> Iterator[None]:
    """Print what they log meanwhile, which pytest shows when the test has failed."""
    marks = [len(broker.log_text) for broker in brokers]
    try:
        yield
    finally:
        for broker, mark in zip(brokers, marks, strict=True):
            print(f"broker {broker.settings.broker_id}:\n{broker.log_text[mark:]}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, zookeeper: str) -> Iterator[list[PlainBroker]]:
    with running_brokers(tmp_path_factory.mktemp("brokers"), zookeeper) as made:
        yield made


@pytest.fixture
def brokers(cluster: list[PlainBroker]) -> Iterator[list[PlainBroker]]:
    """The three brokers of a module, all running; each of its tests takes topics of its own."""
    start(cluster)
    with telling(cluster):
        yield cluster


def bootstrap(brokers: list[PlainBroker]) -> str:
    return ",".join(broker.bootstrap for broker in brokers)


def admin(brokers: list[PlainBroker]) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap(brokers), "log_level": 0})


def create(brokers: list[PlainBroker], topic: str, partitions: int = 1, **config: str) -> None:
    names = {name.replace("_", "."): value for name, value in config.items()}
    new = NewTopic(topic, partitions, BROKERS, config=names)
    client = admin(brokers)  # it must outlive the call
    client.create_topics([new])[topic].result(WITHIN_S)


def metadata(brokers: list[PlainBroker], topic: str, partition: int = 0) -> Any:
    return admin(brokers).list_topics(topic, timeout=10).topics[topic].partitions[partition]


def command(brokers: list[PlainBroker], *words: str, exit_code: int = 0) -> str:
    """What `raykafka WORDS` prints."""
    result = CliRunner().invoke(raykafka, [*words, "-b", bootstrap(brokers)], catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return result.output


def place(brokers: list[PlainBroker], topic: str, *replicas: list[int]) -> None:
    """Create a topic whose partitions have these replicas, the preferred leader first."""
    new = NewTopic(topic, len(replicas), replica_assignment=list(replicas))
    client = admin(brokers)
    client.create_topics([new])[topic].result(WITHIN_S)


def holders(brokers: list[PlainBroker], topic: str, partition: int = 0) -> tuple[list[int], set[int], int]:
    """The replicas of a partition, those in sync, and its leader."""
    found = metadata(brokers, topic, partition)
    return found.replicas, set(found.isrs), found.leader


def wait_in_sync(brokers: list[PlainBroker], topic: str, members: int, partition: int = 0) -> None:
    until(
        lambda: len(metadata(brokers, topic, partition).isrs) == members,
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
                "bootstrap.servers": bootstrap(brokers),
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
        self._thread = threading.Thread(target=self._run, daemon=True)
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
        until(lambda: len(self.acked) >= target, f"{count} more records are acknowledged")

    def stop(self) -> list[tuple[int, int]]:
        self._stop.set()
        self._thread.join(WITHIN_S * 2)
        assert self.failed == []
        return self.acked


def read(brokers: list[PlainBroker], topic: str, partition: int = 0) -> dict[int, int]:
    """Offset -> number of every record that a consumer gets."""
    consumer = Consumer({"bootstrap.servers": bootstrap(brokers), "log_level": 0, "group.id": "reader"})
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


def stored(broker: PlainBroker, topic: str, partition: int = 0) -> bytes:
    directory = broker.data_dir / f"{topic}-{partition}"
    return b"".join(path.read_bytes() for path in sorted(directory.glob("*.log")))


def check(brokers: list[PlainBroker], topic: str, acked: list[tuple[int, int]], partition: int = 0) -> None:
    """Everything acknowledged is there, once, where it was said to be and in order; all replicas are byte-equal."""
    found = read(brokers, topic, partition)
    assert {offset: number for number, offset in acked}.items() <= found.items()
    assert list(found.values()) == sorted(set(found.values()))
    wait_in_sync(brokers, topic, BROKERS, partition)
    until(lambda: len({stored(b, topic, partition) for b in brokers}) == 1, "the segment files are equal")
    batches = list(iter_batches(memoryview(stored(brokers[0], topic, partition))))
    assert batches[-1][1].last_offset + 1 == len(found)


def open_elsewhere(broker: PlainBroker, topic: str, before: int, partition: int = 0) -> bool:
    """Whether another process than ``before`` has this broker's replica of a partition open."""
    writer = running_holder(broker.data_dir / f"{topic}-{partition}")
    return writer is not None and writer.pid != before


def controller(brokers: list[PlainBroker]) -> PlainBroker:
    """The broker whose controller is active, of these."""
    by_id = {broker.settings.broker_id: broker for broker in brokers}
    found: list[PlainBroker] = []

    def is_known() -> bool:
        found.extend(filter(None, [by_id.get(admin(brokers).list_topics(timeout=10).controller_id)]))
        return bool(found)

    until(is_known, "one of them has the active controller")
    return found[-1]


def leader_and_follower(brokers: list[PlainBroker], topic: str) -> tuple[PlainBroker, PlainBroker]:
    leader = metadata(brokers, topic).leader
    return brokers[leader], brokers[(leader + 1) % BROKERS]
