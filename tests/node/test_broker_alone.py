"""One whole broker with a real ZooKeeper and real clients: it serves, it heals, it keeps everything over its lives."""

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from kazoo.client import KazooClient

from raykafka.broker.children.child import CONTROLLER, COORDINATOR
from raykafka.broker.life import LOST_EXIT_CODE
from raykafka.broker.partitions.checkpoints import HIGH_WATERMARKS, OffsetCheckpoint
from raykafka.deploy.zookeeper_process import ZooKeeperProcess
from raykafka.types import TopicPartition
from tests.lab.clusters.plain_broker import PATIENT_SESSION_MS, PlainBroker
from tests.lab.waiting import until

WITHIN_S = 120
LOOK_AGAIN_MS = 200  # librdkafka would wait for up to ten seconds


@pytest.fixture(scope="module")
def one_broker(tmp_path_factory: pytest.TempPathFactory, zookeeper: str) -> Iterator[PlainBroker]:
    chroot = f"{zookeeper}/{secrets.token_hex(4)}"
    made = PlainBroker(tmp_path_factory.mktemp("broker"), chroot, session_ms=PATIENT_SESSION_MS)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def broker(one_broker: PlainBroker) -> Iterator[PlainBroker]:
    """The broker of this file, running; each test takes topics and groups of its own."""
    mark = len(one_broker.log_text)
    if not one_broker.runs:
        one_broker.start()
    try:
        one_broker.wait_serving()
        yield one_broker
    finally:
        print(one_broker.log_text[mark:])  # shown when the test failed


def _admin(broker: PlainBroker) -> AdminClient:
    return AdminClient({"log_level": 0, "bootstrap.servers": broker.bootstrap})


def _create(broker: PlainBroker, topic: str, partitions: int = 1) -> None:
    admin = _admin(broker)  # must live until the answer is there
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(WITHIN_S)
            return
        except KafkaException as error:  # a controller that was just deposed says so: that is retriable
            if error.args[0].code() != KafkaError.NOT_CONTROLLER or time.monotonic() > deadline:
                raise


class _Producing:
    """Sends numbered records one after the other and remembers what was acknowledged."""

    def __init__(self, broker: PlainBroker, topic: str, **config: Any) -> None:
        self.producer = Producer(
            {
                "log_level": 0,
                "bootstrap.servers": broker.bootstrap,
                "reconnect.backoff.max.ms": LOOK_AGAIN_MS,
                "linger.ms": 1,
                "acks": "all",
                **config,
            }
        )
        self.topic = topic
        self.sent = 0
        self.acknowledged: list[int] = []
        self.errors: list[KafkaError] = []

    def send(self, count: int) -> None:
        for _ in range(count):
            self.producer.produce(self.topic, str(self.sent), partition=0, on_delivery=self._delivered)
            self.sent += 1
            self.producer.poll(0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.errors.append(error)
        else:
            self.acknowledged.append(int(message.value() or b""))

    def wait_acknowledged(self, count: int) -> None:
        until(lambda: self.producer.poll(0) >= 0 and len(self.acknowledged) >= count, f"{count} acknowledged records")

    def finish(self) -> None:
        assert self.producer.flush(WITHIN_S) == 0
        assert self.errors == []


def _another_writes(broker: PlainBroker, topic: str, before: psutil.Process) -> bool:
    try:
        writer = broker.actor_of(topic)
        return writer != before and writer.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, IndexError):
        return False  # between two holders of the lock


def _consume(broker: PlainBroker, topic: str, count: int, group: str, *, commit: bool = True) -> list[Message]:
    consumer = Consumer(
        {
            "log_level": 0,
            "bootstrap.servers": broker.bootstrap,
            "reconnect.backoff.max.ms": LOOK_AGAIN_MS,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "topic.metadata.refresh.interval.ms": 500,
        }
    )
    consumer.subscribe([topic])
    found: list[Message] = []
    deadline = time.monotonic() + WITHIN_S
    try:
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} records came\n{broker.log_text[-4000:]}"
            for message in consumer.consume(500, 0.5):
                assert message.error() is None, message.error()
                found.append(message)
        if commit:
            consumer.commit(asynchronous=False)
    finally:
        consumer.close()
    return found


def _numbers(broker: PlainBroker, topic: str, count: int) -> list[int]:
    """The first ``count`` records of a partition, read by a group of their own."""
    return [int(m.value() or b"") for m in _consume(broker, topic, count, secrets.token_hex(4), commit=False)]


