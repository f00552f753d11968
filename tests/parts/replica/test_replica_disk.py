"""Replicas whose disk is slow, full, or holds what it should not: what they wait for, and what they go on without."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log import Log
from raykafka.log.epochs import LeaderEpochs
from raykafka.replica import stream_frames as frames
from tests.lab.log_parts import files_limited_to
from tests.lab.loop_waiting import until
from tests.parts.replica.opened import (
    BROKER,
    DEADLINE_S,
    FOLLOWER,
    OpenReplica,
    batch,
    followed,
    led,
    state,
    stored,
    with_replica,
)
from tests.parts.replica.streams import FollowersBroker, PlayedLeader, PlayedLeaders


@contextmanager
def slow(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, waits: threading.Event) -> Iterator[None]:
    """Whoever calls ``method``, which is for threads, waits there until this ends; ``waits`` is set meanwhile."""
    goes_on = threading.Event()
    real = getattr(owner, method)

    def slowly(*args: object) -> object:
        waits.set()
        assert threading.current_thread() is not threading.main_thread(), "it would hold up the event loop"
        goes_on.wait(DEADLINE_S)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, slowly)
        try:
            yield
        finally:
            goes_on.set()


def test_nothing_is_done_in_a_new_epoch_before_it_is_on_disk_and_the_event_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @with_replica
    async def test(leader: OpenReplica) -> None:
        broker = FollowersBroker()
        holders = await broker.start()
        await leader.open(led(isr=(BROKER,)))
        await leader.appended(batch(b"zero"))
        waits = threading.Event()
        with slow(monkeypatch, LeaderEpochs, "replace", waits):
            told = asyncio.ensure_future(leader.tell(led(1, isr=(BROKER,), version=1), holders=holders))
            await until(waits.is_set)
            appended = leader.append(batch(b"one"))
            await asyncio.sleep(0.05)
            assert not told.done() and not appended.done() and not broker.taken
        assert await told
        assert (await appended).base_offset == 1
        assert [(epoch, value) for _, epoch, value in stored(leader.directory)] == [(0, b"zero"), (1, b"one")]
        assert (await broker.stream()).hello.stream.leader_epoch == 1
        broker.close()

    test(tmp_path)


def test_a_follower_answers_a_new_leader_once_its_cut_is_on_disk_and_the_event_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @with_replica
    async def test(follower: OpenReplica) -> None:
        await follower.open(followed())
        leader = await PlayedLeader.connect(follower.actor, 0)
        leader.hello([(0, 0)], 0)
        assert await leader.answer() == (0, -1)
        leader.data(0, batch(b"kept", base_offset=0, leader_epoch=0))
        leader.data(1, batch(b"cut", base_offset=1, leader_epoch=0))
        while await leader.ack() < 2:
            pass
        await follower.tell(followed(1, leader=3))
        waits = threading.Event()
        with slow(monkeypatch, LeaderEpochs, "replace", waits):
            successor = await PlayedLeader.connect(follower.actor, 1, leader=3)
            successor.hello([(0, 0), (1, 1)], 1, 1)
            await until(waits.is_set)
            await asyncio.sleep(0.05)
            assert not successor.has_heard
        assert await successor.answer() == (1, 0)
        assert [value for _, _, value in stored(follower.directory)] == [b"kept"]
        assert (follower.directory / "leader-epoch-checkpoint").read_text() == "0\n2\n0 0\n1 1\n"

    test(tmp_path)


@with_replica
async def test_a_follower_stops_rather_than_cut_what_was_committed(follower: OpenReplica) -> None:
    await follower.open(followed())
    leader = await PlayedLeader.connect(follower.actor, 0)
    leader.hello([(0, 0)], 0)
    await leader.answer()
    leader.data(0, batch(b"a", b"b", base_offset=0, leader_epoch=0))
    assert await leader.ack() == 2
    leader.data(2)
    await follower.view_where(lambda view: view.high_watermark == 2)
    await follower.tell(followed(1, leader=3))
    other = await PlayedLeader.connect(follower.actor, 1, leader=3)
    other.hello([(0, 0), (1, 1)], 1)
    assert (await follower.called("failed"))["diverged"] is True
    await other.ended()
    assert not follower.shows
    assert (await follower.close()).note is None
    assert [value for _, _, value in stored(follower.directory)] == [b"a", b"b"]


@with_replica
async def test_a_follower_on_a_full_disk_says_so_and_takes_the_next_stream_when_there_is_room(
    follower: OpenReplica,
) -> None:
    await follower.open(followed())
    leaders = await PlayedLeaders.connect(follower.actor)
    leader = leaders.leader(0)
    leader.hello([(0, 0)], 0)
    await leader.answer()
    records = batch(b"x" * 100_000, base_offset=0, leader_epoch=0)
    with files_limited_to(50_000):
        leader.data(0, records)
        assert await leader.ended() == frames.REFUSED
        assert (follower.directory / "00000000000000000000.log").stat().st_size == 0, "a part of a batch was left"
    again = leaders.leader(0, number=2)
    again.hello([(0, 0)], 1)
    assert await again.answer() == (0, -1)
    again.data(0, records)
    assert await again.ack() == 1
    assert not follower.calls


@with_replica
async def test_a_follower_that_can_not_write_costs_it_the_isr_at_once_until_there_is_room(leader: OpenReplica) -> None:
    broker = FollowersBroker()
    holders = await broker.start()
    await leader.open(led(), holders=holders, config={"replica.lag.time.max.ms": "600000"})
    follower = await broker.stream()
    follower.answer(0, -1)
    appended = leader.append(batch(b"a"))
    await follower.data()
    follower.end(frames.REFUSED)
    proposal = await leader.called("propose", lambda asked: asked["isr"] == (BROKER,))
    await leader.tell(led(isr=(BROKER,), version=proposal["version"] + 1), holders=holders)
    assert (await appended).error is ErrorCode.NONE
    again = await broker.stream()
    again.answer(0, -1)
    await again.data()
    again.ack(1)
    await leader.called("propose", lambda asked: asked["isr"] == (BROKER, FOLLOWER))
    broker.close()


@with_replica
async def test_a_leader_on_a_full_disk_leaves_the_partition_to_an_in_sync_follower(leader: OpenReplica) -> None:
    broker = FollowersBroker()
    await leader.open(led(), holders=await broker.start())
    follower = await broker.stream()
    follower.answer(0, -1)
    waiting = leader.append(batch(b"fits"))
    assert (await follower.data())[2]
    with files_limited_to(50_000):
        assert (await leader.append(batch(b"x" * 100_000))).error is ErrorCode.KAFKA_STORAGE_ERROR
        assert (await leader.called("failed"))["diverged"] is False
    assert (await waiting).error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert not leader.shows and not leader.leads
    await follower.ended()
    assert (await leader.close()).note is None
    assert [value for _, _, value in stored(leader.directory)] == [b"fits"]
    broker.close()


def test_a_log_that_can_not_be_cut_back_ends_its_leadership(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 2: what a write left half done, and can't be taken away, must not be taken for a batch of this epoch."""

    def torn(fd: int, data: memoryview, position: int) -> int:
        pwrite(fd, data[: len(data) // 2], position)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(fd: int, length: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    pwrite = os.pwrite

    @with_replica
    async def test(leader: OpenReplica) -> None:
        await leader.open()
        await leader.appended(batch(b"a"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", torn)
            patch.setattr(os, "ftruncate", refuse)
            assert (await leader.append(batch(b"torn"))).error is ErrorCode.KAFKA_STORAGE_ERROR
        assert (await leader.called("failed"))["diverged"] is False
        assert (await leader.appended(batch(b"in the same epoch"))).error is ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert not leader.shows
        with pytest.raises(KafkaError, match=r"cutting .* back"):
            await leader.close()
        again = leader.actor.on()
        await again.open(state(1))
        assert (await again.appended(batch(b"b"))).base_offset == 1
        assert stored(again.directory) == [(0, 0, b"a"), (1, 1, b"b")]

    test(tmp_path)


@with_replica
async def test_a_leader_on_a_full_disk_goes_on_while_nobody_else_could_lead(leader: OpenReplica) -> None:
    broker = FollowersBroker()
    await leader.open(led(isr=(BROKER,)), holders=await broker.start())
    (await broker.stream()).answer(0, -1)
    with files_limited_to(50_000):
        assert (await leader.append(batch(b"x" * 100_000), acks=1)).error is ErrorCode.KAFKA_STORAGE_ERROR
    assert (await leader.appended(batch(b"x" * 100_000), acks=1)).base_offset == 0
    broker.close()


@with_replica
async def test_batches_in_flight_behind_one_that_a_full_disk_refused_get_its_answer(replica: OpenReplica) -> None:
    """For an order that it cannot explain, librdkafka begins a new producer epoch, and writes again what is there."""

    def numbered(sequence: int) -> bytearray:
        return batch(b"x" * 100_000, producer_id=7, producer_epoch=0, base_sequence=sequence)

    await replica.open()
    await replica.appended(numbered(0))
    with files_limited_to(50_000):
        answers = await asyncio.gather(*(replica.append(numbered(sequence)) for sequence in (1, 2, 3)))
    assert {answer.error for answer in answers} == {ErrorCode.KAFKA_STORAGE_ERROR}
    answers = await asyncio.gather(*(replica.append(numbered(sequence)) for sequence in (1, 2, 3)))
    assert [answer.base_offset for answer in answers] == [1, 2, 3]
    assert (await replica.append(numbered(9))).error is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_follower_acknowledges_after_the_flush_that_flush_messages_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @with_replica
    async def test(follower: OpenReplica) -> None:
        await follower.open(followed(), config={"flush.messages": "2"})
        leaders = await PlayedLeaders.connect(follower.actor)
        leader = leaders.leader(0)
        leader.hello([(0, 0)], 0)
        await leader.answer()
        waits = threading.Event()
        with slow(monkeypatch, Log, "flush", waits):
            leader.data(0, batch(b"a", base_offset=0, leader_epoch=0))
            assert await leader.ack() == 1
            leader.data(0, batch(b"b", base_offset=1, leader_epoch=0))
            assert await leader.ack() == 0
            await until(waits.is_set)
        while await leader.ack() < 2:
            pass
        # a log that was not flushed yet is flushed before a new stream is answered
        waits.clear()
        with slow(monkeypatch, Log, "flush", waits):
            leader.data(0, batch(b"c", b"d", base_offset=2, leader_epoch=0))
            again = leaders.leader(0, number=2)
            again.hello([(0, 0)], 4)
            await until(waits.is_set)
            await asyncio.sleep(0.05)
            assert not again.has_heard
        assert await again.answer() == (4, 0)

    test(tmp_path)
