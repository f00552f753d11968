"""Clients' connections: accepted at the broker's port, handed to replica actors, each a process, and served there."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.lab.actor_processes import ActorProcesses, Client
from tests.lab.loop_waiting import until

API_VERSIONS = 18


def run(directory: Path, test: Callable[[ActorProcesses], Awaitable[None]], count: int = 2) -> None:
    async def body() -> None:
        async with ActorProcesses(directory, count) as actors:
            await test(actors)

    asyncio.run(asyncio.wait_for(body(), 120))


async def served(client: Client) -> None:
    """Ask something, and get it answered."""
    assert await client.answer(client.send(API_VERSIONS, 2))


def test_hundreds_of_connections_at_once_are_all_served_by_actors_in_equal_shares(tmp_path: Path) -> None:
    async def test(actors: ActorProcesses) -> None:
        clients = await asyncio.gather(*(actors.connect() for _ in range(300)))
        await asyncio.gather(*map(served, clients))
        shares = await until(lambda: (s := _connections(actors)) and sum(s) == 300 and s)
        assert shares == [150, 150]
        for client in clients:
            client.close()
        await until(lambda: sum(_connections(actors)) == 0)

    run(tmp_path, test)


def _connections(actors: ActorProcesses) -> list[int]:
    return [actor.connections.get("TEST", 0) for actor in actors.pool.living().values()]


def test_connections_wait_while_no_actor_lives_and_are_served_by_the_next(tmp_path: Path) -> None:
    async def test(actors: ActorProcesses) -> None:
        before = await actors.connect()
        await served(before)
        actors.kill(0)
        assert await before.reader.read() == b""
        await until(lambda: not actors.pool.living())
        clients = [await actors.connect() for _ in range(40)]
        asked = [asyncio.ensure_future(served(client)) for client in clients]
        await asyncio.gather(*asked)
        assert list(actors.pool.living()) == [1]

    run(tmp_path, test, count=1)


@pytest.mark.parametrize("count", [1, 2])
def test_a_connection_for_an_actor_that_has_ended_unnoticed_goes_to_another(count: int, tmp_path: Path) -> None:
    """To one that lives, or else to the next."""

    async def test(actors: ActorProcesses) -> None:
        actors.kill(0)
        os.waitid(os.P_PID, actors.pool.living()[0].child.pid, os.WEXITED | os.WNOWAIT)
        # no turn of the event loop until here: nobody has heard of it
        own, other = socket.socketpair()
        actors.pool.serve("TEST", other)
        assert 0 in actors.pool.living()
        client = Client(*await asyncio.open_connection(sock=own))
        await served(client)

    run(tmp_path, test, count)


def test_a_broker_that_stops_serves_no_connection_that_is_still_on_its_way(tmp_path: Path) -> None:
    async def test(actors: ActorProcesses) -> None:
        client = await actors.client(0)
        await served(client)
        await actors.pool.close_listeners()
        assert await client.reader.read() == b""
        for number in (0, 1):  # one that has served clients, and one that has not
            late = await actors.client(number)
            assert await asyncio.wait_for(late.reader.read(), 30) == b""

    run(tmp_path, test)
