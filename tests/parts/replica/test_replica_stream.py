"""A leader and the streams to its followers."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import psutil
import pytest

from raykafka.error_code import ErrorCode
from raykafka.log.batch_layout import BASE_OFFSET
from raykafka.replica import follower_broker
from raykafka.replica.host import Holder
from raykafka.replica.out_connection import WINDOW_BYTES
from raykafka.replica.stream_connection import BEAT_S, QUEUE_BYTES
from tests.lab.loop_waiting import until
from tests.parts.replica.opened import BROKER, FOLLOWER, OpenReplica, batch, followed, led, stored, with_replica
from tests.parts.replica.streams import FollowersBroker, PlayedFollower, PlayedLeader, PlayedLeaders


@with_replica
async def test_an_idle_stream_carries_the_high_watermark_and_its_connection_beats(leader: OpenReplica) -> None:
    broker = FollowersBroker()
    await leader.open(led(), holders=await broker.start())
    follower = await broker.stream()
    assert follower.hello.log_end == 0
    follower.answer(0, -1)
    appended = leader.append(batch(b"a", b"b"))
    _, high_watermark, records = await follower.data()
    assert (high_watermark, bool(records)) == (0, True)
    follower.ack(2)
    assert (await appended).base_offset == 0
    assert await follower.data() == (0, 2, b"")
    await follower.beats(3)
    broker.close()


@with_replica
async def test_a_follower_hears_how_far_is_committed_when_it_has_finished_its_handshake(leader: OpenReplica) -> None:
    broker = FollowersBroker()
    await leader.open(led(isr=(BROKER,)), holders=await broker.start())
    follower = await broker.stream()
    await leader.appended(batch(b"a"))
    follower.answer(0, -1)
    assert (await follower.data())[1] == 1
    broker.close()


@with_replica
async def test_a_follower_whose_actor_says_nothing_is_given_up_and_connected_to_again(leader: OpenReplica) -> None:
    broker = FollowersBroker()
    leader.actor.hub.configure(600)
    await leader.open(led(), holders=await broker.start())
    silent = await broker.stream()
    silent.link.transport.pause_reading()
    again = await broker.stream()
    assert (silent.hello.stream.number, again.hello.stream.number) == (1, 2)
    assert broker.taken == 2
    broker.close()


@with_replica
async def test_leaders_say_nothing_before_the_followers_actor_is_there(leader: OpenReplica) -> None:
    """Until then its broker hands the connection over, which it can't do with one on which something was said."""
    broker = FollowersBroker(is_ready=False)
    await leader.open(led(), holders=await broker.start())
    await until(lambda: broker.links)
    await asyncio.sleep(3 * BEAT_S)
    assert broker.heard == 0
    broker.ready(broker.links[0])
    assert (await broker.stream()).hello.stream.number == 1
    broker.close()


@with_replica
async def test_leaders_that_say_nothing_are_dropped_by_their_followers(follower: OpenReplica) -> None:
    follower.actor.hub.configure(600)
    await follower.open(followed())
    leaders = await PlayedLeaders.connect(follower.actor)
    leader = leaders.leader(0)
    leader.hello([(0, 0)], 0)
    await leader.answer()
    await leaders.ended()
    again = await PlayedLeader.connect(follower.actor, 0, number=2)
    again.hello([(0, 0)], 1)
    await again.answer()
    again.data(0, batch(b"a", base_offset=0, leader_epoch=0))
    assert await again.ack() == 1
    assert [value for _, _, value in stored(follower.directory)] == [b"a"]


@with_replica
async def test_an_older_stream_is_ended_and_what_it_still_brings_is_dropped(follower: OpenReplica) -> None:
    await follower.open(followed())
    leaders = await PlayedLeaders.connect(follower.actor)
    old, new = leaders.leader(0, number=1), leaders.leader(0, number=2)
    old.hello([(0, 0)], 0)
    await old.answer()
    new.hello([(0, 0)], 0)
    old.data(0, batch(b"late", base_offset=0, leader_epoch=0))
    await old.ended()
    await new.answer()
    new.data(0, batch(b"new", base_offset=0, leader_epoch=0))
    assert await new.ack() == 1
    late = leaders.leader(0, number=1)
    late.hello([(0, 0)], 0)
    await late.ended()
    assert [value for _, _, value in stored(follower.directory)] == [b"new"]


