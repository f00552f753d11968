"""DeleteRecords: where a log starts then, for every client at once, and who is refused."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from kio.index import load_payload_module
from kio.static.constants import EntityType

from raykafka.error_code import ErrorCode
from raykafka.types import OFFSETS_TOPIC
from tests.lab.dataplane import TOPIC, Dataplane, batch
from tests.lab.fetching import fetch_one

DELETE_RECORDS, LIST_OFFSETS = 21, 2
SERVED = range(3)


def run(directory: Path, test: Callable[[Dataplane], Awaitable[None]]) -> None:
    async def body() -> None:
        async with Dataplane(directory) as dataplane:
            await test(dataplane)

    asyncio.run(asyncio.wait_for(body(), 60))


async def delete(
    dataplane: Dataplane, offset: int, version: int = 2, *, topic: str = TOPIC, partition: int = 0
) -> tuple[ErrorCode, int]:
    """(error, low watermark)"""
    m = load_payload_module(DELETE_RECORDS, version, EntityType.request)
    asked = m.DeleteRecordsPartition(partition_index=partition, offset=offset)
    request = m.DeleteRecordsRequest(
        topics=(m.DeleteRecordsTopic(name=topic, partitions=(asked,)),), timeout=datetime.timedelta(seconds=10)
    )
    answer = (await dataplane.ask_entity(DELETE_RECORDS, version, request)).topics[0].partitions[0]
    return ErrorCode(answer.error_code.value), answer.low_watermark


async def earliest(dataplane: Dataplane) -> int:
    m = load_payload_module(LIST_OFFSETS, 1, EntityType.request)
    asked = m.ListOffsetsPartition(partition_index=0, timestamp=-2)
    request = m.ListOffsetsRequest(replica_id=-1, topics=(m.ListOffsetsTopic(name=TOPIC, partitions=(asked,)),))
    found: int = (await dataplane.ask_entity(LIST_OFFSETS, 1, request)).topics[0].partitions[0].offset
    return found


@pytest.mark.parametrize("version", SERVED)
def test_the_log_starts_where_it_was_told_as_soon_as_that_is_answered(version: int, tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        for number in range(5):
            await dataplane.produce(batch(b"%d" % number))
        for offset, start in ((2, 2), (1, 2), (4, 4), (0, 4), (-1, 5), (5, 5)):
            assert await delete(dataplane, offset, version) == (ErrorCode.NONE, start)
            assert await earliest(dataplane) == start
        assert (await fetch_one(dataplane, 4)).error_code.value == ErrorCode.OFFSET_OUT_OF_RANGE
        assert (await dataplane.produce(batch(b"next"))).base_offset == 5

    run(tmp_path, test)


@pytest.mark.parametrize("offset", [6, 2**62, -2, -(2**62)])
def test_an_offset_that_is_not_committed_is_out_of_range(offset: int, tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.produce(batch(b"a", b"b", b"c", b"d", b"e"))
        assert await delete(dataplane, offset) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)
        assert await earliest(dataplane) == 0

    run(tmp_path, test)


def test_who_may_not_what_is_not_here_and_what_is_kept(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.create("kept", cleanup_policy="compact")
        await dataplane.create(OFFSETS_TOPIC)
        assert await delete(dataplane, 0, topic="unknown") == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)
        assert await delete(dataplane, 0, partition=7) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)
        assert await delete(dataplane, 0, topic="kept") == (ErrorCode.POLICY_VIOLATION, -1)
        assert await delete(dataplane, 0, topic=OFFSETS_TOPIC) == (ErrorCode.INVALID_TOPIC_EXCEPTION, -1)
        dataplane.denied.add(TOPIC)
        assert await delete(dataplane, 0) == (ErrorCode.TOPIC_AUTHORIZATION_FAILED, -1)

    run(tmp_path, test)
