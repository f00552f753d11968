"""aiokafka: a client that shares no code with librdkafka or Kafka's Java client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.structs import OffsetAndMetadata, RecordMetadata

from tests.lab.clusters.under_test import KafkaUnderTest, unique

MakeTopic = Callable[..., str]
DEADLINE_S = 60.0


async def send_all(bootstrap: str, topic: str, values: list[bytes], **settings: object) -> list[RecordMetadata]:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, **settings) as producer:
        return [await future for future in [await producer.send(topic, value) for value in values]]


async def take(consumer: AIOKafkaConsumer, count: int) -> list[bytes]:
    taken: list[bytes] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(taken) < count:
            taken.append((await consumer.getone()).value)
    return taken


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_codecs_round_trip(kafka: KafkaUnderTest, make_topic: MakeTopic, codec: str | None) -> None:
    topic = make_topic()
    values = [b"squeeze me " * 50 + b"%d" % i for i in range(500)]

    async def scenario() -> list[bytes]:
        sent = await send_all(kafka.bootstrap, topic, values, compression_type=codec, linger_ms=20)
        assert [metadata.offset for metadata in sent] == list(range(len(values)))
        async with AIOKafkaConsumer(
            topic, bootstrap_servers=kafka.bootstrap_outside, auto_offset_reset="earliest"
        ) as consumer:
            return await take(consumer, len(values))

    assert asyncio.run(scenario()) == values


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_records_arrive_in_order_for_each_acks(kafka: KafkaUnderTest, make_topic: MakeTopic, acks: int | str) -> None:
    topic = make_topic()
    values = [b"%06d" % i for i in range(1000)]

    async def scenario() -> list[bytes]:
        await send_all(kafka.bootstrap, topic, values, acks=acks)
        async with AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest") as consumer:
            return await take(consumer, len(values))

    assert asyncio.run(scenario()) == values


def test_idempotent_producer_and_a_too_big_record(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic = make_topic(max_message_bytes=10_000)

    async def scenario() -> None:
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=True) as producer:
            first = await producer.send_and_wait(topic, b"fits")
        with pytest.raises(MessageSizeTooLargeError):
            await send_all(kafka.bootstrap, topic, [bytes(20_000)])
        (second,) = await send_all(kafka.bootstrap, topic, [b"fits too"], enable_idempotence=True)
        assert (first.offset, second.offset) == (0, 1)

    asyncio.run(scenario())


def test_offsets_by_time_and_seeking(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic = make_topic()
    partition = TopicPartition(topic, 0)

    async def scenario() -> None:
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            for second in range(5):
                when = 1_600_000_000_000 + second * 1000
                await producer.send_and_wait(topic, b"%d" % second, timestamp_ms=when)
        async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap) as consumer:
            consumer.assign([partition])
            assert await consumer.beginning_offsets([partition]) == {partition: 0}
            assert await consumer.end_offsets([partition]) == {partition: 5}
            found = await consumer.offsets_for_times({partition: 1_600_000_001_500})
            assert (found[partition].offset, found[partition].timestamp) == (2, 1_600_000_002_000)
            consumer.seek(partition, 3)
            assert await take(consumer, 2) == [b"3", b"4"]

    asyncio.run(scenario())


def test_group_members_share_partitions_and_go_on_from_commits(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic, group = make_topic(partitions=4), unique("group")
    settings = {
        "group_id": group,
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "heartbeat_interval_ms": 300,
        "session_timeout_ms": 6000,
        "metadata_max_age_ms": 1000,
    }

    async def owns(consumer: AIOKafkaConsumer, count: int) -> set[TopicPartition]:
        deadline = time.monotonic() + DEADLINE_S
        while len(consumer.assignment()) != count:
            assert time.monotonic() < deadline, f"still owns {consumer.assignment()}"
            await consumer.getmany(timeout_ms=50)
        return set(consumer.assignment())

    async def scenario() -> None:
        first = AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, **settings)
        second = AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap_outside, **settings)
        await first.start()
        try:
            assert len(await owns(first, 4)) == 4
            await second.start()
            halves = await asyncio.gather(owns(first, 2), owns(second, 2))
            assert len(halves[0] | halves[1]) == 4
            await second.stop()
            await owns(first, 4)
            await send_all(kafka.bootstrap, topic, [b"%d" % i for i in range(100)])
            assert sorted(await take(first, 100), key=int) == [b"%d" % i for i in range(100)]
            ends = await first.end_offsets(list(first.assignment()))
            await first.commit({p: OffsetAndMetadata(end, "noted") for p, end in ends.items()})
        finally:
            await first.stop()
        await send_all(kafka.bootstrap, topic, [b"more"])
        async with AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, **settings) as third:
            assert await take(third, 1) == [b"more"]
            assert {p: await third.committed(p) for p in ends} == ends

    asyncio.run(scenario())