def test_clients_create_a_topic_produce_and_consume_in_a_group(broker: PlainBroker) -> None:
    _create(broker, "flights", partitions=3)
    producer = Producer({"log_level": 0, "bootstrap.servers": broker.bootstrap})
    for i in range(3000):
        producer.produce("flights", f"value {i}", f"key {i % 17}")
    assert producer.flush(WITHIN_S) == 0

    found = _consume(broker, "flights", 3000, "readers of flights")
    assert sorted(int((m.value() or b"").split()[1]) for m in found) == list(range(3000))
    assert {m.partition() for m in found} == {0, 1, 2}
    by_key: dict[bytes | None, list[int]] = {}
    for message in found:
        by_key.setdefault(message.key(), []).append(int((message.value() or b"").split()[1]))
    assert all(numbers == sorted(numbers) for numbers in by_key.values())

    producer.produce("flights", "value 3000", "late")
    assert producer.flush(WITHIN_S) == 0
    assert [m.value() for m in _consume(broker, "flights", 1, "readers of flights")] == [b"value 3000"]


def test_a_topic_that_a_producer_names_first_is_created(broker: PlainBroker) -> None:
    producing = _Producing(broker, "new-topic")
    producing.send(10)
    producing.finish()
    assert _numbers(broker, "new-topic", 10) == list(range(10))


def test_configs_are_described_with_their_sources(broker: PlainBroker) -> None:
    topic = NewTopic("tuned", 1, 1, config={"retention.ms": "1234567"})
    admin = _admin(broker)
    admin.create_topics([topic])["tuned"].result(WITHIN_S)
    resources = [ConfigResource(ConfigResource.Type.TOPIC, "tuned"), ConfigResource(ConfigResource.Type.BROKER, "0")]
    of_topic, of_broker = (f.result(WITHIN_S) for f in admin.describe_configs(resources).values())
    assert (of_topic["retention.ms"].value, of_topic["retention.ms"].source) == ("1234567", 1)
    assert (of_topic["cleanup.policy"].value, of_topic["cleanup.policy"].is_default) == ("delete", True)
    assert (of_broker["offsets.topic.num.partitions"].value, of_broker["offsets.topic.num.partitions"].source) == (
        "3",
        4,
    )


@pytest.mark.parametrize("acks", ["1", "all"])
def test_a_killed_replica_actor_heals_and_loses_nothing_acknowledged(broker: PlainBroker, acks: str) -> None:
    topic = f"wounded-{acks}"
    _create(broker, topic)
    producing = _Producing(broker, topic, acks=acks, **{"enable.idempotence": acks == "all"})
    for round_number in range(3):
        producing.send(200)
        producing.wait_acknowledged(400 * round_number + 1)
        killed = broker.actor_of(topic)
        killed.kill()
        producing.send(200)
        producing.wait_acknowledged(len(producing.acknowledged) + 1)
        until(lambda before=killed: _another_writes(broker, topic, before), "another replica actor")
    producing.finish()
    found = _numbers(broker, topic, len(producing.acknowledged))
    if acks == "all":
        assert found == list(range(producing.sent))
    else:
        assert set(producing.acknowledged) <= set(found)


@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
def test_a_restarted_broker_has_all_its_data_and_groups_go_on(broker: PlainBroker, clean: bool) -> None:
    topic = f"lasting-{'stopped' if clean else 'killed'}"
    readers = f"readers of {topic}"
    _create(broker, topic)
    producing = _Producing(broker, topic)
    producing.send(1000)
    producing.finish()
    assert len(_consume(broker, topic, 1000, readers)) == 1000
    children = broker.children()
    (broker.stop if clean else broker.kill)()
    until(lambda: not any(child.is_running() for child in children), "the children end with their broker")

    broker.start()
    broker.wait_serving()
    producing.send(500)
    producing.finish()
    assert [int(m.value() or b"") for m in _consume(broker, topic, 500, readers)] == list(range(1000, 1500))
    assert _numbers(broker, topic, 1500) == list(range(1500))


