"""Fetch: what a client may read, how long it waits, how much it gets, and what a session leaves out."""

from __future__ import annotations

import asyncio
import struct
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raykafka.error_code import ErrorCode
from raykafka.front import fetch_codec
from raykafka.log import LogReader, WouldBlock
from raykafka.log.batch import iter_batches, iter_records
from raykafka.log.compression import LZ4, ZSTD
from raykafka.partition.log_view import LogView
from raykafka.protocol.wire import MalformedError
from tests.lab.dataplane import TOPIC, Dataplane, batch
from tests.lab.fetching import LARGE, SESSIONS, Part, fetch, fetch_one

SERVED = range(4, 18)


def run(directory: Path, test: Callable[[Dataplane], Awaitable[None]], **config: str) -> None:
    async def body() -> None:
        named = {name.replace("_", "."): value for name, value in config.items()}
        async with Dataplane(directory, config=named) as dataplane:
            await test(dataplane)

    asyncio.run(asyncio.wait_for(body(), 60))


def values(partition: Any) -> list[bytes | None]:
    data = bytes(partition.records or b"")
    return [r.value for at, h in iter_batches(data) for r in iter_records(data[at : at + h.size])]


def sizes(partition: Any) -> list[int]:
    data = bytes(partition.records or b"")
    found = [h.size for _, h in iter_batches(data)]
    assert sum(found) == len(data), "a part of a batch was sent"
    return found


async def fill(dataplane: Dataplane, count: int = 5, size: int = 100, partition: int = 0) -> list[int]:
    """Append ``count`` batches of two records; the sizes of the batches."""
    made = [batch(b"%d" % (2 * i), b"x" * size) for i in range(count)]
    for records in made:
        await dataplane.produce(records, partition=partition)
    return [len(records) for records in made]


# what is there


