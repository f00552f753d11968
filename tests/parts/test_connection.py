"""A client's connection to a listener: order, bounds, what closes it. Real sockets; handlers that the test steers."""

from __future__ import annotations

import asyncio
import gc
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace

import pytest

from raykafka.errors import UnanswerableRequestError
from raykafka.front import connection as connection_module
from raykafka.front.connection import InFlight, KafkaConnection
from raykafka.front.routes import Routes
from raykafka.protocol import dispatch
from raykafka.protocol.answer import Buffer, StreamedResponse
from raykafka.protocol.context import RequestContext
from raykafka.protocol.registry import Api
from raykafka.protocol.wire import MalformedError
from tests.lab.client_frames import read_response, request
from tests.lab.served import APIS, GATE

ROUTES = Routes(APIS)
API_VERSIONS = 18
PRODUCE = 0


class Steered:
    """A dispatch whose answers the test gives, that notes the order in which requests were begun, and ``holds`` their
    bodies until they are answered."""

    def __init__(self, *, holds: bool = True) -> None:
        self.holds = holds
        self.begun: list[int] = []
        self.throttle_ms: dict[int, int] = {}
        self.answers: dict[int, asyncio.Future[list[Buffer]]] = {}
        self.held: dict[int, memoryview] = {}
        self.arrived = asyncio.Event()

    def __call__(self, api: Api, context: RequestContext, body: memoryview) -> Awaitable[list[Buffer]]:
        self.begun.append(context.correlation_id)
        context.throttle_ms = self.throttle_ms.get(context.correlation_id, 0)
        number = context.correlation_id
        answer = self.answers[number] = asyncio.get_running_loop().create_future()
        if self.holds:
            self.held[number] = body
            answer.add_done_callback(lambda _: self.held.pop(number))
        self.arrived.set()
        return answer

    async def until(self, condition: Callable[..., bool]) -> None:
        while not condition():
            self.arrived.clear()
            await self.arrived.wait()


