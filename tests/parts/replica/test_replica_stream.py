"""A leader's and a follower's replica process, and the stream between them."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from typing import Any

import psutil

from raykafka.error_code import ErrorCode
from raykafka.log.batch_layout import BASE_OFFSET
from raykafka.replica.sending import WINDOW_BYTES
from tests.parts.replica.process import BROKER, DEADLINE_S, ReplicaProcess, batch, stored, with_replica
from tests.parts.replica.streams import BROKER_EPOCH, FOLLOWER, FollowersBroker, PlayedFollower, follower_beside, led


@with_replica
async def test_an_idle_stream_carries_the_high_watermark_again_and_again(leader: ReplicaProcess) -> None:
    broker = FollowersBroker()
    await leader.open(led(), holders=await broker.start())
    follower = await broker.stream()
    assert (await follower.hello()).log_end == 0
    follower.answer(0, -1)
    appended = leader.append(batch(b"a", b"b"))
    _, high_watermark, records = await follower.data()
    assert (high_watermark, bool(records)) == (0, True)
    follower.ack(2)
    assert (await appended).base_offset == 0
    for _ in range(3):
        assert await follower.data() == (0, 2, b"")
        follower.ack(2)
    broker.close()


@with_replica
async def test_a_follower_that_says_nothing_is_given_up_and_connected_to_again(leader: ReplicaProcess) -> None:
    broker = FollowersBroker()
    await leader.open(led(), holders=await broker.start(), config={"replica.lag.time.max.ms": "600"})
    silent = await broker.stream()
    await silent.hello()
    silent.answer(0, -1)
    await silent.ended()
    again = await broker.stream()
    assert (await again.hello()).stream.number == 2
    broker.close()


@with_replica
async def test_a_leader_that_says_nothing_is_dropped_by_its_follower(leader: ReplicaProcess) -> None:
    broker = FollowersBroker(follower := await follower_beside(leader))
    holders = await broker.start()
    await leader.open(led(), holders=holders)
    config = {"replica.lag.time.max.ms": "600"}
    await follower.open(led(), holders=holders, config=config, broker_id=FOLLOWER, broker_epoch=BROKER_EPOCH)
    await leader.appended(batch(b"a"))
    leader.process.send_signal(signal.SIGSTOP)
    connections = psutil.Process(follower.process.pid).net_connections
    assert len(connections("tcp")) == 1
    async with asyncio.timeout(DEADLINE_S):
        while connections("tcp"):
            await asyncio.sleep(0.02)
    leader.process.send_signal(signal.SIGCONT)
    assert (await leader.appended(batch(b"b"))).base_offset == 1
    assert [value for _, _, value in stored(follower.directory)] == [b"a", b"b"]
    await follower.stop()
    broker.close()


@with_replica
async def test_a_leader_tells_its_broker_how_its_followers_stand(leader: ReplicaProcess) -> None:
    broker = FollowersBroker()
    await leader.open(led(), holders=await broker.start())
    follower = await broker.stream()
    await follower.hello()
    follower.answer(0, -1)
    records = batch(b"a", b"b", b"c")
    appended = leader.append(records)
    await follower.data()

    def behind(figures: dict[str, Any]) -> bool:
        return bool(figures["followers"]["2"]["lag_ms"])

    told = await leader.called("follower_progress", behind)
    assert told["leader_epoch"] == 0
    figures = told["followers"]["2"]
    assert (figures["live"], figures["log_end"], figures["lag_records"]) == (True, 0, 3)
    assert figures["unacked_bytes"] == len(records)
    follower.ack(3)
    await appended
    caught_up = {"live": True, "throttled": False, "unacked_bytes": 0, "log_end": 3, "lag_records": 0, "lag_ms": 0}
    await leader.called("follower_progress", lambda figures: figures["followers"]["2"] == caught_up)
    await leader.tell(replace(led(1, version=1), leader=FOLLOWER))
    await leader.called("follower_progress", lambda figures: not figures)
    broker.close()


MANY_BYTES = 8 * WINDOW_BYTES
PATIENT = {"replica.lag.time.max.ms": "600000"}


def own_memory(replica: ReplicaProcess) -> int:
    return int(psutil.Process(replica.process.pid).memory_full_info().uss)


async def settled_memory(replica: ReplicaProcess) -> int:
    """What a process has of its own, once that has not grown for half a second."""
    before, now = 0, own_memory(replica)
    while now > before:
        await asyncio.sleep(0.5)
        before, now = now, own_memory(replica)
    return now


@with_replica
async def test_a_live_follower_that_stops_reading_costs_its_leader_a_window_of_memory(leader: ReplicaProcess) -> None:
    broker, records = FollowersBroker(), batch(b"x" * 500_000)
    await leader.open(led(), holders=await broker.start(), config=PATIENT)
    follower = await broker.stream()
    await follower.hello()
    follower.answer(0, -1)
    await leader.appended(records, acks=1)
    await follower.records(len(records))
    before = own_memory(leader)
    follower.link.transport.pause_reading()
    count = MANY_BYTES // len(records)
    for _ in range(count):
        await leader.appended(records, acks=1)
    assert await settled_memory(leader) - before < 3 * WINDOW_BYTES
    await all_arrive(leader, follower, range(1, count + 1), len(records))
    broker.close()


@with_replica
async def test_a_follower_that_is_behind_and_stops_reading_costs_its_leader_a_window_of_memory(
    leader: ReplicaProcess,
) -> None:
    broker, records = FollowersBroker(), batch(b"x" * 500_000)
    await leader.open(led(isr=(BROKER,)), holders=await broker.start(), config=PATIENT)
    follower = await broker.stream()
    await follower.hello()
    count = MANY_BYTES // len(records)
    for _ in range(count):
        await leader.appended(records, acks=1)
    before = own_memory(leader)
    follower.link.transport.pause_reading()
    follower.answer(0, -1)
    await leader.called("follower_progress", lambda figures: figures["followers"]["2"]["unacked_bytes"] >= WINDOW_BYTES)
    assert await settled_memory(leader) - before < 3 * WINDOW_BYTES
    await all_arrive(leader, follower, range(count), len(records))
    broker.close()


async def all_arrive(leader: ReplicaProcess, follower: PlayedFollower, offsets: range, size: int) -> None:
    """A follower that reads and acknowledges again gets all that it has missed, and what comes then."""
    follower.link.transport.resume_reading()
    for offset in offsets:
        assert BASE_OFFSET.unpack_from(await follower.records(size)) == (offset,)
        follower.ack(offset + 1)
    live = leader.append(batch(b"live"))
    while b"live" not in await follower.records(1):
        pass
    follower.ack(offsets.stop + 1)
    assert (await live).error == ErrorCode.NONE
