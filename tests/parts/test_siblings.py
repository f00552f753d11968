"""Replica actors of one broker, each a process: a client is served by one, and the log is another's (rules 20, 21)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from raykafka.error_code import ErrorCode
from raykafka.types import TopicPartition
from tests.lab.actor_processes import ActorProcesses, Client
from tests.lab.dataplane import TOPIC

TP = TopicPartition(TOPIC, 0)


def run(directory: Path, test: Callable[[ActorProcesses], Awaitable[None]], count: int = 2) -> None:
    async def body() -> None:
        async with ActorProcesses(directory, count) as actors:
            await test(actors)

    asyncio.run(asyncio.wait_for(body(), 120))


def test_a_partition_of_a_sibling_is_written_and_read_in_order(tmp_path: Path) -> None:
    """All at once on one connection: what was written before is read, whatever its acks."""

    async def test(actors: ActorProcesses) -> None:
        await actors.create()
        await actors.open(TP, 0)
        client = await actors.client(1)
        acks = [(-1, 1, 0)[number % 3] for number in range(60)]
        sent = [client.send_produce(b"%d" % number, acks=acks[number]) for number in range(60)]
        fetch = client.send_fetch()
        for number, correlation in enumerate(sent):
            if acks[number]:
                answer = await client.produced(correlation)
                assert (answer.error_code.value, answer.base_offset) == (ErrorCode.NONE, number)
        assert await client.fetched(fetch) == [b"%d" % number for number in range(60)]

    run(tmp_path, test)


@pytest.mark.parametrize("acks", [-1, 1, 0])
def test_what_was_answered_can_be_read_at_once(acks: int, tmp_path: Path) -> None:
    """Rule 20: the view comes before the answer that it covers."""

    async def test(actors: ActorProcesses) -> None:
        await actors.create()
        await actors.open(TP, 0)
        client = await actors.client(1)
        for number in range(200):
            sent = client.send_produce(b"%d" % number, acks=acks)
            if acks:
                assert (await client.produced(sent)).base_offset == number
            assert await client.fetch(number) == [b"%d" % number]

    run(tmp_path, test)


def test_one_that_comes_late_reads_all_that_was_written_before(tmp_path: Path) -> None:
    """What it was never told of: the first view that it gets has all segments."""

    async def test(actors: ActorProcesses) -> None:
        await actors.create()
        await actors.open(TP, 0)
        owner = await actors.client(0)
        for number in range(5):
            await owner.produce(b"%d" % number)
        actors.kill(1)
        other = await actors.client(await actors.successor(1))
        await other.produce(b"5")
        assert await other.fetch() == [b"%d" % number for number in range(6)]

    run(tmp_path, test)


def test_a_sibling_that_is_killed_refuses_and_its_partitions_are_served_where_they_are_opened_next(
    tmp_path: Path,
) -> None:
    async def test(actors: ActorProcesses) -> None:
        await actors.create()
        await actors.open(TP, 0)
        client = await actors.client(1)
        assert (await client.produce(b"before")).error_code.value == ErrorCode.NONE
        actors.kill(0)
        while (answer := await client.produce(b"lost")).error_code.value == ErrorCode.NONE:
            pass  # it had not died yet
        assert answer.error_code.value == ErrorCode.NOT_LEADER_OR_FOLLOWER
        actors.gone(TP)
        await actors.lead()
        waits = client.send_produce(b"refused")
        assert (await client.produced(waits)).error_code.value == ErrorCode.NOT_LEADER_OR_FOLLOWER
        for place in (await actors.successor(0), 1):
            await actors.open(TP, place)
            while (await client.produce(b"after %d" % place)).error_code.value:
                pass  # it has yet to hear where the log is
            if place != 1:
                actors.kill(place)
                await actors.successor(place)
                actors.gone(TP)
                await actors.lead()
        values = await client.fetch()
        assert [v for v in values if v != b"lost"] == [b"before", b"after 2", b"after 1"]

    run(tmp_path, test)


def test_a_partition_moves_under_writers_without_an_error_a_loss_or_a_duplicate(tmp_path: Path) -> None:
    """Clients of the actor that has it, of the one that gets it, and of a third one write all the while."""
    in_flight, moves = 20, 12

    async def write(client: Client, name: str, stop: asyncio.Event) -> list[bytes]:
        values: list[bytes] = []
        sent: list[int] = []
        last = -1
        while not stop.is_set() or sent:
            if not stop.is_set():
                values.append(b"%s %d" % (name.encode(), len(values)))
                sent.append(client.send_produce(values[-1]))
            if len(sent) >= in_flight or stop.is_set():
                answer = await client.produced(sent.pop(0))
                assert answer.error_code.value == ErrorCode.NONE, answer
                assert answer.base_offset > last
                last = answer.base_offset
        return values

    async def test(actors: ActorProcesses) -> None:
        await actors.create()
        await actors.open(TP, 0)
        stop = asyncio.Event()
        clients = [await actors.client(number) for number in range(3)]
        writing = [asyncio.ensure_future(write(client, f"c{n}", stop)) for n, client in enumerate(clients)]
        place = 0
        for number in range(moves):
            await asyncio.wait(writing, timeout=0.05)
            to = (place + 1 + number % 2) % 3
            await actors.move(TP, place, to)
            place = to
        await asyncio.wait(writing, timeout=0.05)
        stop.set()
        written = await asyncio.gather(*writing)
        assert all(len(values) > in_flight for values in written)
        found = await clients[0].fetch()
        for n, values in enumerate(written):
            assert [v for v in found if v.startswith(b"c%d " % n)] == values
        assert len(found) == sum(map(len, written))
        # one leadership all the way: no client saw the epoch end
        assert actors.image.topics[TOPIC].partitions[0].leader_epoch == 0
        assert not actors.heard

    run(tmp_path, test, count=3)
