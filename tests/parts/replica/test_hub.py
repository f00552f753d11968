"""The streams of many partitions on the connections of their actors: what they share, and what none may do to another
(rules 11, 12)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from raykafka.cluster.image import PartitionState
from raykafka.error_code import ErrorCode
from raykafka.replica import hub as hubs
from raykafka.replica import out_connection
from raykafka.replica import stream_frames as frames
from raykafka.replica.host import Holder
from raykafka.replica.out_connection import WINDOW_BYTES
from raykafka.replica.stream_connection import StreamConnection
from raykafka.types import PartitionKey
from tests.lab.loop_waiting import until
from tests.parts.replica.opened import (
    BROKER,
    DEADLINE_S,
    FOLLOWER,
    TOPIC_ID,
    Broker,
    OpenReplica,
    batch,
    followed,
    led,
    stored,
    with_replica,
)
from tests.parts.replica.streams import FollowersBroker, PlayedLeaders

MANY = 50
PATIENT = {"replica.lag.time.max.ms": "600000"}


def key(partition: int) -> PartitionKey:
    return PartitionKey("events", TOPIC_ID, partition)


class Pair:
    """A broker that leads and one that follows."""

    def __init__(self, leading: Broker, following: Broker) -> None:
        self.leading = leading
        self.following = following
        self.holders: Mapping[int, Holder] = {BROKER: leading.holder, FOLLOWER: following.holder}

    async def lead(
        self, partition: int, state: PartitionState | None = None, *, actor: int = 0, **how: Any
    ) -> OpenReplica:
        replica = self.leading.actors[actor].on(key(partition))
        await replica.open(state or led(), holders=self.holders, config=PATIENT, **how)
        return replica

    async def follow(self, partition: int, state: PartitionState | None = None, *, actor: int = 0) -> OpenReplica:
        replica = self.following.actors[actor].on(key(partition))
        await replica.open(state or led(), config=PATIENT)
        return replica

    async def both(
        self, count: int, state: PartitionState | None = None
    ) -> tuple[list[OpenReplica], list[OpenReplica]]:
        """Leaders and followers of so many partitions."""
        followers = [await self.follow(n, state) for n in range(count)]
        return [await self.lead(n, state) for n in range(count)], followers


def with_pair(test: Callable[[Pair], Awaitable[None]], *, actors: int = 1) -> Callable[[Path], None]:
    """A test on two brokers, which are closed afterwards."""

    def run(tmp_path: Path) -> None:
        async def play() -> None:
            leading = await Broker(BROKER, tmp_path / "leading", actors=actors).start()
            following = await Broker(FOLLOWER, tmp_path / "following", actors=actors).start()
            try:
                await asyncio.wait_for(test(Pair(leading, following)), 2 * DEADLINE_S)
            finally:
                await leading.close()
                await following.close()

        asyncio.run(play())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def with_actors(test: Callable[[Pair], Awaitable[None]]) -> Callable[[Path], None]:
    """``with_pair`` of two actors for each broker."""
    return with_pair(test, actors=2)


async def appended(replicas: list[OpenReplica], value: bytes) -> None:
    answers = await asyncio.gather(*(replica.appended(batch(value)) for replica in replicas))
    assert {answer.error for answer in answers} == {ErrorCode.NONE}


def values(replica: OpenReplica) -> list[bytes]:
    return [value for _, _, value in stored(replica.directory)]


@with_pair
async def test_the_streams_of_many_partitions_share_one_connection(pair: Pair) -> None:
    leaders, followers = await pair.both(MANY)
    for n in range(3):
        await appended(leaders, b"%d" % n)
    assert len(pair.following.links) == 1 and not pair.leading.links
    assert [values(follower) for follower in followers] == [[b"0", b"1", b"2"]] * MANY
    for follower in followers:
        await follower.view_where(lambda view: view.high_watermark == 3)


def test_what_a_turn_has_for_a_connection_goes_out_in_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = StreamConnection._write

    def count(connection: StreamConnection) -> None:
        written.append(len(connection._parts))
        write(connection)

    @with_replica
    async def test(first: OpenReplica) -> None:
        broker = FollowersBroker()
        holders = await broker.start()
        replicas = [first, *(first.actor.on(key(n)) for n in range(1, MANY))]
        for replica in replicas:
            await replica.open(led(), holders=holders)
        for _ in replicas:
            (await broker.stream()).answer(0, -1)
        for replica in replicas:
            await replica.follower_where(lambda figures: figures["live"])
        monkeypatch.setattr(StreamConnection, "_write", count)
        for replica in replicas:
            replica.append(batch(b"a"), acks=1)
            replica.append(batch(b"b"), acks=1)
        await until(lambda: written)
        assert written[0] == 3 * MANY, "a head and two batches for each stream"
        broker.close()

    test(tmp_path)


@with_replica
async def test_the_acknowledgements_of_a_turn_go_in_one_frame(first: OpenReplica) -> None:
    replicas = [first, *(first.actor.on(key(n)) for n in range(1, MANY))]
    for replica in replicas:
        await replica.open(followed())
    leaders = await PlayedLeaders.connect(first.actor)
    streams = [leaders.leader(0, key=replica.key) for replica in replicas]
    for stream in streams:
        stream.hello([(0, 0)], 0)
    for stream in streams:
        await stream.answer()
    records = batch(b"a", base_offset=0, leader_epoch=0)
    sent = [frames.pack_data(stream.number, 0, 0, len(records)) + records for stream in streams]
    leaders.link.transport.write(b"".join(sent))
    for stream in streams:
        assert await stream.ack() == 1
    assert sorted(map(len, leaders.acks))[-1] > 1 and len(leaders.acks) < MANY / 5


@with_pair
async def test_a_follower_that_waits_for_its_disk_holds_up_no_other(pair: Pair) -> None:
    leaders, followers = await pair.both(5)
    disk = asyncio.Event()

    async def wait() -> None:
        await disk.wait()

    await appended(leaders, b"0")
    followers[0].replica._queue.begin(wait())
    big = b"x" * 500_000
    waiting = [leaders[0].append(batch(big)) for _ in range(3 * WINDOW_BYTES // len(big))]
    try:
        for n in range(1, 20):
            await appended(leaders[1:], b"%d" % n)
        await leaders[0].follower_where(lambda figures: figures["unacked_bytes"] >= WINDOW_BYTES)
        assert leaders[0].replica.describe_followers(0)[FOLLOWER]["unacked_bytes"] < WINDOW_BYTES + 2 * len(big)
        assert not waiting[0].done()
    finally:
        disk.set()
    assert {answer.error for answer in await asyncio.gather(*waiting)} == {ErrorCode.NONE}
    assert values(followers[0]) == values(leaders[0])
    assert len(pair.following.links) == 1


def test_what_is_unacknowledged_on_a_connection_is_bounded_and_each_stream_keeps_a_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out_connection, "CONNECTION_WINDOW_BYTES", 2 * WINDOW_BYTES)
    disk = asyncio.Event()

    async def wait() -> None:
        await disk.wait()

    @with_pair
    async def test(pair: Pair) -> None:
        leaders, followers = await pair.both(6)
        await appended(leaders, b"0")
        for follower in followers[:5]:
            follower.replica._queue.begin(wait())
        big = b"x" * 500_000
        try:
            for leader in leaders[:5]:
                for _ in range(2 * WINDOW_BYTES // len(big)):
                    leader.append(batch(big))
            for n in range(1, 20):
                await appended(leaders[5:], b"%d" % n)
            unacked = [leader.replica.describe_followers(0)[FOLLOWER]["unacked_bytes"] for leader in leaders]
            assert sum(unacked) < 2 * WINDOW_BYTES + 6 * (out_connection.LEAST_WINDOW_BYTES + 2 * len(big))
            assert min(unacked[:5]) > 0
        finally:
            disk.set()
        await appended(leaders, b"last")
        assert [values(follower) for follower in followers] == [values(leader) for leader in leaders]

    test(tmp_path)


@with_pair
async def test_a_follower_that_catches_up_holds_up_no_other(pair: Pair) -> None:
    behind = await pair.lead(0, led(isr=(BROKER,)))
    live = await pair.lead(1)
    live_follower = await pair.follow(1)
    big, count = b"x" * 500_000, 200
    for _ in range(count):
        await behind.appended(batch(big))
    await live.appended(batch(b"first"))
    follower = await pair.follow(0, led(isr=(BROKER,)))
    meanwhile = 0
    while follower.replica.log.log_end_offset < count:
        await live.appended(batch(b"%d" % meanwhile))
        meanwhile += 1
    assert meanwhile >= 10
    assert values(live_follower) == values(live)
    await behind.called("propose", lambda asked: asked["isr"] == (BROKER, FOLLOWER))


@with_pair
async def test_a_follower_that_is_throttled_holds_up_no_other(pair: Pair) -> None:
    asked = asyncio.Event()

    async def never(side: str, owed: int) -> int:
        asked.set()
        return await asyncio.get_running_loop().create_future()

    throttled, live = await pair.lead(0, led(isr=(BROKER,))), await pair.lead(1)
    throttled.answers["allowance"] = never
    throttled.replica.configure({**PATIENT, "leader.replication.throttled.replicas": "*"})
    await throttled.appended(batch(b"held"))
    held, live_follower = await pair.follow(0, led(isr=(BROKER,))), await pair.follow(1)
    await asked.wait()
    for n in range(20):
        await live.appended(batch(b"%d" % n))
    assert (len(values(live_follower)), values(held)) == (20, [])
    assert throttled.replica.describe_followers(0)[FOLLOWER]["throttled"]


def fail(*args: object) -> None:
    raise RuntimeError("planted")


def streams_opened(leader: OpenReplica) -> int:
    leading = leader.replica.partition.leading
    assert leading is not None
    return leading.streams


@with_pair
async def test_a_follower_that_fails_on_what_comes_ends_its_own_stream_and_no_other(pair: Pair) -> None:
    leaders, followers = await pair.both(3)
    await appended(leaders, b"0")
    before = streams_opened(leaders[0])
    followers[0].replica.receiver.data = fail  # type: ignore[assignment, method-assign]
    leaders[0].append(batch(b"x"), acks=1)
    await until(lambda: streams_opened(leaders[0]) > before, "its leader opens another stream")
    await appended(leaders[1:], b"1")
    assert len(pair.following.links) == 1


@with_pair
async def test_a_leader_that_fails_on_what_comes_loses_its_own_stream_and_no_other(pair: Pair) -> None:
    leaders, _ = await pair.both(3)
    await appended(leaders, b"0")
    before = streams_opened(leaders[0])
    leaders[0].replica._streams._senders[FOLLOWER].acked = fail  # type: ignore[assignment, method-assign]
    waiting = leaders[0].append(batch(b"x"))
    await appended(leaders[1:], b"1")
    assert (await waiting).error is ErrorCode.NONE
    assert streams_opened(leaders[0]) == before + 1
    assert len(pair.following.links) == 1


@with_pair
async def test_streams_whose_connection_ends_are_lost_in_one_turn_and_opened_again(pair: Pair) -> None:
    leaders, followers = await pair.both(MANY)
    await appended(leaders, b"before")

    def streams() -> list[object]:
        return [replica.replica.partition.leading.followers[FOLLOWER].stream for replica in leaders]  # type: ignore[union-attr]

    before = streams()
    (connection,) = pair.following.actors[0].hub._in
    connection.end("planted")
    while None not in streams():
        assert streams() == before
        await asyncio.sleep(0)
    assert streams() == [None] * MANY
    await appended(leaders, b"after")
    assert [values(follower) for follower in followers] == [[b"before", b"after"]] * MANY
    assert len(pair.following.links) == 2


@with_actors
async def test_a_stream_finds_the_actor_that_has_the_replica(pair: Pair) -> None:
    for partition in range(4):
        actor = partition % 2
        await pair.follow(partition, actor=actor)
        pair.following.actors[1 - actor].elsewhere[key(partition)] = actor
    leaders = [await pair.lead(partition) for partition in range(4)]
    await appended(leaders, b"a")
    assert [link.peer["to"] for link in pair.following.links] == [None, 1]
    assert [replica.replica.partition.leading.streams for replica in leaders] == [1] * 4  # type: ignore[union-attr]


@with_pair
async def test_a_stream_waits_until_its_follower_is_open(pair: Pair) -> None:
    leader = await pair.lead(0)
    waiting = leader.append(batch(b"a"))
    hub = pair.following.actors[0].hub
    await until(lambda: hub._waiting)
    follower = await pair.follow(0)
    assert (await waiting).error is ErrorCode.NONE
    assert values(follower) == [b"a"]
    assert leader.replica.partition.leading.streams == 1  # type: ignore[union-attr]


@with_pair
async def test_a_stream_waits_until_its_follower_knows_of_the_epoch(pair: Pair) -> None:
    follower = await pair.follow(0, led(0))
    leader = await pair.lead(0, led(1))
    hub = pair.following.actors[0].hub
    await until(lambda: hub._waiting)
    assert follower.replica.partition.log.history.latest_epoch < 1
    await follower.tell(led(1))
    await leader.appended(batch(b"a"))
    assert leader.replica.partition.leading.streams == 1  # type: ignore[union-attr]


@with_actors
async def test_a_stream_that_waits_follows_its_replica_to_another_actor(pair: Pair) -> None:
    leader = await pair.lead(0)
    first, second = pair.following.actors
    await until(lambda: first.hub._waiting)
    await pair.follow(0, actor=1)
    first.elsewhere[key(0)] = second.number
    first.hub.look_again(key(0))
    await leader.appended(batch(b"a"))
    assert leader.replica.partition.leading.streams == 1  # type: ignore[union-attr]


def test_streams_wait_for_their_follower_in_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @with_replica
    async def test(replica: OpenReplica) -> None:
        leaders = await PlayedLeaders.connect(replica.actor)
        monkeypatch.setattr(hubs, "MOST_WAITING", 2)
        monkeypatch.setattr(hubs, "WAIT_S", 10 * DEADLINE_S)
        first, second, third = (leaders.leader(0, key=key(n)) for n in range(3))
        for stream in (first, second, third):
            stream.hello([(0, 0)], 0)
        assert await third.ended() == frames.CLOSED
        newer = leaders.leader(0, key=key(0), number=2)
        newer.hello([(0, 0)], 0)
        assert await first.ended() == frames.CLOSED
        monkeypatch.setattr(hubs, "WAIT_S", 0.0)
        assert await second.ended() == await newer.ended() == frames.CLOSED
        assert not replica.actor.hub._waiting and not replica.actor.hub._waiting_count

    test(tmp_path)


@with_actors
async def test_a_leader_that_moves_to_another_actor_loses_and_doubles_nothing(pair: Pair) -> None:
    follower = await pair.follow(0)
    leader = await pair.lead(0)
    sent, numbers = [], random.Random(7)
    for move in range(6):
        for n in range(numbers.randrange(1, 20)):
            value = b"%d-%d" % (move, n)
            leader.append(batch(value))
            sent.append(value)
        left = await leader.replica.leave()
        while left is None:
            await asyncio.sleep(0)
            left = await leader.replica.leave()
        assert left.note is not None and left.log_end_offset == len(sent)
        leader = await pair.lead(0, actor=(move + 1) % 2, left=left)
        assert leader.leads and not leader.calls
    await leader.appended(batch(b"last"))
    assert values(leader) == values(follower) == [*sent, b"last"]
    assert {epoch for _, epoch, _ in stored(leader.directory)} == {0}


@with_actors
async def test_a_follower_that_moves_to_another_actor_is_found_again(pair: Pair) -> None:
    follower, leader = await pair.follow(0), await pair.lead(0)
    await leader.appended(batch(b"a"))
    first = pair.following.actors[0]
    left = await follower.replica.leave()
    assert left is not None and not follower.shows
    del first.replicas[key(0)]
    first.elsewhere[key(0)] = 1
    moved = await pair.follow(0, actor=1)
    await leader.appended(batch(b"b"))
    assert values(moved) == values(leader) == [b"a", b"b"]
    assert not [args for name, args in leader.calls if name == "propose"]


def short(kind: int) -> bytes:
    return b"\x00\x00\x00\x02" + bytes([kind]) + b"\x01"


@pytest.mark.parametrize(
    "bad",
    [
        frames.pack_bytes(frames.ASK, 9, 1),
        frames.pack_end(9, 0),
        frames.pack_heads([(9, 0, 0)]),
        frames.pack_data(9, 0, 0, 61) + bytes(61),
        frames.pack_data(1, 0, 0, 4) + b"bits",
        frames.pack_acks([(1, 1)]),
        *map(short, (frames.HELLO, frames.DATA, frames.HEADS, frames.ASK, frames.END, 99)),
    ],
)
def test_leaders_that_send_what_no_frame_is_are_dropped_and_others_are_not(tmp_path: Path, bad: bytes) -> None:
    @with_replica
    async def test(replica: OpenReplica) -> None:
        await replica.open(followed())
        leaders, others = await PlayedLeaders.connect(replica.actor), await PlayedLeaders.connect(replica.actor, 3)
        stream = leaders.leader(0)
        stream.hello([(0, 0)], 0)
        await stream.answer()
        leaders.link.transport.write(bad)
        await leaders.ended()
        await replica.tell(followed(1, leader=3))
        other = others.leader(1)
        other.hello([(0, 0), (1, 0)], 0)
        assert await other.answer() == (0, -1)

    test(tmp_path)


@pytest.mark.parametrize(
    "bad",
    [
        frames.pack_acks([(9, 0)]),
        frames.pack_acks([(1, 0)]),
        frames.pack_ready(4),
        frames.pack_answer(9, frames.Position(0, -1, 1)),
        frames.pack_end(2, 0),
        *map(short, (frames.READY, frames.ANSWER, frames.ACKS, frames.ELSEWHERE, frames.GRANT, frames.END, 99)),
    ],
)
def test_followers_that_send_what_no_frame_is_are_dropped_and_tried_again(tmp_path: Path, bad: bytes) -> None:
    @with_replica
    async def test(leader: OpenReplica) -> None:
        broker = FollowersBroker()
        await leader.open(led(), holders=await broker.start())
        follower = await broker.stream()
        follower.link.transport.write(bad)
        await follower.ended()
        again = await broker.stream()
        again.answer(0, -1)
        appended = leader.append(batch(b"a"))
        await again.data()
        again.ack(1)
        assert (await appended).error is ErrorCode.NONE
        broker.close()

    test(tmp_path)


@with_replica
async def test_a_hello_in_the_name_of_another_broker_ends_the_connection(replica: OpenReplica) -> None:
    await replica.open(followed(leader=3))
    leaders = await PlayedLeaders.connect(replica.actor, FOLLOWER)
    leaders.broker = 3
    leaders.leader(0).hello([(0, 0)], 0)
    await leaders.ended()


@with_replica
async def test_an_actor_that_ends_takes_no_connection(replica: OpenReplica) -> None:
    await replica.open(followed())
    leaders = await PlayedLeaders.connect(replica.actor)
    replica.actor.hub.close()
    await leaders.ended()
