"""Replicas whose disk is slow, full, or holds what it should not: what they wait for, and what they go on without."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raykafka.error_code import ErrorCode
from raykafka.link import connect_unix, handover, serve_unix
from raykafka.log import Log
from raykafka.replica.server import ReplicaServer
from tests.parts.replica.process import BROKER, DEADLINE_S, SECRET, ReplicaProcess, batch, stored, with_replica
from tests.parts.replica.streams import (
    BROKER_EPOCH,
    FOLLOWER,
    FollowersBroker,
    PlayedLeader,
    followed,
    follower_beside,
    led,
)


@contextmanager
def slow_epoch_file(directory: Path, waits: asyncio.Event) -> Iterator[None]:
    """Whoever writes the epoch file waits, from when ``waits`` is set until this ends: a lease on the file is held."""
    path = directory / "leader-epoch-checkpoint.tmp"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    asyncio.get_running_loop().add_signal_handler(signal.SIGIO, waits.set)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    try:
        yield
    finally:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        os.close(fd)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGIO)


@with_replica
async def test_nothing_is_done_in_a_new_epoch_before_it_is_on_disk_and_the_event_loop_goes_on(
    leader: ReplicaProcess,
) -> None:
    broker = FollowersBroker()
    holders = await broker.start()
    await leader.open(led(isr=(BROKER,)), holders={})
    await leader.appended(batch(b"zero"))
    waits = asyncio.Event()
    with slow_epoch_file(leader.directory, waits):
        told = asyncio.ensure_future(leader.tell(led(1, isr=(BROKER,), version=1), holders=holders))
        await asyncio.wait_for(waits.wait(), DEADLINE_S)
        appended = leader.append(batch(b"one"))
        for _ in range(3):
            await leader.link.ping(DEADLINE_S / 2)
        assert not told.done() and not appended.done() and not broker.taken
    assert (await told)["leads"]
    assert (await appended).base_offset == 1
    assert [(epoch, value) for _, epoch, value in stored(leader.directory)] == [(0, b"zero"), (1, b"one")]
    assert (await (await broker.stream()).hello()).stream.leader_epoch == 1
    broker.close()


@with_replica
async def test_a_follower_answers_a_new_leader_once_its_cut_is_on_disk_and_the_event_loop_goes_on(
    follower: ReplicaProcess,
) -> None:
    await follower.open(followed())
    leader = await PlayedLeader.connect(follower.streams, 0)
    leader.hello([(0, 0)], 0)
    assert await leader.answer() == (0, -1)
    leader.data(0, batch(b"kept", base_offset=0, leader_epoch=0))
    leader.data(1, batch(b"cut", base_offset=1, leader_epoch=0))
    while await leader.ack() < 2:
        pass
    await follower.tell(followed(1, leader=3))
    waits = asyncio.Event()
    with slow_epoch_file(follower.directory, waits):
        successor = await PlayedLeader.connect(follower.streams, 1, leader=3)
        successor.hello([(0, 0), (1, 1)], 1, 1)
        await asyncio.wait_for(waits.wait(), DEADLINE_S)
        for _ in range(3):
            await follower.link.ping(DEADLINE_S / 2)
        assert not successor.has_heard
    assert await successor.answer() == (1, 0)
    assert [value for _, _, value in stored(follower.directory)] == [b"kept"]
    assert (follower.directory / "leader-epoch-checkpoint").read_text() == "0\n2\n0 0\n1 1\n"


@with_replica
async def test_a_follower_stops_rather_than_cut_what_was_committed(follower: ReplicaProcess) -> None:
    await follower.open(followed())
    leader = await PlayedLeader.connect(follower.streams, 0)
    leader.hello([(0, 0)], 0)
    await leader.answer()
    leader.data(0, batch(b"a", b"b", base_offset=0, leader_epoch=0))
    assert await leader.ack() == 2
    leader.data(2)
    assert await leader.ack() == 2
    await follower.tell(followed(1, leader=3))
    other = await PlayedLeader.connect(follower.streams, 1, leader=3)
    other.hello([(0, 0), (1, 1)], 1)
    assert (await follower.called("failed"))["diverged"] is True
    await other.ended()
    assert await follower.exited() == 0
    assert [value for _, _, value in stored(follower.directory)] == [b"a", b"b"]


@with_replica
async def test_a_followers_full_disk_costs_it_the_isr_at_once_until_there_is_room(leader: ReplicaProcess) -> None:
    broker = FollowersBroker(follower := await follower_beside(leader))
    holders = await broker.start()
    config = {"replica.lag.time.max.ms": "600000"}
    await leader.open(led(), holders=holders, config=config)
    await follower.open(led(), holders=holders, config=config, broker_id=FOLLOWER, broker_epoch=BROKER_EPOCH)
    await leader.appended(batch(b"first"))
    path = follower.directory / "00000000000000000000.log"
    room = path.stat().st_size + 1500
    resource.prlimit(follower.process.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    answers = [leader.append(batch(b"%d" % n * 1000)) for n in range(4)]
    proposal = await leader.called("propose", lambda asked: asked["isr"] == [BROKER])
    assert path.stat().st_size < room, "a part of a batch was left"
    await leader.tell(led(isr=(BROKER,), version=proposal["version"] + 1), holders=holders)
    assert {answer.error for answer in await asyncio.gather(*answers)} == {ErrorCode.NONE}
    resource.prlimit(follower.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await leader.called("propose", lambda asked: asked["isr"] == [BROKER, FOLLOWER])
    assert stored(follower.directory) == stored(leader.directory)
    await follower.stop()
    broker.close()


@with_replica
async def test_a_leader_on_a_full_disk_leaves_the_partition_to_an_in_sync_follower(leader: ReplicaProcess) -> None:
    broker = FollowersBroker()
    await leader.open(led(), holders=await broker.start())
    follower = await broker.stream()
    await follower.hello()
    follower.answer(0, -1)
    resource.prlimit(leader.process.pid, resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    waiting = leader.append(batch(b"fits"))
    assert (await follower.data())[2]
    assert (await leader.append(batch(b"x" * 1000))).error is ErrorCode.KAFKA_STORAGE_ERROR
    assert (await leader.called("failed"))["diverged"] is False
    assert (await waiting).error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert await leader.exited() == 0
    assert [value for _, _, value in stored(leader.directory)] == [b"fits"]
    broker.close()


@with_replica
async def test_a_leader_on_a_full_disk_goes_on_while_nobody_else_could_lead(leader: ReplicaProcess) -> None:
    broker = FollowersBroker()
    await leader.open(led(isr=(BROKER,)), holders=await broker.start())
    follower = await broker.stream()
    await follower.hello()
    follower.answer(0, -1)
    pid = leader.process.pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    assert (await leader.append(batch(b"x" * 1000), acks=1)).error is ErrorCode.KAFKA_STORAGE_ERROR
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert (await leader.appended(batch(b"x" * 1000), acks=1)).base_offset == 0
    broker.close()


@with_replica
async def test_batches_in_flight_behind_one_that_a_full_disk_refused_get_its_answer(replica: ReplicaProcess) -> None:
    """For an order that it cannot explain, librdkafka begins a new producer epoch, and writes again what is there."""

    def numbered(sequence: int) -> bytearray:
        return batch(b"x" * 1000, producer_id=7, producer_epoch=0, base_sequence=sequence)

    await replica.open()
    await replica.appended(numbered(0))
    pid = replica.process.pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    answers = await asyncio.gather(*(replica.append(numbered(sequence)) for sequence in (1, 2, 3)))
    assert {answer.error for answer in answers} == {ErrorCode.KAFKA_STORAGE_ERROR}
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    answers = await asyncio.gather(*(replica.append(numbered(sequence)) for sequence in (1, 2, 3)))
    assert [answer.base_offset for answer in answers] == [1, 2, 3]
    assert (await replica.append(numbered(9))).error is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_follower_acknowledges_after_the_flush_that_flush_messages_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_is_quick = threading.Event()
    disk_is_quick.set()
    flush = Log.flush

    def slow_flush(log: Log) -> None:
        disk_is_quick.wait(DEADLINE_S)
        flush(log)

    monkeypatch.setattr(Log, "flush", slow_flush)

    async def test() -> None:
        server = await serve_unix(str(tmp_path / "s"), SECRET, {}, lambda link: accepted.set_result(link))
        accepted = asyncio.get_running_loop().create_future()
        streams = handover.listen(str(tmp_path / "streams"))
        replica = ReplicaServer(await connect_unix(str(tmp_path / "s"), SECRET, {}), SECRET, streams)
        replica.start()
        broker = await accepted
        broker.start(on_frame=lambda kind, payload: None)
        process = ReplicaProcess(tmp_path)
        process.link = broker
        await process.open(followed(), config={"flush.messages": "2"})
        leader = await PlayedLeader.connect(str(tmp_path / "streams"), 0)
        leader.hello([(0, 0)], 0)
        await leader.answer()
        disk_is_quick.clear()
        leader.data(0, batch(b"a", base_offset=0, leader_epoch=0))
        assert await leader.ack() == 1
        leader.data(0, batch(b"b", base_offset=1, leader_epoch=0))
        leader.data(0)
        assert await leader.ack() == 0
        disk_is_quick.set()
        while await leader.ack() < 2:
            pass
        # a log that was not flushed yet is flushed before a new stream is answered
        disk_is_quick.clear()
        leader.data(0, batch(b"c", b"d", base_offset=2, leader_epoch=0))
        again = await PlayedLeader.connect(str(tmp_path / "streams"), 0, number=2)
        again.hello([(0, 0)], 4)
        for _ in range(3):
            await broker.ping(DEADLINE_S)
        assert not again.has_heard
        disk_is_quick.set()
        assert await again.answer() == (4, 0)
        broker.close()
        await replica.ended
        server.close()
        streams.close()

    asyncio.run(asyncio.wait_for(test(), DEADLINE_S))
