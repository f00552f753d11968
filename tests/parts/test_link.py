"""Links between actors: the handshake, frames of every size, calls and their errors."""

import asyncio
import gc
import socket
import stat
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link, connect_tcp, connect_unix, endpoints, serve_unix
from raykafka.partition.appends import APPEND, Appended
from raykafka.partition.view import VIEW, View
from raykafka.replica_actor.sibling_frames import pack_append, unpack_append
from raykafka.types import LogPosition

SECRET = b"s" * 32


class _Peers:
    """Two open ends of one link."""

    def __init__(self, path: Path) -> None:
        self.path = str(path / "l.sock")

    async def __aenter__(self) -> tuple[Link, Link]:
        accepted: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self.server = await serve_unix(self.path, SECRET, {"role": "broker"}, accepted.set_result)
        client = await connect_unix(self.path, SECRET, {"role": "replica", "pid": 7})
        self.ends = (await accepted, client)
        return self.ends

    async def __aexit__(self, *_: object) -> None:
        for end in self.ends:
            end.close()
        self.server.close()


def test_each_side_learns_the_others_identity_and_the_socket_is_private(tmp_path: Path) -> None:
    async def run() -> None:
        async with _Peers(tmp_path) as (server, client):
            assert server.peer == {"role": "replica", "pid": 7}
            assert client.peer == {"role": "broker"}
            assert stat.S_IMODE((tmp_path / "l.sock").stat().st_mode) == 0o600

    asyncio.run(run())


def test_a_peer_without_the_secret_is_refused_on_either_side(tmp_path: Path) -> None:
    async def run() -> None:
        accepted: list[Link] = []
        server = await serve_unix(str(tmp_path / "l"), SECRET, {"role": "broker"}, accepted.append)
        with pytest.raises(LinkError):
            await connect_unix(str(tmp_path / "l"), b"another secret", {"role": "replica"})
        assert accepted == []
        server.close()

    asyncio.run(run())


def test_a_peer_that_has_proved_nothing_announces_nothing_large(tmp_path: Path) -> None:
    async def run() -> None:
        server = await serve_unix(str(tmp_path / "l"), SECRET, {"role": "broker"}, lambda link: None)
        for length in (1 << 30, 100_000, 0x16030102):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "l"))
            greeting = await reader.readexactly(4)
            await reader.readexactly(struct.unpack(">i", greeting)[0])
            writer.write(struct.pack(">i", length) + bytes(100))
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        server.close()

    asyncio.run(asyncio.wait_for(run(), 5))  # before the time that a handshake is given


def test_a_handshake_that_is_given_up_leaves_no_connection_behind(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await connect_tcp("127.0.0.1", mute.getsockname()[1], SECRET, {"role": "replica"})
            with mute.accept()[0] as connection:
                connection.settimeout(30)
                with suppress(ConnectionResetError):
                    assert await asyncio.to_thread(connection.recv, 1) == b""

    asyncio.run(run())
    gc.collect()
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("size", [0, 1, 65_531 - 5, 65_536, 300_000, 5_000_000])
def test_frames_of_every_size_arrive_whole_in_order_and_writable(tmp_path: Path, size: int) -> None:
    async def run() -> None:
        async with _Peers(tmp_path) as (server, client):
            got: list[tuple[int, bytes]] = []
            done = asyncio.Event()

            def take(kind: int, payload: memoryview) -> None:
                got.append((kind, bytes(payload)))
                if payload:
                    payload[0] = 1
                if len(got) == 6:
                    done.set()

            server.start(on_frame=take)
            body = bytes(i % 251 for i in range(size))
            for i in range(3):
                client.send(APPEND, body)
                client.send(VIEW, b"small", bytes([i]))
            await asyncio.wait_for(done.wait(), 10)
            assert got == [x for i in range(3) for x in ((APPEND, body), (VIEW, b"small" + bytes([i])))]

    asyncio.run(run())


def test_calls_return_values_and_kafka_errors_and_fail_when_the_link_ends(tmp_path: Path) -> None:
    async def answer(method: str, args: dict) -> object:
        if method == "add":
            return args["a"] + args["b"]
        if method == "hang":
            await asyncio.sleep(60)
        raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH, "too old")

    async def run() -> None:
        async with _Peers(tmp_path) as (server, client):
            server.start(on_call=answer)
            client.start()
            assert await client.call("add", {"a": 2, "b": 3}) == 5
            with pytest.raises(KafkaError) as refused:
                await client.call("other", {})
            assert refused.value.code is ErrorCode.FENCED_LEADER_EPOCH
            await client.ping(5)
            hanging = asyncio.ensure_future(client.call("hang", {}))
            await client.ping(5)
            server.transport.abort()
            with pytest.raises(LinkError):
                await hanging
            with pytest.raises(LinkError):
                await client.call("add", {"a": 1, "b": 1})

    asyncio.run(run())


