"""A broker's children as real processes: kept, replaced, killed when silent, gone with their broker."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from raykafka.broker.children.child import COORDINATOR, Child
from raykafka.broker.children.children import Children
from raykafka.errors import LinkError
from raykafka.link import connect_unix
from tests.lab.clusters.plain_broker import PlainBroker, PlainStarter
from tests.lab.loop_waiting import until

WITHIN_S = 120


@asynccontextmanager
async def _children(directory: Path, spare_replicas: int = 1) -> AsyncIterator[Children]:
    settings = PlainBroker(directory, "nowhere:1").settings
    children = Children(
        PlainStarter(settings),
        socket_path=str(directory / "s"),
        secret=settings.secret,
        identity={"role": "broker"},
        spare_replicas=spare_replicas,
    )
    await children.listen()
    children.keep_spares()
    try:
        yield children
    finally:
        pids = [child.pid for child in children.living() if child.pid]
        await children.stop()
        assert not any(psutil.pid_exists(pid) for pid in pids)


def test_each_partition_gets_a_replica_process_of_its_own_and_a_spare_is_kept_ready(tmp_path: Path) -> None:
    async def run() -> None:
        async with _children(tmp_path) as children:
            await until(lambda: children.spares == 1)
            taken = [await asyncio.wait_for(children.acquire_replica(), WITHIN_S) for _ in range(3)]
            assert len({child.pid for child in taken}) == 3
            for child in taken:
                await child.link.ping(WITHIN_S)
            await until(lambda: children.spares == 1)
            assert len(children.living()) == 4

    asyncio.run(run())


def test_a_dead_spare_is_replaced_and_never_handed_out(tmp_path: Path) -> None:
    async def run() -> None:
        async with _children(tmp_path) as children:
            await until(lambda: children.spares == 1)
            dead = children.living()[0]
            os.kill(dead.pid, signal.SIGKILL)
            await until(lambda: dead not in children.living())
            child = await asyncio.wait_for(children.acquire_replica(), WITHIN_S)
            assert child.pid != dead.pid
            await child.link.ping(WITHIN_S)

    asyncio.run(run())


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_silent_coordinator_is_replaced(tmp_path: Path, end: signal.Signals) -> None:
    async def run() -> None:
        adopted: list[Child] = []

        def adopt(child: Child) -> None:
            adopted.append(child)
            child.link.start()

        async with _children(tmp_path, spare_replicas=0) as children:
            children.keep(COORDINATOR, adopt)
            await until(lambda: len(adopted) == 1)
            os.kill(adopted[0].pid, end)
            await until(lambda: len(adopted) == 2)
            await until(lambda: [child.pid for child in children.living()] == [adopted[1].pid])
            assert children.restarts[COORDINATOR] == 1

    asyncio.run(run())


def test_a_process_that_this_broker_did_not_start_is_turned_away(tmp_path: Path) -> None:
    async def run() -> None:
        async with _children(tmp_path, spare_replicas=0) as children:
            secret = children._secret
            stranger = await connect_unix(str(tmp_path / "s"), secret, {"role": "replica", "token": "x", "pid": 1})
            stranger.start()
            async with asyncio.timeout(WITHIN_S):
                await stranger.ended
            with pytest.raises(LinkError):
                await stranger.ping(1)
            assert children.spares == 0

    asyncio.run(run())
