"""confluent-kafka (librdkafka): producing, consuming, groups, offsets and topic administration."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from tests.lab.clusters.under_test import KafkaUnderTest, unique
from tests.lab.waiting import until

MakeTopic = Callable[..., str]
DEADLINE_S = 60.0


def produce(
    bootstrap: str, topic: str, values: list[bytes], *, partition: int = -1, **settings: object
) -> list[Message]:
    """Send the values and wait until each is acknowledged; the delivered messages in the order of their reports."""
    producer = Producer({"bootstrap.servers": bootstrap, **{key.replace("_", "."): v for key, v in settings.items()}})
    delivered: list[Message] = []

    def report(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            raise KafkaException(error)
        delivered.append(message)

    for value in values:
        producer.produce(topic, value, partition=partition, on_delivery=report)
        producer.poll(0)
    assert producer.flush(DEADLINE_S) == 0
    assert len(delivered) == len(values)
    return delivered


@contextmanager
def consumer_of(bootstrap: str, group: str, **settings: object) -> Iterator[Consumer]:
    defaults = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 300,
    }
    consumer = Consumer(defaults | {key.replace("_", "."): value for key, value in settings.items()})
    try:
        yield consumer
    finally:
        consumer.close()


def take(consumer: Consumer, count: int) -> list[Message]:
    """The next ``count`` messages, none of them an error."""
    taken: list[Message] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(taken) < count and time.monotonic() < deadline:
        for message in consumer.consume(count - len(taken), timeout=0.2):
            if message.error():
                raise KafkaException(message.error())
            taken.append(message)
    assert len(taken) == count
    return taken


def read_partition(bootstrap: str, topic: str, count: int, partition: int = 0) -> list[bytes]:
    """Values of the first ``count`` records of a partition, outside of any group's balance."""
    with consumer_of(bootstrap, unique("reader")) as consumer:
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
        return [message.value() for message in take(consumer, count)]


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_records_arrive_in_order_for_each_acks(kafka: KafkaUnderTest, make_topic: MakeTopic, acks: str) -> None:
    topic = make_topic()
    values = [b"%06d" % i for i in range(2000)]
    produce(kafka.bootstrap, topic, values, acks=acks)
    assert read_partition(kafka.bootstrap_outside, topic, len(values)) == values


