"""Throttled catch-up between replicas: what is asked for, what is held back, and what never is (KIP-73)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from raykafka.cluster.image import PartitionState
from tests.parts.replica.opened import (
    BROKER,
    DEADLINE_S,
    FOLLOWER,
    OpenReplica,
    batch,
    followed,
    led,
    with_replica,
)
from tests.parts.replica.streams import FollowersBroker, PlayedFollower, PlayedLeader

LEADERS = {"leader.replication.throttled.replicas": f"0:{BROKER}"}
FOLLOWERS = {"follower.replication.throttled.replicas": f"0:{FOLLOWER}"}
BATCHES = 20


class Rations:
    """A broker that lets its replicas have what the test says, when it says so."""

    def __init__(self, replica: OpenReplica) -> None:
        self.asked: asyncio.Queue[tuple[str, int, asyncio.Future[int]]] = asyncio.Queue()
        replica.answers["allowance"] = self._answer

    async def _answer(self, side: str, owed: int) -> int:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait((side, owed, answer))
        return await answer

    async def grant(self, side: str, size: int) -> int:
        """Answer the next that is asked of ``side``; returns what was owed."""
        asked, owed, answer = await asyncio.wait_for(self.asked.get(), DEADLINE_S)
        assert asked == side
        answer.set_result(size)
        return owed


def behind(**more: Any) -> PartitionState:
    """FOLLOWER follows and is not in sync."""
    return led(isr=(BROKER,), **more)


def some_batches() -> list[bytes]:
    return [bytes(batch(b"%02d" % n * 500)) for n in range(BATCHES)]


async def leading(
    leader: OpenReplica, broker: FollowersBroker, config: dict[str, str], state: PartitionState
) -> tuple[PlayedFollower, list[bytes]]:
    """A leader with BATCHES batches, and a follower that has none of them."""
    batches = some_batches()
    await leader.open(state, holders=await broker.start(), config=config)
    follower = await broker.stream()
    for records in batches:
        await leader.appended(records, acks=1)
    follower.answer(0, -1)
    return follower, batches


@with_replica
async def test_a_follower_that_is_behind_gets_what_its_leaders_broker_grants(leader: OpenReplica) -> None:
    rations, broker = Rations(leader), FollowersBroker()
    follower, batches = await leading(leader, broker, {**LEADERS, "replica.lag.time.max.ms": "600"}, behind())
    size = len(batches[0])
    assert await rations.grant("leader", 5 * size) == 0
    assert len(await follower.records(5 * size)) == 5 * size
    await follower.beats(4)  # for longer than silence is borne
    assert await rations.grant("leader", 5 * size) == 0
    assert len(await follower.records(5 * size)) == 5 * size
    assert broker.taken == 1
    broker.close()


@with_replica
async def test_a_batch_goes_whole_and_what_was_too_much_is_owed(leader: OpenReplica) -> None:
    rations, broker = Rations(leader), FollowersBroker()
    follower, batches = await leading(leader, broker, LEADERS, behind())
    size = len(batches[0])
    assert await rations.grant("leader", 1) == 0
    assert len(await follower.records(size)) == size
    assert await rations.grant("leader", 1) == size - 1
    assert len(await follower.records(size)) == size
    broker.close()


@with_replica
async def test_no_live_record_overtakes_a_follower_that_is_held_back(leader: OpenReplica) -> None:
    rations, broker = Rations(leader), FollowersBroker()
    follower, batches = await leading(leader, broker, LEADERS, behind())
    size = len(batches[0])
    await rations.grant("leader", BATCHES * size)
    await follower.records(BATCHES * size)
    await leader.appended(batch(b"more" * 250), acks=1)
    assert await rations.grant("leader", 1) == 0, "it has all, but it is not in sync"
    assert b"more" in await follower.records(size)
    broker.close()


@with_replica
async def test_what_goes_to_an_in_sync_follower_waits_for_nobody_and_is_counted(leader: OpenReplica) -> None:
    rations, broker = Rations(leader), FollowersBroker()
    follower, batches = await leading(leader, broker, {**LEADERS, **FOLLOWERS}, led())
    whole = BATCHES * len(batches[0])
    assert len(await follower.records(whole)) == whole
    follower.ack(BATCHES)
    appended = leader.append(batch(b"live"))
    await follower.records(1)
    follower.ack(BATCHES + 1)
    assert (await appended).base_offset == BATCHES
    assert rations.asked.empty()
    async with asyncio.timeout(DEADLINE_S):
        while sum(args["bytes"] for name, args in leader.calls if name == "spent") <= whole:
            await asyncio.sleep(0.01)
    broker.close()


@with_replica
async def test_a_follower_that_is_asked_for_is_held_back_no_more(leader: OpenReplica) -> None:
    """From the asking on the high watermark waits for it (rule 5), and acks=all would wait for the throttle."""
    rations, broker = Rations(leader), FollowersBroker()
    follower, batches = await leading(leader, broker, LEADERS, behind())
    whole = BATCHES * len(batches[0])
    await rations.grant("leader", whole)
    await follower.records(whole)
    follower.ack(BATCHES)
    await leader.called("propose")
    appended = leader.append(batch(b"live"))
    assert b"live" in await follower.records(1)
    assert not appended.done()
    follower.ack(BATCHES + 1)
    await appended
    broker.close()


@with_replica
async def test_one_that_waits_for_an_allowance_goes_on_when_it_is_asked_for(leader: OpenReplica) -> None:
    rations, broker = Rations(leader), FollowersBroker()
    holders, batches = await broker.start(), some_batches()
    size, half, third = len(batches[0]), BATCHES // 2, FOLLOWER + 1
    replicas = (BROKER, FOLLOWER, third)
    await leader.open(PartitionState(replicas, BROKER, 0, (BROKER,), 0), holders=holders, config=LEADERS)
    follower = await broker.stream()
    for records in batches[:half]:
        await leader.appended(records, acks=1)
    await leader.tell(PartitionState(replicas, BROKER, 0, (BROKER, third), 1), holders=holders)
    for records in batches[half:]:
        await leader.appended(records, acks=1)
    follower.answer(0, -1)
    await rations.grant("leader", half * size)
    await follower.records(half * size)
    await asyncio.wait_for(rations.asked.get(), DEADLINE_S)
    follower.ack(half)
    assert len(await follower.records(half * size)) == half * size
    broker.close()


@with_replica
async def test_a_throttle_that_is_taken_back_lets_everything_go(leader: OpenReplica) -> None:
    rations, broker = Rations(leader), FollowersBroker()
    follower, batches = await leading(leader, broker, {**LEADERS, **FOLLOWERS}, behind())
    await asyncio.wait_for(rations.asked.get(), DEADLINE_S)
    await follower.asked()
    await leader.follower_where(lambda figures: bool(figures["throttled"]))
    leader.replica.configure({})
    whole = BATCHES * len(batches[0])
    assert len(await follower.records(whole)) == whole
    broker.close()


@with_replica
async def test_a_throttle_that_is_set_later_holds_what_is_behind(leader: OpenReplica) -> None:
    rations, broker = Rations(leader), FollowersBroker()
    follower, batches = await leading(leader, broker, {}, behind())
    size = len(batches[0])
    await follower.records(BATCHES * size)
    leader.replica.configure({"leader.replication.throttled.replicas": "*"})
    await leader.appended(batches[0], acks=1)
    await rations.grant("leader", size)
    assert len(await follower.records(size)) == size
    broker.close()


@with_replica
async def test_both_sides_have_to_let_it_go(leader: OpenReplica) -> None:
    rations, broker = Rations(leader), FollowersBroker()
    follower, batches = await leading(leader, broker, {**LEADERS, **FOLLOWERS}, behind())
    size = len(batches[0])
    assert await follower.asked() == 0
    await rations.grant("leader", BATCHES * size)
    await follower.beats(1)
    follower.grant(3 * size)
    assert len(await follower.records(3 * size)) == 3 * size
    assert await follower.asked() == 0
    assert rations.asked.empty()
    broker.close()


@with_replica
async def test_one_side_that_is_taken_back_leaves_the_other(leader: OpenReplica) -> None:
    rations, broker = Rations(leader), FollowersBroker()
    follower, batches = await leading(leader, broker, {**LEADERS, **FOLLOWERS}, behind())
    size = len(batches[0])
    assert await follower.asked() == 0
    follower.grant(3 * size)
    await asyncio.wait_for(rations.asked.get(), DEADLINE_S)
    await follower.beats(1)
    leader.replica.configure(FOLLOWERS)
    assert len(await follower.records(3 * size)) == 3 * size
    assert await follower.asked() == 0
    broker.close()


@with_replica
async def test_a_follower_asks_its_own_broker_for_what_its_leader_may_send(follower: OpenReplica) -> None:
    rations = Rations(follower)
    await follower.open(followed(isr=(FOLLOWER,)))
    leader = await PlayedLeader.connect(follower.actor, 0)
    leader.hello([(0, 0)], 5)
    await leader.answer()
    leader.ask(77)
    assert await rations.grant("follower", 1234) == 77
    assert await leader.granted() == 1234


@with_replica
async def test_a_follower_counts_what_comes_to_it_in_sync(follower: OpenReplica) -> None:
    config = {"follower.replication.throttled.replicas": f"0:{BROKER}"}
    await follower.open(followed(isr=(FOLLOWER,)), config=config)
    leader = await PlayedLeader.connect(follower.actor, 0)
    leader.hello([(0, 0)], 2)
    await leader.answer()
    first, second = (batch(b"%d" % n * 100, base_offset=n, leader_epoch=0) for n in range(2))
    leader.data(0, first)
    assert await leader.ack() == 1
    await follower.tell(replace(followed(), version=1))
    leader.data(1, second)
    assert await leader.ack() == 2
    assert await follower.called("spent") == {"side": "follower", "bytes": len(second)}