@pytest.mark.parametrize("version", SERVED)
def test_every_version_gets_the_records(version: int, tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        topic_id = await dataplane.create(partitions=2)
        await dataplane.produce(batch(b"a", b"b"))
        await dataplane.produce(batch(b"c"))
        answer = await fetch(dataplane, version, {TOPIC: [(0, 0), (1, 0)]})
        (topic,) = answer.responses
        assert getattr(topic, "topic", TOPIC) == TOPIC
        assert getattr(topic, "topic_id", topic_id) == topic_id
        full, empty = topic.partitions
        assert values(full) == [b"a", b"b", b"c"]
        assert (full.high_watermark, full.last_stable_offset) == (3, 3)
        assert values(empty) == []
        assert (empty.partition_index, empty.high_watermark, empty.error_code.value) == (1, 0, 0)
        assert empty.records == b"" and full.aborted_transactions is None
        assert ("fetch", len(full.records)) in dataplane.charged

    run(tmp_path, test)


@pytest.mark.parametrize("version", SERVED)
def test_a_client_that_is_too_old_for_zstd_is_told_so_and_gets_the_rest(version: int, tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(partitions=2)
        await dataplane.produce(batch(b"a"), partition=0)
        await dataplane.produce(batch(b"b", codec=ZSTD), partition=0)
        await dataplane.produce(batch(b"c", codec=LZ4), partition=1)
        answer = await fetch(dataplane, version, {TOPIC: [(0, 0), (1, 0)]})
        zstd, other = answer.responses[0].partitions
        assert values(other) == [b"c"]
        if version < 10:
            assert zstd.error_code.value == ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
            assert (zstd.records, zstd.high_watermark) == (b"", -1)
            assert values(await fetch_one(dataplane, 0, version, partition_bytes=1)) == [b"a"]
        else:
            assert values(zstd) == [b"a", b"b"]

    run(tmp_path, test)


def test_read_committed_gets_a_list_of_no_aborted_transactions(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.produce(batch(b"a"))
        for version in (4, 11, 17):
            partition = await fetch_one(dataplane, 0, version, committed=True)
            assert values(partition) == [b"a"]
            assert partition.aborted_transactions == ()

    run(tmp_path, test)


def test_an_offset_within_a_batch_gets_the_whole_batch(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        for start in (0, 3, 6):
            await dataplane.produce(batch(*(b"%d" % n for n in range(start, start + 3))))
        for offset in range(9):
            first = offset - offset % 3
            assert values(await fetch_one(dataplane, offset)) == [b"%d" % n for n in range(first, 9)]

    run(tmp_path, test)


def test_offsets_outside_the_log_are_out_of_range_and_its_end_is_empty(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        assert values(await fetch_one(dataplane, 0)) == []
        assert (await fetch_one(dataplane, 1)).error_code.value == ErrorCode.OFFSET_OUT_OF_RANGE
        await fill(dataplane)
        assert values(await fetch_one(dataplane, 10)) == []
        for offset in (11, -1):
            partition = await fetch_one(dataplane, offset)
            assert partition.error_code.value == ErrorCode.OFFSET_OUT_OF_RANGE
            assert (partition.high_watermark, partition.log_start_offset, partition.records) == (-1, -1, b"")

    run(tmp_path, test)


def test_reading_goes_on_over_many_segments(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(segment_bytes="1000000")
        data = b"x" * 300_000
        for number in range(12):
            await dataplane.produce(batch(b"%d" % number, data))
        host = dataplane.partitions.get((TOPIC, 0))
        assert host is not None and host.log.reader is not None
        assert len(list(host.log.directory.glob("*.log"))) > 2
        offset, got = 0, []
        while offset < 24:
            partition = await fetch_one(dataplane, offset)
            found = values(partition)
            assert found
            got += found[::2]
            offset += len(found)
        assert got == [b"%d" % number for number in range(12)]

    run(tmp_path, test)


# how much


def test_max_bytes_of_a_partition_gives_whole_batches_and_at_least_one(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        made = await fill(dataplane)
        for limit in range(0, sum(made) + 50, 37):
            got = sizes(await fetch_one(dataplane, 0, partition_bytes=limit))
            expected = max(1, sum(1 for n in range(1, 6) if sum(made[:n]) <= limit))
            assert got == made[:expected]

    run(tmp_path, test)


def test_max_bytes_of_the_request_are_shared_in_the_order_of_its_partitions(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(partitions=3)
        for partition in range(3):
            made = await fill(dataplane, partition=partition)
        limit = sum(made) + made[0] + 10
        answer = await fetch(dataplane, SESSIONS, {TOPIC: [(2, 0), (0, 0), (1, 0)]}, max_bytes=limit)
        told = [(p.partition_index, len(sizes(p)), p.high_watermark) for p in answer.responses[0].partitions]
        assert told == [(2, 5, 10), (0, 1, 10), (1, 0, 10)]
        # one batch comes however small the limit is, and only one
        answer = await fetch(dataplane, SESSIONS, {TOPIC: [(0, 0), (1, 0)]}, max_bytes=1)
        assert [len(sizes(p)) for p in answer.responses[0].partitions] == [1, 0]

    run(tmp_path, test)


def test_the_brokers_fetch_max_bytes_bounds_every_request(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        made = await fill(dataplane, count=20)
        assert sum(sizes(await fetch_one(dataplane, 0))) <= 2048 < sum(made)

    run(tmp_path, test, fetch_max_bytes="2048")


# how long


def test_a_fetch_waits_for_records_and_returns_with_the_first(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(partitions=2)
        for warm in (True, False):  # nothing was ever written at first
            waiting = asyncio.ensure_future(
                fetch(dataplane, SESSIONS, {TOPIC: [(0, int(not warm)), (1, 0)]}, wait_ms=30_000)
            )
            done, _ = await asyncio.wait([waiting], timeout=0.05)
            assert not done
            await dataplane.produce(batch(b"a"))
            assert values((await waiting).responses[0].partitions[0]) == [b"a"]

    run(tmp_path, test)


def test_a_fetch_waits_for_its_least_bytes_no_longer_than_it_says(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        (size,) = await fill(dataplane, count=1)
        waiting = asyncio.ensure_future(fetch_one(dataplane, 0, wait_ms=30_000, min_bytes=2 * size))
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        assert not done
        await fill(dataplane, count=1)
        assert len(sizes(await waiting)) == 2
        # it gets what there is when its time is over
        assert len(sizes(await fetch_one(dataplane, 0, wait_ms=50, min_bytes=LARGE))) == 2

    run(tmp_path, test)


def test_errors_are_told_at_once(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(partitions=2)
        await dataplane.create("elsewhere", leader=1)
        for topics in ({"elsewhere": [(0, 0)], TOPIC: [(0, 0)]}, {TOPIC: [(0, 0), (1, 99)]}, {"nowhere": [(0, 0)]}):
            answer = await fetch(dataplane, SESSIONS, topics, wait_ms=3_600_000)
            assert any(p.error_code.value for topic in answer.responses for p in topic.partitions)

    run(tmp_path, test)


def test_a_waiting_fetch_learns_that_the_leader_moved(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.produce(batch(b"a"))
        waiting = asyncio.ensure_future(fetch_one(dataplane, 1, 16, wait_ms=3_600_000))
        await asyncio.sleep(0)
        await dataplane.lead(leader=1)
        partition = await waiting
        assert partition.error_code.value == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert (partition.current_leader.leader_id, partition.current_leader.leader_epoch) == (1, 1)

    run(tmp_path, test)


def test_a_waiting_fetch_leaves_nothing_behind_when_its_client_goes(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        waiting = asyncio.ensure_future(fetch_one(dataplane, 0, wait_ms=3_600_000))
        await asyncio.sleep(0.05)
        host = dataplane.partitions.get((TOPIC, 0))
        assert host is not None and len(host.log._watchers) == 1
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not host.log._watchers

    run(tmp_path, test)


# who may


def test_leader_epochs_fence(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.produce(batch(b"a"))
        await dataplane.lead()
        expected = {0: ErrorCode.FENCED_LEADER_EPOCH, 1: ErrorCode.NONE, 2: ErrorCode.UNKNOWN_LEADER_EPOCH}
        for epoch, error in expected.items():
            for version in (9, 12, 17):
                partition = await fetch_one(dataplane, 0, version, leader_epoch=epoch)
                assert partition.error_code.value == error
                assert values(partition) == ([b"a"] if not error else [])

    run(tmp_path, test)


def test_an_offset_that_a_new_leader_can_not_know_yet_is_not_out_of_range(tmp_path: Path) -> None:
    """Rule 9: what it knows of its log is from the time when it followed."""

    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.produce(batch(b"a"))
        heard = await dataplane.lead_unheard()
        found = await fetch_one(dataplane, 2)
        assert (found.error_code.value, found.records or b"") == (ErrorCode.NONE, b"")
        heard.set()
        while (found := await fetch_one(dataplane, 2)).error_code.value == ErrorCode.NONE:
            await asyncio.sleep(0.005)
        assert found.error_code.value == ErrorCode.OFFSET_OUT_OF_RANGE

    run(tmp_path, test)


def test_strangers_get_the_code_that_says_why(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.create("denied")
        await dataplane.create("elsewhere", leader=1)
        dataplane.denied.add("denied")
        topics = {TOPIC: [(5, 0)], "nowhere": [(0, 0)], "denied": [(0, 0)], "elsewhere": [(0, 0)]}
        answer = await fetch(dataplane, 12, topics)
        told = {topic.topic: topic.partitions[0].error_code.value for topic in answer.responses}
        assert told == {
            TOPIC: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            "nowhere": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            "denied": ErrorCode.TOPIC_AUTHORIZATION_FAILED,
            "elsewhere": ErrorCode.NOT_LEADER_OR_FOLLOWER,
        }
        answer = await fetch(dataplane, 13, {TOPIC: [(0, 0)]}, topic_id=uuid.uuid4())
        assert answer.responses[0].partitions[0].error_code.value == ErrorCode.UNKNOWN_TOPIC_ID

    run(tmp_path, test)


# rule 21 and 22


def test_cold_pages_are_read_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every read that may not wait is refused, as if nothing of the log were in memory."""
    read, fetch_bytes = LogReader.read, LogReader.fetch_bytes
    refused: list[str] = []

    def cold(real: Any, name: str) -> Any:
        def call(self: LogReader, *args: Any, nowait: bool = False, **more: Any) -> Any:
            if nowait:
                refused.append(name)
                raise WouldBlock("planted")
            return real(self, *args, **more)

        return call

    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.produce(batch(b"a"))
        monkeypatch.setattr(LogReader, "read", cold(read, "read"))
        monkeypatch.setattr(LogReader, "fetch_bytes", cold(fetch_bytes, "fetch_bytes"))
        assert values(await fetch_one(dataplane, 0)) == [b"a"]
        assert refused == ["read", "fetch_bytes"]

    run(tmp_path, test)


def test_what_comes_while_another_partition_is_read_from_the_disk_ends_the_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locating, go_on, locate = asyncio.Event(), asyncio.Event(), LogView.locate

    async def cold(self: LogView, *args: Any, **more: Any) -> Any:
        if self.directory.name.endswith("-1") and not locating.is_set():
            locating.set()
            await go_on.wait()
        return await locate(self, *args, **more)

    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(partitions=2)
        await dataplane.produce(batch(b"old"), partition=1)
        monkeypatch.setattr(LogView, "locate", cold)
        waiting = asyncio.ensure_future(
            fetch(dataplane, SESSIONS, {TOPIC: [(0, 0), (1, 0)]}, wait_ms=3_600_000, min_bytes=100)
        )
        await locating.wait()
        await dataplane.produce(batch(b"n" * 200), partition=0)
        go_on.set()
        new, old = (await waiting).responses[0].partitions
        assert (values(new), values(old)) == ([b"n" * 200], [b"old"])

    run(tmp_path, test)


def test_what_was_truncated_while_it_was_read_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_bytes = LogReader.fetch_bytes

    def cut_meanwhile(self: LogReader, *args: Any, **more: Any) -> Any:
        self.update(None, self.truncations + 1)
        return fetch_bytes(self, *args, **more)

    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.produce(batch(b"a"))
        monkeypatch.setattr(LogReader, "fetch_bytes", cut_meanwhile)
        assert (await fetch_one(dataplane, 0)).records == b""

    run(tmp_path, test)


# sessions


def test_a_session_leaves_out_what_did_not_change(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        for version in (7, 12, 13, 17):
            topic = f"t{version}"
            await dataplane.create(topic, partitions=3)

            def named(answer: Any) -> list[int]:
                return [p.partition_index for t in answer.responses for p in t.partitions]

            first = await fetch(dataplane, version, {topic: [(0, 0), (1, 0), (2, 0)]}, session=(0, 0))
            assert first.session_id > 0 and named(first) == [0, 1, 2]
            session = first.session_id
            assert named(await fetch(dataplane, version, {}, session=(session, 1))) == []
            await dataplane.produce(batch(b"a"), topic, 1)
            answer = await fetch(dataplane, version, {}, session=(session, 2))
            assert named(answer) == [1] and values(answer.responses[0].partitions[0]) == [b"a"]
            # the same again until the client moves on
            assert named(await fetch(dataplane, version, {}, session=(session, 3))) == [1]
            assert named(await fetch(dataplane, version, {topic: [(1, 1)]}, session=(session, 4))) == []
            await dataplane.produce(batch(b"b"), topic, 1)
            await dataplane.produce(batch(b"c"), topic, 2)
            answer = await fetch(dataplane, version, {}, session=(session, 5), forget={topic: [2]})
            assert named(answer) == [1]

    run(tmp_path, test)


def test_a_session_tells_a_new_high_watermark_without_records(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(partitions=2)
        await fill(dataplane)
        first = await fetch(dataplane, SESSIONS, {TOPIC: [(0, 10), (1, 0)]}, session=(0, 0), max_bytes=1)
        await fill(dataplane, count=1, partition=1)
        await fill(dataplane, count=1)
        answer = await fetch(dataplane, SESSIONS, {}, session=(first.session_id, 1), max_bytes=1)
        told = [(p.partition_index, p.high_watermark, len(sizes(p))) for p in answer.responses[0].partitions]
        assert told == [(0, 12, 1), (1, 2, 0)]

    run(tmp_path, test)


def test_partitions_of_a_session_take_turns(tmp_path: Path) -> None:
    """With room for one batch only, every partition with records is served in its turn."""

    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(partitions=3)
        for partition in range(3):
            await fill(dataplane, partition=partition)
        session, offsets, served = 0, dict.fromkeys(range(3), 0), list[int]()
        for epoch in range(9):
            asked = {TOPIC: list(offsets.items())} if epoch == 0 else {TOPIC: [(p, offsets[p]) for p in served[-1:]]}
            answer = await fetch(dataplane, SESSIONS, asked, session=(session, epoch), max_bytes=1)
            session = answer.session_id
            with_records = [p for t in answer.responses for p in t.partitions if p.records]
            (partition,) = with_records
            served.append(partition.partition_index)
            offsets[partition.partition_index] += 2
        assert served == [0, 1, 2] * 3

    run(tmp_path, test)


def test_errors_of_a_session_are_told_each_time_and_forgotten_when_they_pass(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        first = await fetch(dataplane, SESSIONS, {TOPIC: [(0, 7)]}, session=(0, 0))
        session = first.session_id
        for epoch in (1, 2):
            answer = await fetch(dataplane, SESSIONS, {}, session=(session, epoch))
            assert answer.responses[0].partitions[0].error_code.value == ErrorCode.OFFSET_OUT_OF_RANGE
        answer = await fetch(dataplane, SESSIONS, {TOPIC: [(0, 0)]}, session=(session, 3))
        assert answer.responses[0].partitions[0].error_code.value == ErrorCode.NONE
        assert not (await fetch(dataplane, SESSIONS, {}, session=(session, 4))).responses

    run(tmp_path, test)


def test_sessions_refuse_what_does_not_fit(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        session = (await fetch(dataplane, 12, {TOPIC: [(0, 0)]}, session=(0, 0))).session_id

        async def error(version: int, named: Part) -> int:
            answer = await fetch(dataplane, version, {}, session=named)
            assert answer.responses == () and (answer.session_id == 0) == bool(answer.error_code.value)
            return int(answer.error_code.value)

        assert await error(12, (session + 1, 1)) == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        assert await error(12, (session, 2)) == ErrorCode.INVALID_FETCH_SESSION_EPOCH
        assert await error(13, (session, 1)) == ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
        assert await error(12, (session, 1)) == ErrorCode.NONE
        # a final epoch ends it
        assert (await fetch(dataplane, 12, {TOPIC: [(0, 0)]}, session=(session, -1))).session_id == 0
        assert await error(12, (session, 2)) == ErrorCode.FETCH_SESSION_ID_NOT_FOUND

    run(tmp_path, test)


def test_a_topic_made_again_is_another_one_to_a_session(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.produce(batch(b"old"))
        first = await fetch(dataplane, 13, {TOPIC: [(0, 0)]}, session=(0, 0))
        await dataplane.delete()
        await dataplane.create()
        await dataplane.produce(batch(b"new"))
        answer = await fetch(dataplane, 13, {}, session=(first.session_id, 1))
        assert answer.responses[0].partitions[0].error_code.value == ErrorCode.UNKNOWN_TOPIC_ID
        assert values(await fetch_one(dataplane, 0, 13)) == [b"new"]

    run(tmp_path, test)


# bytes


@given(st.sampled_from([4, 6, 7, 11, 12, 13, 17]), st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_a_request_or_malformed(version: int, body: bytes) -> None:
    head = struct.pack(">iiii", -1, 500, 1, LARGE) if version < 15 else struct.pack(">iii", 500, 1, LARGE)
    for data in (body, head + b"\0" + body):
        try:
            fetch_codec.parse(version, memoryview(data))
        except MalformedError:
            continue