def test_idempotent_producer_gets_consecutive_offsets(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic = make_topic()
    values = [b"%06d" % i for i in range(5000)]
    delivered = produce(kafka.bootstrap, topic, values, enable_idempotence=True, batch_num_messages=100)
    assert [message.offset() for message in delivered] == list(range(len(values)))
    assert read_partition(kafka.bootstrap, topic, len(values)) == values


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_codecs_round_trip(kafka: KafkaUnderTest, make_topic: MakeTopic, codec: str) -> None:
    topic = make_topic()
    values = [b"squeeze me " * 50 + b"%d" % i for i in range(500)]
    produce(kafka.bootstrap, topic, values, compression_type=codec, linger_ms=50)
    assert read_partition(kafka.bootstrap, topic, len(values)) == values


def test_keys_headers_and_timestamps_round_trip(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic = make_topic()
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    headers = [("trace", b"\x00\xff"), ("empty", b""), ("none", None)]
    producer.produce(topic, None, key=b"\x00key", timestamp=1_600_000_000_123, headers=headers)
    assert producer.flush(DEADLINE_S) == 0
    with consumer_of(kafka.bootstrap, unique("reader")) as consumer:
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        (message,) = take(consumer, 1)
    assert (message.key(), message.value(), message.headers()) == (b"\x00key", None, headers)
    assert message.timestamp() == (1, 1_600_000_000_123)
    assert message.leader_epoch() is not None


def test_big_message_passes_and_a_too_big_one_is_refused(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic = make_topic(max_message_bytes=3_000_000)
    big = bytes(range(256)) * 10_000
    produce(kafka.bootstrap, topic, [big], message_max_bytes=10_000_000)
    with pytest.raises(KafkaException) as refused:
        produce(kafka.bootstrap, topic, [big * 2], message_max_bytes=10_000_000)
    assert refused.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    produce(kafka.bootstrap, topic, [b"after"])
    assert read_partition(kafka.bootstrap, topic, 2) == [big, b"after"]


def test_a_message_bigger_than_the_fetch_sizes_still_arrives(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic = make_topic()
    big = bytes(900_000)
    produce(kafka.bootstrap, topic, [b"small", big, b"last"], linger_ms=0, batch_num_messages=1)
    small_fetches = {"fetch_message_max_bytes": 1000, "fetch_max_bytes": 2000, "message_max_bytes": 1000}
    with consumer_of(kafka.bootstrap, unique("reader"), **small_fetches) as consumer:
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        assert [message.value() for message in take(consumer, 3)] == [b"small", big, b"last"]


def test_offsets_for_times_and_watermarks(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic = make_topic()
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for second in range(10):
        producer.produce(topic, b"%d" % second, timestamp=1_600_000_000_000 + second * 1000, partition=0)
        assert producer.flush(DEADLINE_S) == 0
    with consumer_of(kafka.bootstrap, unique("reader")) as consumer:

        def offset_at(timestamp_ms: int) -> int:
            (found,) = consumer.offsets_for_times([TopicPartition(topic, 0, timestamp_ms)], timeout=10)
            return found.offset

        assert offset_at(0) == 0
        assert offset_at(1_600_000_003_000) == 3
        assert offset_at(1_600_000_003_001) == 4
        assert offset_at(1_600_000_009_001) == -1  # later than every record: the end
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10) == (0, 10)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})

    def listed(spec: OffsetSpec) -> tuple[int, int]:
        result = admin.list_offsets({TopicPartition(topic, 0): spec})[TopicPartition(topic, 0)].result(30)
        return result.offset, result.timestamp

    assert listed(OffsetSpec.earliest())[0] == 0
    assert listed(OffsetSpec.latest())[0] == 10
    assert listed(OffsetSpec.max_timestamp()) == (9, 1_600_000_009_000)


def test_fetch_from_the_middle_and_past_the_end(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic = make_topic()
    values = [b"%d" % i for i in range(100)]
    produce(kafka.bootstrap, topic, values, linger_ms=100)
    with consumer_of(kafka.bootstrap, unique("reader"), auto_offset_reset="latest") as consumer:
        consumer.assign([TopicPartition(topic, 0, 42)])
        assert [message.value() for message in take(consumer, 58)] == values[42:]
    with consumer_of(kafka.bootstrap, unique("reader"), auto_offset_reset="error") as consumer:
        consumer.assign([TopicPartition(topic, 0, 1000)])
        with pytest.raises(KafkaException) as refused:
            take(consumer, 1)
    assert refused.value.args[0].code() == KafkaError._AUTO_OFFSET_RESET


def test_waiting_consumer_sees_a_record_that_comes_later(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic = make_topic()
    with consumer_of(kafka.bootstrap, unique("reader"), fetch_wait_max_ms=30_000) as consumer:
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        assert consumer.poll(1.0) is None  # by now a fetch waits at the broker, for up to 30 s
        produce(kafka.bootstrap, topic, [b"late"])
        message = consumer.poll(20.0)
    assert message is not None
    assert message.value() == b"late"


class Member:
    """A consumer that polls in a thread of its own, as a program in a group does."""

    def __init__(self, bootstrap: str, group: str, topic: str) -> None:
        self.owned: set[int] = set()
        self.values: list[bytes] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(bootstrap, group, topic))
        self._thread.start()

    def _run(self, bootstrap: str, group: str, topic: str) -> None:
        with consumer_of(bootstrap, group) as consumer:
            consumer.subscribe([topic])
            while not self._stop.is_set():
                message = consumer.poll(0.1)
                if message is not None and not message.error():
                    self.values.append(message.value())
                self.owned = {partition.partition for partition in consumer.assignment()}

    def leave(self) -> None:
        self._stop.set()
        self._thread.join()


def test_two_members_share_a_topic_and_the_one_left_takes_over(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic, group = make_topic(partitions=4), unique("group")
    members = [Member(kafka.bootstrap, group, topic), Member(kafka.bootstrap_outside, group, topic)]
    first, second = members
    values = [b"%d" % i for i in range(400)]
    try:
        until(
            lambda: len(first.owned) == len(second.owned) == 2 and first.owned | second.owned == {0, 1, 2, 3},
            "each member owns two of the four partitions",
        )
        produce(kafka.bootstrap, topic, values)
        until(lambda: len(first.values) + len(second.values) >= len(values), "all records were consumed")
        assert sorted(first.values + second.values) == sorted(values)
        second.leave()
        until(lambda: first.owned == {0, 1, 2, 3}, "the member that is left owns everything")
    finally:
        for member in members:
            member.leave()


def test_group_goes_on_from_its_commit(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic, group = make_topic(), unique("group")
    values = [b"%d" % i for i in range(100)]
    produce(kafka.bootstrap, topic, values)
    with consumer_of(kafka.bootstrap, group) as consumer:
        consumer.subscribe([topic])
        assert [message.value() for message in take(consumer, 40)] == values[:40]
        where = TopicPartition(topic, 0, 40, "forty, höchstens")
        (committed,) = consumer.commit(offsets=[where], asynchronous=False)
        assert committed.error is None
    with consumer_of(kafka.bootstrap, group) as consumer:
        (committed,) = consumer.committed([TopicPartition(topic, 0)], timeout=10)
        assert (committed.offset, committed.metadata) == (40, "forty, höchstens")
        consumer.subscribe([topic])
        assert [message.value() for message in take(consumer, 60)] == values[40:]


def test_static_member_comes_back_to_its_partitions(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic, group = make_topic(partitions=2), unique("group")
    produce(kafka.bootstrap, topic, [b"%d" % i for i in range(10)])
    for _ in range(2):
        with consumer_of(kafka.bootstrap, group, group_instance_id="worker-1") as consumer:
            consumer.subscribe([topic])
            assert len(take(consumer, 10)) == 10
            assert {partition.partition for partition in consumer.assignment()} == {0, 1}


def test_groups_are_listed_and_described(kafka: KafkaUnderTest, make_topic: MakeTopic, admin: AdminClient) -> None:
    topic, group = make_topic(), unique("group")
    produce(kafka.bootstrap, topic, [b"one"])
    with consumer_of(kafka.bootstrap, group) as consumer:
        consumer.subscribe([topic])
        take(consumer, 1)
        consumer.commit(asynchronous=False)
        described = admin.describe_consumer_groups([group])[group].result(30)
        assert described.state == ConsumerGroupState.STABLE
        (member,) = described.members
        assert [(p.topic, p.partition) for p in member.assignment.topic_partitions] == [(topic, 0)]
    assert group in {found.group_id for found in admin.list_consumer_groups().result(30).valid}
    listed = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(30)
    assert [(p.topic, p.partition, p.offset) for p in listed.topic_partitions] == [(topic, 0, 1)]
    until(
        lambda: admin.describe_consumer_groups([group])[group].result(30).state == ConsumerGroupState.EMPTY,
        "the group is empty after its member left",
    )
    admin.delete_consumer_groups([group])[group].result(30)
    assert group not in {found.group_id for found in admin.list_consumer_groups().result(30).valid}


def test_topics_are_created_described_and_deleted(kafka: KafkaUnderTest, admin: AdminClient) -> None:
    name = unique("made")
    admin.create_topics([NewTopic(name, 3, 1, config={"retention.ms": "3600000"})])[name].result(30)
    with pytest.raises(KafkaException) as refused:
        admin.create_topics([NewTopic(name, 3, 1)])[name].result(30)
    assert refused.value.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    assert set(admin.list_topics(name, timeout=10).topics[name].partitions) == {0, 1, 2}
    resource = ConfigResource(ResourceType.TOPIC, name)
    config = admin.describe_configs([resource])[resource].result(30)
    assert config["retention.ms"].value == "3600000"
    assert not config["retention.ms"].is_default
    assert config["max.message.bytes"].value == "1048588"
    assert config["max.message.bytes"].is_default
    admin.delete_topics([name])[name].result(30)
    until(lambda: name not in admin.list_topics(timeout=10).topics, "the deleted topic is no longer listed")
    with pytest.raises(KafkaException) as refused:
        admin.delete_topics([name])[name].result(30)
    assert refused.value.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        (NewTopic("bad name!", 1, 1), KafkaError.TOPIC_EXCEPTION),
        (NewTopic("zero-partitions", 0, 1), KafkaError.INVALID_PARTITIONS),
        (NewTopic("too-many-replicas", 1, 99), KafkaError.INVALID_REPLICATION_FACTOR),
        (NewTopic("bad-config", 1, 1, config={"retention.ms": "soon"}), KafkaError.INVALID_CONFIG),
        (NewTopic("no-such-config", 1, 1, config={"retention.msec": "1"}), KafkaError.INVALID_CONFIG),
    ],
    ids=lambda value: value.topic if isinstance(value, NewTopic) else "",
)
def test_bad_topics_are_refused_with_kafkas_codes(admin: AdminClient, topic: NewTopic, code: int) -> None:
    with pytest.raises(KafkaException) as refused:
        admin.create_topics([topic])[topic.topic].result(30)
    assert refused.value.args[0].code() == code


def test_validate_only_creates_nothing(admin: AdminClient) -> None:
    name = unique("dry")
    admin.create_topics([NewTopic(name, 1, 1)], validate_only=True)[name].result(30)
    assert name not in admin.list_topics(timeout=10).topics


def can_be_created(admin: AdminClient, name: str) -> bool:
    """False while a topic of that name exists or its deletion is still under way."""
    try:
        admin.create_topics([NewTopic(name, 1, 1)], validate_only=True)[name].result(30)
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
        return False
    return True


def test_a_topic_made_again_under_its_name_starts_empty(kafka: KafkaUnderTest, admin: AdminClient) -> None:
    name = unique("again")
    for round_number in range(2):
        admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
        produce(kafka.bootstrap, name, [b"round %d" % round_number])
        with consumer_of(kafka.bootstrap, unique("reader")) as consumer:
            assert consumer.get_watermark_offsets(TopicPartition(name, 0), timeout=10) == (0, 1)
        assert read_partition(kafka.bootstrap, name, 1) == [b"round %d" % round_number]
        admin.delete_topics([name])[name].result(30)
        if round_number == 0:
            until(lambda: can_be_created(admin, name), "the name is free again")


def test_producing_to_an_unknown_topic_creates_it(kafka: KafkaUnderTest, admin: AdminClient) -> None:
    name = unique("auto")
    produce(kafka.bootstrap, name, [b"hello"])
    assert read_partition(kafka.bootstrap, name, 1) == [b"hello"]
    admin.delete_topics([name])[name].result(30)


def test_cluster_describes_its_brokers(kafka: KafkaUnderTest, admin: AdminClient) -> None:
    cluster = admin.describe_cluster().result(30)
    inside = {f"{node.host}:{node.port}" for node in cluster.nodes}
    assert inside == set(kafka.bootstrap.split(","))
    assert cluster.controller.id in {node.id for node in cluster.nodes}
    outside_admin = AdminClient({"bootstrap.servers": kafka.bootstrap_outside})
    outside = {f"{node.host}:{node.port}" for node in outside_admin.describe_cluster().result(30).nodes}
    assert outside == set(kafka.bootstrap_outside.split(","))
    assert outside_admin.describe_cluster().result(30).cluster_id == cluster.cluster_id