def test_an_only_replica_that_lost_its_tail_in_a_power_cut_is_served_from_what_is_left(broker: PlainBroker) -> None:
    _create(broker, "cut")
    for number in range(20):
        producing = _Producing(broker, "cut")
        producing.sent = number
        producing.send(1)
        producing.finish()
    children = broker.children()
    broker.kill()
    until(lambda: not any(child.is_running() for child in children), "the children end with their broker")
    log = broker.data_dir / "cut-0" / "00000000000000000000.log"
    os.truncate(log, log.stat().st_size // 2)  # what had not reached the disk
    checkpoint = OffsetCheckpoint(broker.data_dir, HIGH_WATERMARKS)
    checkpoint.write({**checkpoint.read(), TopicPartition("cut", 0): 20})

    broker.start()
    broker.wait_serving()
    producing = _Producing(broker, "cut")
    producing.sent = 100
    producing.send(1)
    producing.finish()
    assert _numbers(broker, "cut", 11) == [*range(10), 100]
    assert "cut-0: unclean election" in broker.log_text


def test_a_killed_coordinator_comes_back_with_its_groups(broker: PlainBroker) -> None:
    _create(broker, "grouped")
    producing = _Producing(broker, "grouped")
    producing.send(300)
    producing.finish()
    _consume(broker, "grouped", 300, "readers of grouped")
    (killed,) = broker.children(COORDINATOR)
    killed.kill()
    producing.send(300)
    producing.finish()
    assert [int(m.value() or b"") for m in _consume(broker, "grouped", 300, "readers of grouped")] == list(
        range(300, 600)
    )


def test_a_killed_controller_comes_back_and_decides_again(broker: PlainBroker) -> None:
    _create(broker, "before")
    (killed,) = broker.children(CONTROLLER)
    killed.kill()
    _create(broker, "after")
    producing = _Producing(broker, "after")
    producing.send(10)
    producing.finish()
    assert {"after", "before"} <= set(_admin(broker).list_topics(timeout=WITHIN_S).topics)


def test_a_data_directory_of_another_broker_or_cluster_is_refused_and_left_alone(
    broker: PlainBroker, tmp_path: Path, zookeeper: str
) -> None:
    _create(broker, "kept")
    producing = _Producing(broker, "kept")
    producing.send(10)
    producing.finish()
    broker.stop()
    other_id = PlainBroker(tmp_path / "other-id", broker.settings.zookeeper.hosts, broker_id=7)
    other_cluster = PlainBroker(tmp_path / "other-cluster", f"{zookeeper}/{secrets.token_hex(4)}")
    for other, reason in ((other_id, "broker 0's"), (other_cluster, "cluster id")):
        other.set_data_dir(broker.data_dir)
        other.start()
        assert other.wait_ended(WITHIN_S) != 0
        assert reason in other.log_text
    broker.start()
    broker.wait_serving()
    assert _numbers(broker, "kept", 10) == list(range(10))


def test_a_second_broker_on_the_same_directory_is_refused(broker: PlainBroker, tmp_path: Path) -> None:
    second = PlainBroker(tmp_path / "second", broker.settings.zookeeper.hosts)
    second.set_data_dir(broker.data_dir)
    second.start()
    assert second.wait_ended(WITHIN_S) != 0
    assert f"process {broker.process.pid}" in second.log_text
    _create(broker, "undisturbed")


def test_a_broker_whose_registration_is_removed_exits_and_takes_its_children_along(broker: PlainBroker) -> None:
    children = broker.children()
    assert children
    client = KazooClient(broker.settings.zookeeper.hosts)
    client.start()
    client.delete("/brokers/ids/0")
    client.stop()
    client.close()
    assert broker.wait_ended(WITHIN_S) == LOST_EXIT_CODE
    until(lambda: not any(psutil.pid_exists(child.pid) for child in children), "the children end with their broker")


def test_a_zookeeper_outage_is_a_wait_not_a_restart(tmp_path: Path, zookeeper_server: ZooKeeperProcess) -> None:
    broker = PlainBroker(tmp_path / "broker", zookeeper_server.hosts)
    broker.start()
    try:
        broker.wait_serving()
        _create(broker, "steady")
        pid = broker.process.pid
        zookeeper_server.kill()
        acknowledged = _Producing(broker, "steady", acks="all")
        acknowledged.send(100)
        acknowledged.finish()
        zookeeper_server.start()
        zookeeper_server.wait_ready(30)
        _create(broker, "after-the-outage")
        assert _numbers(broker, "steady", 100) == list(range(100))
        assert broker.process.poll() is None and broker.process.pid == pid
    finally:
        broker.end()
