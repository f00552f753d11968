"""A leader's and a follower's replica process, and the stream between them."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from typing import Any

import psutil

from tests.unit.replica.process import DEADLINE_S, ReplicaProcess, batch, stored, with_replica
from tests.unit.replica.streams import BROKER_EPOCH, FOLLOWER, FollowersBroker, follower_beside, led


@with_replica
async def test_an_idle_stream_carries_the_high_watermark_again_and_again(leader: ReplicaProcess) -> None:
    broker = FollowersBroker()
    await leader.open(led(), peers=await broker.start())
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
    await leader.open(led(), peers=await broker.start(), config={"replica.lag.time.max.ms": "600"})
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
    peers = await broker.start()
    await leader.open(led(), peers=peers)
    config = {"replica.lag.time.max.ms": "600"}
    await follower.open(led(), peers=peers, config=config, broker_id=FOLLOWER, broker_epoch=BROKER_EPOCH)
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
    await leader.open(led(), peers=await broker.start())
    follower = await broker.stream()
    await follower.hello()
    follower.answer(0, -1)
    records = batch(b"a", b"b", b"c")
    appended = leader.append(records)
    await follower.data()

    def behind(figures: dict[str, Any]) -> bool:
        return bool(figures["followers"]["2"]["lag_ms"])

    told = await leader.called("figures", behind)
    assert told["leader_epoch"] == 0
    figures = told["followers"]["2"]
    assert (figures["live"], figures["log_end"], figures["lag_records"]) == (True, 0, 3)
    assert figures["unacked_bytes"] == len(records)
    follower.ack(3)
    await appended
    caught_up = {"live": True, "throttled": False, "unacked_bytes": 0, "log_end": 3, "lag_records": 0, "lag_ms": 0}
    await leader.called("figures", lambda figures: figures["followers"]["2"] == caught_up)
    await leader.tell(replace(led(1, version=1), leader=FOLLOWER))
    await leader.called("figures", lambda figures: not figures)
    broker.close()
