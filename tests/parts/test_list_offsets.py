"""ListOffsets and OffsetForLeaderEpoch: offsets by time, by name and by leader epoch."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from kio.index import load_payload_module
from kio.static.constants import EntityType

from raykafka.error_code import ErrorCode
from raykafka.protocol.codec import build
from tests.lab.dataplane import TOPIC, Dataplane, batch

LIST_OFFSETS = 2
OFFSET_FOR_LEADER_EPOCH = 23
LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED = -1, -2, -3, -4, -5
SERVED = range(1, 10)


def run(directory: Path, test: Callable[[Dataplane], Awaitable[None]]) -> None:
    async def body() -> None:
        async with Dataplane(directory) as dataplane:
            await test(dataplane)

    asyncio.run(asyncio.wait_for(body(), 60))


async def find(
    dataplane: Dataplane,
    timestamp: int,
    version: int = 9,
    *,
    topic: str = TOPIC,
    epoch: int = -1,
    committed: bool = False,
) -> tuple[int, int, int, int]:
    """(error, timestamp, offset, leader epoch) for partition 0."""
    m = load_payload_module(LIST_OFFSETS, version, EntityType.request)
    asked = build(m.ListOffsetsPartition, partition_index=0, timestamp=timestamp, current_leader_epoch=epoch)
    request = build(
        m.ListOffsetsRequest,
        replica_id=-1,
        isolation_level=int(committed),
        topics=(m.ListOffsetsTopic(name=topic, partitions=(asked,)),),
    )
    answer = (await dataplane.ask_entity(LIST_OFFSETS, version, request)).topics[0].partitions[0]
    return int(answer.error_code.value), answer.timestamp, answer.offset, getattr(answer, "leader_epoch", -1)


@pytest.mark.parametrize("version", SERVED)
@pytest.mark.parametrize("committed", [False, True])
def test_earliest_and_latest(version: int, committed: bool, tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        epoch = 0 if version >= 4 else -1
        await dataplane.create()
        assert await find(dataplane, EARLIEST, version, committed=committed) == (0, -1, 0, epoch)
        assert await find(dataplane, LATEST, version, committed=committed) == (0, -1, 0, epoch)
        await dataplane.produce(batch(b"a", b"b"))
        assert await find(dataplane, EARLIEST, version, committed=committed) == (0, -1, 0, epoch)
        assert await find(dataplane, LATEST, version, committed=committed) == (0, -1, 2, epoch)

    run(tmp_path, test)


@pytest.mark.parametrize("codec", range(5))
def test_by_timestamp_finds_the_first_record_that_is_as_late(codec: int, tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        assert await find(dataplane, 0) == (0, -1, -1, -1)
        times = []
        for start in (1000, 5000, 3000, 9000):  # producers' clocks go back at times
            await dataplane.produce(batch(b"a", b"b", b"c", timestamp=start, codec=codec))
            times += [start, start + 1, start + 2]
        for asked in range(0, 10_000, 499):
            expected = next(((0, t, offset, 0) for offset, t in enumerate(times) if t >= asked), (0, -1, -1, -1))
            assert await find(dataplane, asked) == expected
        for offset, time in enumerate(times):
            first = next(o for o, t in enumerate(times) if t >= time)
            assert await find(dataplane, time) == (0, times[first], first, 0)
            assert offset >= first

    run(tmp_path, test)


def test_the_largest_timestamp_is_found_with_its_first_offset(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        assert await find(dataplane, MAX_TIMESTAMP) == (0, -1, -1, -1)
        await dataplane.produce(batch(b"a", b"b", timestamp=5000))
        await dataplane.produce(batch(b"c", b"d", timestamp=9000))
        await dataplane.produce(batch(b"e", timestamp=9001))
        await dataplane.produce(batch(b"f", timestamp=100))
        assert await find(dataplane, MAX_TIMESTAMP) == (0, 9001, 3, 0)

    run(tmp_path, test)


def test_special_timestamps_need_their_versions(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.produce(batch(b"a", timestamp=77))
        found = {MAX_TIMESTAMP: (0, 77, 0, 0), EARLIEST_LOCAL: (0, -1, 0, 0), LATEST_TIERED: (0, -1, -1, -1)}
        for timestamp, since in ((MAX_TIMESTAMP, 7), (EARLIEST_LOCAL, 8), (LATEST_TIERED, 9)):
            assert (await find(dataplane, timestamp, since - 1))[0] == ErrorCode.UNSUPPORTED_VERSION
            assert await find(dataplane, timestamp, since) == found[timestamp]
        assert (await find(dataplane, -6))[0] == ErrorCode.UNSUPPORTED_VERSION

    run(tmp_path, test)


def test_a_leader_does_not_tell_the_latest_offset_before_it_knows_it(tmp_path: Path) -> None:
    """Rule 9: its high watermark is below the start of its epoch."""

    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.produce(batch(b"a", b"b", timestamp=1000))
        host = dataplane.partitions.get((TOPIC, 0))
        assert host is not None and host.log.view is not None
        known = host.log.view
        host.log.view = dataclasses.replace(known, epoch_start_offset=5)
        assert (await find(dataplane, LATEST))[0] == ErrorCode.OFFSET_NOT_AVAILABLE
        assert (await find(dataplane, LATEST, 4))[0] == ErrorCode.LEADER_NOT_AVAILABLE
        assert (await find(dataplane, 2000))[0] == ErrorCode.OFFSET_NOT_AVAILABLE
        assert await find(dataplane, 1001) == (0, 1001, 1, 0)
        assert await find(dataplane, EARLIEST) == (0, -1, 0, 0)
        host.log.view = dataclasses.replace(known, leader_epoch=-1)
        assert (await find(dataplane, LATEST))[0] == ErrorCode.OFFSET_NOT_AVAILABLE
        host.log.view = known
        assert await find(dataplane, LATEST) == (0, -1, 2, 0)

    run(tmp_path, test)


def test_strangers_get_the_code_that_says_why(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.create("elsewhere", leader=1)
        await dataplane.create("denied")
        dataplane.denied.add("denied")
        expected = {
            "nowhere": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            "elsewhere": ErrorCode.NOT_LEADER_OR_FOLLOWER,
            "denied": ErrorCode.TOPIC_AUTHORIZATION_FAILED,
        }
        for topic, error in expected.items():
            assert await find(dataplane, LATEST, topic=topic) == (error, -1, -1, -1)
            assert (await end_of(dataplane, 0, topic=topic))[0] == error
        for epoch, error in ((0, ErrorCode.NONE), (1, ErrorCode.UNKNOWN_LEADER_EPOCH)):
            assert (await find(dataplane, LATEST, epoch=epoch))[0] == error
            assert (await end_of(dataplane, 0, current=epoch))[0] == error

    run(tmp_path, test)


async def end_of(
    dataplane: Dataplane, epoch: int, version: int = 4, *, topic: str = TOPIC, current: int = -1
) -> tuple[int, int, int]:
    """(error, epoch, end offset) for partition 0."""
    m = load_payload_module(OFFSET_FOR_LEADER_EPOCH, version, EntityType.request)
    asked = m.OffsetForLeaderPartition(partition=0, leader_epoch=epoch, current_leader_epoch=current)
    request: Any = build(
        m.OffsetForLeaderEpochRequest,
        replica_id=-1,
        topics=(m.OffsetForLeaderTopic(topic=topic, partitions=(asked,)),),
    )
    answer = (await dataplane.ask_entity(OFFSET_FOR_LEADER_EPOCH, version, request)).topics[0].partitions[0]
    return int(answer.error_code.value), answer.leader_epoch, answer.end_offset


def test_the_end_of_each_leader_epoch(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        assert await end_of(dataplane, 0) == (0, 0, 0)
        assert await end_of(dataplane, 1) == (0, -1, -1)
        await dataplane.produce(batch(b"a", b"b"))
        await dataplane.lead()
        await dataplane.lead()
        await dataplane.produce(batch(b"c"))
        for version in (2, 3, 4):
            assert await end_of(dataplane, 0, version) == (0, 0, 2)
            assert await end_of(dataplane, 1, version) == (0, 0, 2)
            assert await end_of(dataplane, 2, version) == (0, 2, 3)
            assert await end_of(dataplane, 3, version) == (0, -1, -1)
        assert await find(dataplane, EARLIEST) == (0, -1, 0, 0)

    run(tmp_path, test)


def test_a_leader_does_not_tell_where_epochs_end_before_its_replica_leads(tmp_path: Path) -> None:
    """A consumer that heard of an end below its position would go back, or to where its reset policy says."""

    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.produce(batch(b"a"))
        heard = await dataplane.lead_unheard()
        for epoch in (0, 1, 2):
            assert (await end_of(dataplane, epoch))[0] == ErrorCode.NOT_LEADER_OR_FOLLOWER
        heard.set()
        while (ended := await end_of(dataplane, 0))[0]:
            await asyncio.sleep(0.005)
        assert ended == (0, 0, 1)

    run(tmp_path, test)
