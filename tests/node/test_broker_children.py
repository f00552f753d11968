"""A broker's children as real processes: kept, replaced, killed when silent, gone with their broker."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from raykafka.broker.children.child import COORDINATOR, REPLICA, Child
from raykafka.broker.children.children import Children
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