def test_a_forward_that_fails_is_answered_with_nothing(tmp_path: Path) -> None:
    async def answer(payload: memoryview) -> list:
        if payload == b"bad":
            raise RuntimeError("no")
        return [b"got ", payload]

    async def run() -> None:
        async with _Peers(tmp_path) as (server, client):
            server.start(on_forward=answer)
            client.start()
            assert bytes(await client.forward(b"good", timeout_s=10)) == b"got good"
            assert bytes(await client.forward(b"bad", timeout_s=10)) == b""

    asyncio.run(run())


def test_frames_sent_before_the_receiver_started_are_delivered(tmp_path: Path) -> None:
    async def run() -> None:
        async with _Peers(tmp_path) as (server, client):
            client.start()
            client.send(VIEW, b"early")
            await asyncio.sleep(0.05)
            got: list[bytes] = []
            server.start(on_frame=lambda kind, payload: got.append(bytes(payload)))
            assert got == [b"early"]

    asyncio.run(run())


def test_a_peer_whose_event_loop_stands_still_is_found_silent(tmp_path: Path) -> None:
    async def run() -> None:
        async with _Peers(tmp_path) as (server, client):
            client.start()  # the other end is open, and answers nothing
            with pytest.raises(TimeoutError):
                await client.until_silent(0.3, 0.01)
            server.start()
            watching = asyncio.ensure_future(client.until_silent(0.3, 0.01))
            await asyncio.sleep(0.05)
            server.close()
            with pytest.raises(LinkError):
                await watching

    asyncio.run(run())


def test_a_stall_of_ones_own_is_nobody_elses_silence(tmp_path: Path) -> None:
    async def run() -> None:
        async with _Peers(tmp_path) as (server, client):
            server.start()
            client.start()
            watching = asyncio.ensure_future(client.until_silent(2.0, 0.01))
            for _ in range(3):
                await asyncio.sleep(0.05)
                time.sleep(2.5)
            await asyncio.sleep(0.05)
            assert not watching.done()
            watching.cancel()

    asyncio.run(run())


def test_messages_survive_packing() -> None:
    view = View(3, 10, 1, 0, 42, LogPosition(0, 900), 40, LogPosition(0, 800), 50, 7, (0, 30))
    assert View.unpack(memoryview(view.pack())) == view
    *append, records = unpack_append(memoryview(pack_append(5, 9, -1, 4, 30_000) + b"batch"))
    assert append == [5, 9, -1, 4, 30_000] and bytes(records) == b"batch"
    appended = Appended(9, ErrorCode.NOT_ENOUGH_REPLICAS, message="isr is {1}")
    assert Appended.unpack(memoryview(appended.pack())) == appended


def test_who_is_cancelled_while_its_link_opens_stays_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would go on for ever: a loop that connects, and has been told to end."""

    async def scenario() -> None:
        class Watched(Link):
            def __init__(self, secret: bytes, identity: dict[str, Any], server_side: bool) -> None:
                super().__init__(secret, identity, server_side)
                if not server_side:
                    self.opened.add_done_callback(lambda _: connecting.cancel())

        monkeypatch.setattr(endpoints, "Link", Watched)
        path = str(tmp_path / "l.sock")
        server = await serve_unix(path, SECRET, {}, lambda link: link.start())
        connecting = asyncio.create_task(connect_unix(path, SECRET, {}))
        with pytest.raises(asyncio.CancelledError):
            await connecting
        server.close()

    asyncio.run(scenario())
