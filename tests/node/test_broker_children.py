"""A broker's children as real processes: kept, replaced, killed when silent, gone with their broker."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from raykafka.broker.children.child import COORDINATOR, REPLICA, Child
from raykafka.broker.children.children import Children
from raykafka.broker.partitions.partitions import Partitions
from raykafka.broker.replica_actors import ReplicaActors
from raykafka.errors import LinkError, RaykafkaError
from raykafka.link import connect_unix
from tests.lab.clusters.plain_broker import PlainBroker, PlainChild, PlainStarter
from tests.lab.loop_waiting import until

WITHIN_S = 120


class Stillborn(PlainStarter):
    """Its children end before they connect."""

    def start(self, role: str, socket_path: str, token: str) -> PlainChild:
        child = super().start(role, socket_path, token)
        child.kill()
        return child


@asynccontextmanager
async def _children(directory: Path, starter: type[PlainStarter] = PlainStarter) -> AsyncIterator[Children]:
    settings = PlainBroker(directory, "nowhere:1").settings
    children = Children(
        starter(settings), socket_path=str(directory / "s"), secret=settings.secret, identity={"role": "broker"}
    )
    await children.listen()
    try:
        yield children
    finally:
        pids = [child.pid for child in children.living() if child.pid]
        await children.stop()
        assert not any(psutil.pid_exists(pid) for pid in pids)


async def _start(children: Children) -> Child:
    """A replica actor that waits to be told what to be."""
    child = await asyncio.wait_for(children.start(REPLICA), WITHIN_S)
    child.link.start()
    return child


def test_each_replica_actor_is_a_process_of_its_own_that_says_where_it_listens(tmp_path: Path) -> None:
    async def run() -> None:
        async with _children(tmp_path) as children:
            started = await asyncio.gather(*(_start(children) for _ in range(3)))
            assert len({child.pid for child in started}) == 3
            for child in started:
                await child.link.ping(WITHIN_S)
            places = {path for child in started for path in (child.links, child.fds)}
            assert len(places) == 6 and all(Path(path).is_socket() for path in places)
            started[0].kill()
            await until(lambda: started[0] not in children.living())
            assert not any(Path(path).exists() for path in (started[0].links, started[0].fds))
            assert children.living() == started[1:]

    asyncio.run(run())


class NoPartitions:
    """Takes note of no actor."""

    def actor_came(self, actor: object) -> None: ...
    def actor_gone(self, number: int) -> None: ...
    def take_report(self, number: int, rows: object) -> None: ...
    def rebalance(self, busy: object) -> None: ...


async def _answer(*_: object) -> Any:
    return {}


@asynccontextmanager
async def _pool(directory: Path, count: int) -> AsyncIterator[ReplicaActors]:
    """Replica actors of a broker without partitions, none of them started yet."""
    async with _children(directory) as children:
        pool = ReplicaActors(
            children,
            count,
            {"broker_id": 0, "log_dir": str(directory), "config": {}},
            answer=_answer,
            forward=_answer,
            paths_changed=lambda paths: None,
            homes_changed=lambda rows: None,
            room=lambda: None,
        )
        try:
            yield pool
        finally:
            pool.stop()


def _connection() -> tuple[socket.socket, socket.socket]:
    """The end of who connected, and the other one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = socket.create_connection(server.getsockname())
        there, _ = server.accept()
    here.setblocking(False)
    there.setblocking(False)
    return here, there


def test_another_brokers_connection_that_comes_before_any_actor_waits_for_the_first(tmp_path: Path) -> None:
    async def run() -> None:
        async with _pool(tmp_path, 1) as pool:
            for_any, given = _connection()
            for_one, refused = _connection()
            peer = {"role": "replication", "broker_id": 1, "actor": 0}
            pool.take_stream(given, {**peer, "to": None})
            pool.take_stream(refused, {**peer, "to": 7})
            loop = asyncio.get_running_loop()
            assert await asyncio.wait_for(loop.sock_recv(for_one, 1), WITHIN_S) == b"", "that actor is not there"
            pool.start(cast(Partitions, NoPartitions()))
            assert await asyncio.wait_for(loop.sock_recv(for_any, 1), WITHIN_S), "an actor says that it is ready"
            for_any.close()
            for_one.close()

    asyncio.run(run())


def test_one_that_ends_before_it_connects_is_an_error_and_is_forgotten(tmp_path: Path) -> None:
    async def run() -> None:
        async with _children(tmp_path, Stillborn) as children:
            with pytest.raises(RaykafkaError, match="it ended before it connected"):
                await children.start(REPLICA)
            await until(lambda: children.living() == [])

    asyncio.run(run())


def test_a_replica_actor_whose_event_loop_is_silent_is_killed(tmp_path: Path) -> None:
    async def run() -> None:
        async with _children(tmp_path) as children:
            child = await _start(children)
            os.kill(child.pid, signal.SIGSTOP)
            await until(lambda: children.living() == [])
            assert child.link.is_closed

    asyncio.run(run())


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_silent_coordinator_is_replaced(tmp_path: Path, end: signal.Signals) -> None:
    async def run() -> None:
        adopted: list[Child] = []

        def adopt(child: Child) -> None:
            adopted.append(child)
            child.link.start()

        async with _children(tmp_path) as children:
            children.keep(COORDINATOR, adopt)
            await until(lambda: len(adopted) == 1)
            os.kill(adopted[0].pid, end)
            await until(lambda: len(adopted) == 2)
            await until(lambda: [child.pid for child in children.living()] == [adopted[1].pid])
            assert children.restarts[COORDINATOR] == 1

    asyncio.run(run())


def test_a_process_that_this_broker_did_not_start_is_turned_away(tmp_path: Path) -> None:
    async def run() -> None:
        async with _children(tmp_path) as children:
            secret = children._secret
            stranger = await connect_unix(str(tmp_path / "s"), secret, {"role": "replica", "token": "x", "pid": 1})
            stranger.start()
            async with asyncio.timeout(WITHIN_S):
                await stranger.ended
            with pytest.raises(LinkError):
                await stranger.ping(1)
            assert children.living() == []

    asyncio.run(run())
