"""An open connection goes from one process to another, and its peer notices nothing (here: from one loop's end)."""

import asyncio
import select
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from raykafka.errors import LinkError
from raykafka.link import Link, adopt, connect_tcp, handover, serve_tcp
from raykafka.types import FrameKind

READY, DATA = FrameKind(32), FrameKind(33)
SECRET = b"k" * 32
WITHIN_S = 20
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.SelectorEventLoop, uvloop.new_event_loop]


async def _pair() -> tuple[Link, Link, asyncio.AbstractServer]:
    accepted: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
    server = await serve_tcp("127.0.0.1", 0, SECRET, {"role": "broker"}, accepted.set_result)
    port = server.sockets[0].getsockname()[1]
    client = await connect_tcp("127.0.0.1", port, SECRET, {"role": "stream", "stream": [3, 1, 2, 9]})
    return client, await accepted, server


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_goes_on_in_the_process_it_was_handed_to(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def play() -> None:
        receiving = handover.listen(str(tmp_path / "s"))
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
        assert handover.take(receiving) is None
        client, accepted, server = await _pair()
        giver = handover.Giver(str(tmp_path / "s"), lambda connection, peer: connection.close())
        giver.give(await accepted.detach(), accepted.peer)
        await asyncio.wait_for(accepted.ended, WITHIN_S)
        server.close()
        taken = handover.take(receiving)
        assert taken is not None
        adopted = await adopt(*taken)
        assert adopted.peer["stream"] == [3, 1, 2, 9]
        heard: asyncio.Queue[tuple[str, int, bytes]] = asyncio.Queue()

        def hear(side: str) -> Callable[[int, memoryview], None]:
            return lambda kind, payload: heard.put_nowait((side, kind, bytes(payload)))

        adopted.start(on_frame=hear("adopted"))
        client.start(on_frame=hear("client"))
        adopted.send(READY, b"ready")
        assert await asyncio.wait_for(heard.get(), WITHIN_S) == ("client", 32, b"ready")
        client.send(DATA, b"x" * 1_000_000)
        assert await asyncio.wait_for(heard.get(), WITHIN_S) == ("adopted", 33, b"x" * 1_000_000)
        adopted.close()
        await asyncio.wait_for(client.ended, WITHIN_S)
        giver.close()
        receiving.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play())


@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_peer_says_before_its_connection_is_adopted_is_not_lost(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def play() -> None:
        client, accepted, server = await _pair()
        handed_over = await accepted.detach()
        client.start()
        client.send(DATA, b"early")
        while not select.select([handed_over], [], [], 0)[0]:
            await asyncio.sleep(0)
        adopted = await adopt(handed_over, accepted.peer)
        heard: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        adopted.start(on_frame=lambda kind, payload: heard.put_nowait((kind, bytes(payload))))
        assert await asyncio.wait_for(heard.get(), WITHIN_S) == (DATA, b"early")
        adopted.close()
        await asyncio.wait_for(client.ended, WITHIN_S)
        server.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_that_ended_or_spoke_is_not_handed_over(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def ended(client: Link, accepted: Link) -> Any:
        client.close()
        await asyncio.wait_for(accepted.ended, WITHIN_S)

    async def spoke(client: Link, accepted: Link) -> Any:
        client.send(READY, b"too early")
        while not accepted._waiting:
            await asyncio.sleep(0)

    async def play() -> None:
        for happens in (ended, spoke):
            client, accepted, server = await _pair()
            await happens(client, accepted)
            with pytest.raises(LinkError):
                await accepted.detach()
            await asyncio.wait_for(client.ended, WITHIN_S)
            server.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play())
