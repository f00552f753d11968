"""Who serves a client's connection: a replica actor that lives, whoever else did not take it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from raykafka.broker.children.child import Child
from raykafka.broker.children.children import Children
from raykafka.broker.partitions.partitions import Partitions
from raykafka.broker.replica_actors import ReplicaActors
from raykafka.link import Link, connect_unix, handover, serve_unix
from raykafka.process.clock import boot_clock
from tests.lab.loop_waiting import until

SECRET = b"secret"


class Process:
    """A replica actor's process as its broker meets it: the other end of its link, and where it takes connections."""

    def __init__(self, link: Link, path: str) -> None:
        self.link = link
        self.handed = handover.listen(path)
        self._path = path

    def took(self) -> list[str]:
        """The listeners of the connections that it was given and has not taken before."""
        found = []
        while (given := handover.take(self.handed)) is not None:
            connection, peer = given
            connection.close()
            found.append(peer["client"])
        return found

    def die_unnoticed(self) -> None:
        """It takes no connection any more; its link ends later."""
        self.handed.close()
        Path(self._path).unlink()


class Pool:
    """``actors`` of a broker, whose processes are ``processes``."""

    def __init__(self, folder: Path) -> None:
        self.processes: list[Process] = []
        self.rooms = 0
        self._folder = folder
        self._one_at_a_time = asyncio.Lock()
        self._accepted: asyncio.Queue[Link] = asyncio.Queue()
        self.restarts = {"replica": 0}

    async def start(self, role: str) -> Child:
        """As ``Children.start``."""
        async with self._one_at_a_time:
            return await self._start(role)

    async def _start(self, role: str) -> Child:
        number = len(self.processes)
        theirs = await connect_unix(str(self._folder / "s"), SECRET, {"role": role})

        async def answer(method: str, args: dict[str, Any]) -> dict[str, Any]:
            return {}

        fds = str(self._folder / f"{number}{handover.SUFFIX}")
        self.processes.append(Process(theirs, fds))
        theirs.start(on_call=answer)
        connected: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        connected.set_result(await self._accepted.get())
        handle = SimpleNamespace(actor_id="", kill=theirs.close)
        return Child(role, "token", cast(Any, handle), boot_clock(), connected, pid=1, links="", fds=fds)

    async def run(self, count: int, test: Callable[[Pool, ReplicaActors], Coroutine[Any, Any, None]]) -> None:
        listening = await serve_unix(str(self._folder / "s"), SECRET, {"role": "broker"}, self._accepted.put_nowait)

        async def nothing(*_: object) -> Any:
            return {}

        def room() -> None:
            self.rooms += 1

        actors = ReplicaActors(
            cast(Children, self),
            count,
            {},
            answer=nothing,
            forward=nothing,
            paths_changed=lambda _: None,
            homes_changed=lambda *_: None,
            room=room,
        )
        heard = SimpleNamespace(
            actor_came=lambda _: None, actor_gone=lambda _: None, rebalance=lambda _: None, take_report=lambda *_: None
        )
        actors.start(cast(Partitions, heard))
        try:
            await until(lambda: len(actors.living()) == count)
            await test(self, actors)
        finally:
            actors.stop()
            listening.close()
            for process in self.processes:
                process.link.close()


def run(tmp_path: Path, count: int, test: Callable[[Pool, ReplicaActors], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(Pool(tmp_path).run(count, test))


@contextlib.contextmanager
def connection() -> Any:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield theirs


def test_connections_are_spread(tmp_path: Path) -> None:
    async def test(pool: Pool, actors: ReplicaActors) -> None:
        for _ in range(4):
            with connection() as client:
                assert actors.serve("INSIDE", client.dup())
        assert [process.took() for process in pool.processes] == [["INSIDE"] * 2] * 2

    run(tmp_path, 2, test)


def test_what_a_dead_actor_does_not_take_another_one_gets(tmp_path: Path) -> None:
    async def test(pool: Pool, actors: ReplicaActors) -> None:
        dead, living = pool.processes
        dead.die_unnoticed()
        for _ in range(3):
            with connection() as client:
                actors.serve("INSIDE", client.dup())
        assert living.took() == ["INSIDE"] * 3

    run(tmp_path, 2, test)


def test_what_no_actor_takes_waits_for_the_next_one_and_its_end_is_handled(tmp_path: Path) -> None:
    async def test(pool: Pool, actors: ReplicaActors) -> None:
        (dead,) = pool.processes
        dead.die_unnoticed()
        with connection() as client:
            actors.serve("INSIDE", client.dup())
            rooms = pool.rooms
            with connection() as another:
                assert not actors.serve("OUTSIDE", another.dup())
                dead.link.close()
                await until(lambda: len(pool.processes) == 2 and pool.rooms > rooms)
                assert pool.processes[1].took() == ["INSIDE", "OUTSIDE"]
                assert len(actors.living()) == 1 and pool.restarts["replica"] == 1

    run(tmp_path, 1, test)