@with_replica
async def test_a_leader_says_how_its_followers_stand(leader: OpenReplica) -> None:
    broker = FollowersBroker()
    await leader.open(led(), holders=await broker.start())
    follower = await broker.stream()
    follower.answer(0, -1)
    records = batch(b"a", b"b", b"c")
    appended = leader.append(records)
    await follower.data()
    figures = await leader.follower_where(lambda figures: figures["lag_ms"] > 0)
    assert (figures["live"], figures["log_end"], figures["lag_records"]) == (True, 0, 3)
    assert figures["unacked_bytes"] == len(records)
    follower.ack(3)
    await appended
    caught_up = {"live": True, "throttled": False, "unacked_bytes": 0, "log_end": 3, "lag_records": 0, "lag_ms": 0}
    await leader.follower_where(lambda figures: figures == caught_up)
    await leader.tell(followed(1))
    assert leader.replica.describe_followers(0) == {}
    broker.close()


@with_replica
async def test_a_stream_that_acknowledges_more_than_it_was_sent_is_given_up(leader: OpenReplica) -> None:
    broker = FollowersBroker()
    await leader.open(led(), holders=await broker.start())
    follower = await broker.stream()
    follower.answer(0, -1)
    appended = leader.append(batch(b"a"))
    await follower.data()
    follower.ack(2)
    await follower.ended()
    assert not appended.done()
    broker.close()


def test_a_failed_task_of_a_connection_is_a_lost_stream_and_the_next_one_gets_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("planted")

    @with_replica
    async def test(leader: OpenReplica) -> None:
        broker = FollowersBroker()
        holders = await broker.start()
        with monkeypatch.context() as patch:
            patch.setattr(follower_broker, "connect_tcp", fail)
            await leader.open(led(), holders=holders)
            await until(lambda: "planted" in caplog.text)
        assert (await broker.stream()).hello.stream.number > 1
        broker.close()

    test(tmp_path)


@with_replica
async def test_another_life_of_the_followers_broker_is_not_spoken_to(leader: OpenReplica) -> None:
    broker = FollowersBroker()
    holders = await broker.start()
    older = {**holders, FOLLOWER: Holder(holders[FOLLOWER].host, holders[FOLLOWER].port, 6)}
    await leader.open(led(), holders=older)
    await until(lambda: broker.links and broker.links[0].is_closed)
    await leader.tell(led(), holders=holders)
    assert (await broker.stream()).hello.stream.number > 1
    broker.close()


MANY_BYTES = 8 * WINDOW_BYTES


def own_memory() -> int:
    gc.collect()
    return int(psutil.Process().memory_full_info().uss)


@with_replica
async def test_a_live_follower_that_stops_reading_costs_its_leader_a_window_of_memory(leader: OpenReplica) -> None:
    broker, records = FollowersBroker(), batch(b"x" * 500_000)
    leader.actor.hub.configure(600_000)
    await leader.open(led(), holders=await broker.start(), config={"replica.lag.time.max.ms": "600000"})
    follower = await broker.stream()
    follower.answer(0, -1)
    await leader.appended(records, acks=1)
    await follower.records(len(records))
    before = own_memory()
    follower.link.transport.pause_reading()
    count = MANY_BYTES // len(records)
    for _ in range(count):
        await leader.appended(records, acks=1)
    assert own_memory() - before < 3 * WINDOW_BYTES
    await all_arrive(leader, follower, range(1, count + 1), len(records))
    broker.close()


@with_replica
async def test_a_follower_that_is_behind_and_stops_reading_costs_its_leader_a_window_of_memory(
    leader: OpenReplica,
) -> None:
    broker, records = FollowersBroker(), batch(b"x" * 500_000)
    leader.actor.hub.configure(600_000)
    config = {"replica.lag.time.max.ms": "600000"}
    await leader.open(led(isr=(BROKER,)), holders=await broker.start(), config=config)
    follower = await broker.stream()
    count = MANY_BYTES // len(records)
    for _ in range(count):
        await leader.appended(records, acks=1)
    before = own_memory()
    follower.link.transport.pause_reading()
    follower.answer(0, -1)
    await leader.follower_where(lambda figures: figures["unacked_bytes"] > 0)
    await asyncio.sleep(BEAT_S)
    assert own_memory() - before < 3 * WINDOW_BYTES
    (connection,) = next(iter(leader.actor.hub._out.values()))._connections
    assert connection._link is not None
    queued = connection._link.transport.get_write_buffer_size()
    assert 0 < queued <= QUEUE_BYTES + 2 * len(records), "what catches up leaves room for live records"
    await all_arrive(leader, follower, range(count), len(records))
    broker.close()


async def all_arrive(leader: OpenReplica, follower: PlayedFollower, offsets: range, size: int) -> None:
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