class Server:
    """``queued_ns`` has how long each request waited for its turn, in the order of their answers."""

    def __init__(self, dispatch: Callable[[Api, RequestContext, memoryview], Awaitable[list[Buffer]]]) -> None:
        self.dispatch = dispatch
        self.queued_ns: list[int] = []
        self.connections: set[KafkaConnection] = set()
        self.in_flight = InFlight(1 << 30)
        self.server: asyncio.Server | None = None

    async def __aenter__(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(
            lambda: KafkaConnection(
                "TEST", ROUTES, self.dispatch, self.connections, self.in_flight, 1 << 20, self._answered
            ),
            "127.0.0.1",
            0,
        )
        self.reader, self.writer = await asyncio.open_connection(*self.server.sockets[0].getsockname())
        return self.reader, self.writer

    def _answered(self, api_key: int, total_ns: int, queued_ns: int, remote_ns: int) -> None:
        self.queued_ns.append(queued_ns)

    async def __aexit__(self, *exc: object) -> None:
        self.writer.close()
        assert self.server is not None
        self.server.close()
        for connection in list(self.connections):
            connection.transport.abort()


async def turns(count: int = 20) -> None:
    """Let everything that is ready run. What must NOT happen has had its chance then."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_produces_begin_together_and_are_answered_in_order() -> None:
    async def run() -> None:
        steered = Steered()
        async with Server(steered) as (reader, writer):
            writer.write(b"".join(request(PRODUCE, 3, i) for i in range(4)))
            await steered.until(lambda: len(steered.begun) == 4)
            assert steered.begun == [0, 1, 2, 3]
            for i in (3, 1, 2):
                steered.answers[i].set_result([b"r%d" % i])
            await turns()
            assert not reader._buffer  # type: ignore[attr-defined]
            steered.answers[0].set_result([b"r", b"0"])
            assert [await read_response(reader) for _ in range(4)] == [(i, b"r%d" % i) for i in range(4)]

    asyncio.run(run())


def test_other_requests_wait_for_the_produces_before_them_and_hold_those_behind() -> None:
    async def run() -> None:
        steered = Steered()
        async with Server(steered) as (reader, writer):
            writer.write(request(PRODUCE, 3, 1) + request(PRODUCE, 3, 2))
            writer.write(request(API_VERSIONS, 0, 3) + request(PRODUCE, 3, 4) + request(API_VERSIONS, 0, 5))
            await steered.until(lambda: len(steered.begun) == 2)
            steered.answers[2].set_result([b"2"])
            await turns()
            assert steered.begun == [1, 2]
            steered.answers[1].set_result([b"1"])
            await steered.until(lambda: len(steered.begun) == 3)
            await turns()
            assert steered.begun == [1, 2, 3]
            steered.answers[3].set_result([b"3"])
            await steered.until(lambda: len(steered.begun) == 4)
            steered.answers[4].set_result([])
            await steered.until(lambda: len(steered.begun) == 5)
            steered.answers[5].set_result([b"5"])
            got = [await read_response(reader) for _ in range(4)]
            assert got == [(1, b"1"), (2, b"2"), (3, b"3"), (5, b"5")]

    asyncio.run(run())


def test_a_failed_request_closes_the_connection_after_the_answers_before_it() -> None:
    async def run() -> None:
        steered = Steered()
        async with Server(steered) as (reader, writer):
            writer.write(request(PRODUCE, 3, 1) + request(PRODUCE, 3, 2) + request(PRODUCE, 3, 3))
            await steered.until(lambda: len(steered.begun) == 3)
            steered.answers[2].set_exception(UnanswerableRequestError("acks=0 failed"))
            steered.answers[3].set_result([b"3"])
            steered.answers[1].set_result([b"1"])
            assert await read_response(reader) == (1, b"1")
            assert await reader.read() == b""

    asyncio.run(run())


@pytest.mark.parametrize(
    "bad",
    [
        struct.pack(">i", 3) + b"abc",
        struct.pack(">ihhih", 10, 999, 0, 1, -1),
        struct.pack(">ihhih", 10, 3, 99, 1, -1),
        struct.pack(">ihhih", 10, 18, 0, 1, 50),
        struct.pack(">ihhih", 10, 18, 0, 1, -2),
        struct.pack(">ihhih", 12, 18, 0, 1, 2) + b"\xff\xff",
        struct.pack(">i", (1 << 20) + 1),
        struct.pack(">i", -1),
    ],
    ids=[
        "short",
        "unknown api",
        "unserved version",
        "client id cut",
        "client id length",
        "not utf-8",
        "large",
        "minus",
    ],
)
def test_what_is_no_request_closes_the_connection(bad: bytes) -> None:
    async def run() -> None:
        steered = Steered()
        async with Server(steered) as (reader, writer):
            writer.write(bad)
            assert await reader.read() == b""
            assert steered.begun == []

    asyncio.run(run())


def test_api_versions_of_an_unknown_version_is_answered_in_version_0() -> None:
    async def run() -> None:
        steered = Steered()
        async with Server(steered) as (reader, writer):
            for correlation in range(3000):  # many at once must not nest
                writer.write(struct.pack(">ihhih", 10, API_VERSIONS, 99, correlation, -1))
            for correlation in range(3000):
                assert await read_response(reader) == (correlation, struct.pack(">hihhh", 35, 1, 18, 0, 4))

    asyncio.run(run())


@pytest.mark.parametrize("version", range(5))
def test_api_versions_lists_every_served_api(version: int) -> None:
    class Nothing:
        def __call__(self, api: Api, context: RequestContext, body: memoryview) -> Awaitable[list[Buffer]]:
            return dispatch.answer(api, SimpleNamespace(gate=GATE), context, body)

    async def run() -> None:
        body = b"\x05java\x041.0\x00" if version >= 3 else b""
        async with Server(Nothing()) as (reader, writer):
            writer.write(request(API_VERSIONS, version, 7, body))
            correlation, answer = await read_response(reader)
        assert correlation == 7
        assert answer[:2] == b"\0\0"
        for api in APIS:
            assert struct.pack(">hhh", api.key, *api.advertised) in answer

    asyncio.run(run())


def test_a_client_that_stops_reading_is_not_read_and_holds_bounded_memory() -> None:
    answer = b"x" * 100_000

    async def run() -> None:
        begun = 0

        async def serve(api: Api, context: RequestContext, body: memoryview) -> list[Buffer]:
            nonlocal begun
            begun += 1
            return [answer]

        server = Server(serve)
        async with server as (reader, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            sent = 0
            while not writer.transport.get_write_buffer_size() and sent < 10_000:
                writer.write(request(API_VERSIONS, 0, sent, client_id="x" * 30_000))
                sent += 1
                await turns(2)
            assert sent < 10_000, "the server kept reading"
            (connection,) = server.connections
            buffered = connection.transport.get_write_buffer_size()
            assert buffered <= 2 * connection_module._WRITE_BUFFER_BYTES + len(answer)
            assert len(connection._waiting) <= connection_module.MAX_REQUESTS_IN_FLIGHT + 64
            assert begun < sent
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            for correlation in range(sent):
                assert (await read_response(reader))[0] == correlation
            assert begun == sent

    asyncio.run(run())


def test_requests_in_flight_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "MAX_BYTES_IN_FLIGHT", 100_000)

    async def run() -> None:
        steered = Steered()
        server = Server(steered)
        async with server as (reader, writer):
            body = b"x" * 60_000
            for i in range(100):
                writer.write(request(PRODUCE, 3, i, body))
            await steered.until(lambda: len(steered.begun) >= 2)
            await turns(100)
            assert len(steered.begun) <= 4
            for i in range(100):
                await steered.until(lambda i=i: i in steered.answers)
                steered.answers[i].set_result([b"%d" % i])
                assert await read_response(reader) == (i, b"%d" % i)

    asyncio.run(run())


def test_requests_whose_memory_nobody_holds_are_not_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a Produce that waits for its followers: what is in the log needs no request."""
    monkeypatch.setattr(connection_module, "MAX_BYTES_IN_FLIGHT", 100_000)

    async def run() -> None:
        steered = Steered(holds=False)
        server = Server(steered)
        server.in_flight.limit = 100_000
        async with server as (reader, writer):
            for i in range(100):
                writer.write(request(PRODUCE, 3, i, b"x" * 60_000))
            await steered.until(lambda: len(steered.begun) == 100)
            assert server.in_flight.used == 0
            for i in range(100):
                steered.answers[i].set_result([b"%d" % i])
            assert [(await read_response(reader))[0] for _ in range(100)] == list(range(100))

    asyncio.run(run())


def test_memory_that_outlives_its_connection_is_in_flight_until_it_is_let_go() -> None:
    async def run() -> None:
        steered = Steered(holds=False)
        server = Server(steered)
        kept: list[memoryview] = []
        dispatch = server.dispatch

        def keeping(api: Api, context: RequestContext, body: memoryview) -> Awaitable[list[Buffer]]:
            kept.append(body[:10])
            return dispatch(api, context, body)

        server.dispatch = keeping
        async with server as (_, writer):
            writer.write(request(PRODUCE, 3, 0, b"x" * 60_000))
            await steered.until(lambda: 0 in steered.answers)
            writer.close()
            while server.connections:
                await asyncio.sleep(0.005)
            steered.answers.clear()
            gc.collect()
            assert server.in_flight.used > 60_000
            kept.clear()
            await turns()
            assert server.in_flight.used == 0

    asyncio.run(asyncio.wait_for(run(), 30))


def test_memory_that_a_thread_let_go_last_is_in_flight_no_more() -> None:
    async def run() -> None:
        steered = Steered()
        server = Server(steered)
        server.in_flight.limit = 50_000
        async with server as (_, writer):
            writer.write(request(PRODUCE, 3, 0, b"x" * 60_000) + request(PRODUCE, 3, 1, b"y"))
            await steered.until(lambda: 0 in steered.held)
            kept, go = [steered.held[0][100:200]], threading.Event()

            def let_go() -> None:
                go.wait(30)
                kept.clear()

            thread = threading.Thread(target=let_go)
            thread.start()
            steered.answers[0].set_result([b"a"])
            await turns()
            assert server.in_flight.used > 60_000
            go.set()
            while server.in_flight.used > 60_000:
                await asyncio.sleep(0.005)
            thread.join()
            await steered.until(lambda: 1 in steered.answers)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_all_connections_together_are_bounded_and_each_may_have_one_request() -> None:
    async def run() -> None:
        steered = Steered()
        server = Server(steered)
        server.in_flight.limit = 100_000
        async with server as (reader, writer):
            assert server.server is not None
            others = [await asyncio.open_connection(*server.server.sockets[0].getsockname()) for _ in range(3)]
            everybody = [(reader, writer), *others]
            body = b"x" * 60_000
            for number, (_, w) in enumerate(everybody):
                for i in range(20):
                    w.write(request(PRODUCE, 3, 100 * number + i, body))
            await steered.until(lambda: len({correlation // 100 for correlation in steered.begun}) == 4)
            await turns(100)
            assert server.in_flight.used <= 4 * 2 * 61_000
            for i in range(20):
                for number, (r, _) in enumerate(everybody):
                    correlation = 100 * number + i
                    await steered.until(lambda c=correlation: c in steered.answers)
                    steered.answers[correlation].set_result([b"a"])
                    assert await read_response(r) == (correlation, b"a")
            assert server.in_flight.used == 0
            for number, (_, w) in enumerate(others):
                w.write(request(PRODUCE, 3, 9000 + number, body))
                w.close()
            await steered.until(lambda: all(9000 + number in steered.answers for number in range(3)))
            assert server.in_flight.used > 2 * len(body)
            for number in range(3):
                if not steered.answers[9000 + number].done():
                    steered.answers[9000 + number].set_result([b"a"])
            while len(server.connections) > 1:
                await asyncio.sleep(0.005)
            assert server.in_flight.used == 0

    asyncio.run(run())


def test_an_answer_that_waits_is_cancelled_when_the_client_is_gone() -> None:
    async def run() -> None:
        steered = Steered()
        async with Server(steered) as (_, writer):
            writer.write(request(API_VERSIONS, 0, 1))
            await steered.until(lambda: len(steered.begun) == 1)
            writer.transport.abort()
            await asyncio.wait([steered.answers[1]])
            assert steered.answers[1].cancelled()

    asyncio.run(run())


def test_header_with_tags_and_null_client_id_is_read() -> None:
    frame = struct.pack(">hhih", API_VERSIONS, 3, 9, -1) + b"\x02\x05\x03abc\x81\x01\x00body"
    key, version, correlation, client_id, start, _ = connection_module.parse_header(memoryview(frame), ROUTES)
    assert (key, version, correlation, client_id, frame[start:]) == (API_VERSIONS, 3, 9, None, b"body")
    with pytest.raises(MalformedError):
        connection_module.parse_header(memoryview(frame[:-6]), ROUTES)


HELD_S = 0.03


class Late:
    """A part of a response that is there HELD_S after it is asked for."""

    def __len__(self) -> int:
        return 4

    async def chunks(self) -> AsyncIterator[memoryview]:
        await asyncio.sleep(HELD_S)
        yield memoryview(b"late")


async def _behind_a_streamed_response(server: Server, steered: Steered) -> None:
    server.writer.write(request(API_VERSIONS, 0, 1))
    await steered.until(lambda: steered.begun == [1])
    steered.answers[1].set_result(StreamedResponse([Late()]))
    await turns()
    server.writer.write(request(API_VERSIONS, 0, 2))


async def _behind_a_produce_without_an_answer(server: Server, steered: Steered) -> None:
    server.writer.write(request(PRODUCE, 3, 1) + request(API_VERSIONS, 0, 2))
    await steered.until(lambda: steered.begun == [1])
    await asyncio.sleep(HELD_S)
    steered.answers[1].set_result([])


async def _while_answers_are_not_taken(server: Server, steered: Steered) -> None:
    server.writer.write(request(API_VERSIONS, 0, 1) + request(API_VERSIONS, 0, 2))
    await steered.until(lambda: steered.begun == [1])
    (connection,) = server.connections
    connection.pause_writing()
    steered.answers[1].set_result([])
    await asyncio.sleep(HELD_S)
    connection.resume_writing()


async def _while_muted(server: Server, steered: Steered) -> None:
    steered.throttle_ms[1] = int(HELD_S * 1000)
    server.writer.write(request(API_VERSIONS, 0, 1) + request(API_VERSIONS, 0, 2))
    await steered.until(lambda: steered.begun == [1])
    steered.answers[1].set_result([])


@pytest.mark.parametrize(
    "waits",
    [
        _behind_a_streamed_response,
        _behind_a_produce_without_an_answer,
        _while_answers_are_not_taken,
        _while_muted,
    ],
)
def test_what_keeps_a_request_from_its_turn_is_told_as_queued(
    waits: Callable[[Server, Steered], Awaitable[None]],
) -> None:
    async def run() -> None:
        steered = Steered()
        server = Server(steered)
        async with server:
            await waits(server, steered)
            async with asyncio.timeout(30):
                await steered.until(lambda: len(steered.begun) == 2)
                steered.answers[2].set_result([b"2"])
                while len(server.queued_ns) < 2:
                    await asyncio.sleep(0)
            assert server.queued_ns[0] == 0
            assert server.queued_ns[1] >= 0.8 * HELD_S * 1e9

    asyncio.run(run())
