"""A listener with the whole data path behind it: large responses, slow clients, idle ones, and the stop."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from raykafka.broker.acceptor import Acceptor
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.front import listener
from raykafka.front.api import fetch
from raykafka.front.listener import Listener
from raykafka.log import LogReader
from raykafka.partition import log_view
from raykafka.process.tasks import TaskSet
from raykafka.protocol.gate import Gate
from raykafka.protocol.session import ClientSession
from raykafka.telemetry.durations import RequestDurations
from raykafka.types import TopicPartition
from tests.lab.client_frames import read_response, request
from tests.lab.dataplane import TOPIC, Dataplane, batch, decode_response, produce_body
from tests.lab.loop_waiting import until
from tests.lab.served import APIS

PRODUCE, FETCH, API_VERSIONS, HEARTBEAT = 0, 1, 18, 12
FETCH_VERSION = 10
MS = datetime.timedelta(milliseconds=1)


class Front:
    """A port, and a replica actor's listener that serves the connections that come through it."""

    def __init__(self, dataplane: Dataplane, **options: Any) -> None:
        self.listener = Listener("TEST", dataplane.server, **options)
        self.acceptor = Acceptor("TEST", "127.0.0.1", 0, self._take)
        self._adopting = TaskSet("adopting")

    def _take(self, name: str, connection: socket.socket) -> bool:
        self._adopting.run(self.listener.adopt(connection))
        return True

    async def stop(self) -> None:
        self.acceptor.stop()
        await self.listener.stop()


def run(directory: Path, test: Callable[[Dataplane, Front], Awaitable[None]], **options: Any) -> None:
    async def body() -> None:
        async with Dataplane(directory) as dataplane:
            front = Front(dataplane, **options)
            front.acceptor.bind()
            front.acceptor.start()
            try:
                await test(dataplane, front)
            finally:
                await front.stop()

    asyncio.run(asyncio.wait_for(body(), 60))


async def connect(front: Front) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", front.acceptor.port, limit=1 << 16)


async def begun(front: Front) -> None:
    """Returns when a request was begun that is not answered yet."""
    await until(lambda: any(connection._begun for connection in front.listener._connections))


def fetch_body(partitions: int, max_wait_ms: int = 0, offset: int = 0) -> bytes:
    """Of all partitions from ``offset``, outside a session."""
    head = struct.pack(">iiiibiii", -1, max_wait_ms, 1, 1 << 30, 0, 0, -1, 1)
    named = struct.pack(">h", len(TOPIC)) + TOPIC.encode() + struct.pack(">i", partitions)
    asked = b"".join(struct.pack(">iiqqi", p, -1, offset, -1, 1 << 30) for p in range(partitions))
    return head + named + asked + struct.pack(">i", 0)


async def fill(dataplane: Dataplane, partitions: int, megabytes: int) -> list[bytes]:
    """What each partition then holds, as the log stores it."""
    await dataplane.create(partitions=partitions)
    held = []
    for partition in range(partitions):
        for _ in range(megabytes):
            await dataplane.produce(batch(os.urandom(1_000_000)), partition=partition)
        host = dataplane.partitions.get((TOPIC, partition))
        assert host is not None
        held.append(bytes(await host.log.read(0, 1 << 30)))
    return held


def test_a_large_response_is_what_the_log_holds(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane, front: Front) -> None:
        held = await fill(dataplane, 3, 2)
        assert sum(map(len, held)) > fetch.STREAMED_ABOVE_BYTES
        reader, writer = await connect(front)
        writer.write(request(FETCH, FETCH_VERSION, 1, fetch_body(3)) + request(FETCH, FETCH_VERSION, 2, fetch_body(1)))
        for correlation, partitions in ((1, 3), (2, 1)):
            found, body = await read_response(reader)
            assert found == correlation
            answer = decode_response(FETCH, FETCH_VERSION, body)
            assert [bytes(p.records) for p in answer.responses[0].partitions] == held[:partitions]
        writer.close()

    run(tmp_path, test)


def test_a_large_response_to_a_slow_client_is_not_held_in_memory(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane, front: Front) -> None:
        (held,) = await fill(dataplane, 1, 24)
        reader, writer = await connect(front)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request(FETCH, FETCH_VERSION, 1, fetch_body(1)))
        while not (
            front.listener._connections and next(iter(front.listener._connections)).transport.get_write_buffer_size()
        ):
            await asyncio.sleep(0.005)
        (connection,) = front.listener._connections
        for _ in range(50):
            await asyncio.sleep(0.002)
            assert connection.transport.get_write_buffer_size() <= 2 * log_view.SLICE_CHUNK_BYTES
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        answer = decode_response(FETCH, FETCH_VERSION, (await read_response(reader))[1])
        assert answer.responses[0].partitions[0].records == held
        writer.close()

    run(tmp_path, test)


def test_a_response_that_can_not_be_sent_whole_closes_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_bytes, reads = LogReader.fetch_bytes, 0

    def cut_at_the_third(self: LogReader, *args: Any, **more: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 3:
            self.update(None, self.truncations + 1)
        return fetch_bytes(self, *args, **more)

    async def test(dataplane: Dataplane, front: Front) -> None:
        (held,) = await fill(dataplane, 1, 6)
        monkeypatch.setattr(LogReader, "fetch_bytes", cut_at_the_third)
        reader, writer = await connect(front)
        writer.write(request(FETCH, FETCH_VERSION, 1, fetch_body(1)))
        (length,) = struct.unpack(">i", await reader.readexactly(4))
        assert length > len(held)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await reader.readexactly(length)
        writer.close()

    run(tmp_path, test)


def test_a_client_reads_what_it_wrote_before_on_its_connection(tmp_path: Path) -> None:
    """Without waiting for the answers: produces to a partition whose log is being opened, then a fetch."""

    async def test(dataplane: Dataplane, front: Front) -> None:
        dataplane.opens = False
        await dataplane.create()
        reader, writer = await connect(front)
        count = 50
        for number in range(count):
            acks = (0, 1, -1)[number % 3]
            writer.write(request(PRODUCE, 3, number, produce_body(3, acks, [(TOPIC, [(0, batch(b"%d" % number))])])))
        writer.write(request(FETCH, FETCH_VERSION, count, fetch_body(1)))
        await begun(front)
        await dataplane.open(TopicPartition(TOPIC, 0))
        answered = [number for number in range(count) if number % 3]
        for number in answered:
            correlation, body = await read_response(reader)
            partition = decode_response(PRODUCE, 3, body).responses[0].partition_responses[0]
            assert (correlation, partition.base_offset, partition.error_code.value) == (number, number, 0)
        correlation, body = await read_response(reader)
        partition = decode_response(FETCH, FETCH_VERSION, body).responses[0].partitions[0]
        assert (correlation, partition.high_watermark) == (count, count)
        writer.close()

    run(tmp_path, test)


def test_an_idle_connection_is_closed_and_one_that_waits_is_not(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane, front: Front) -> None:
        await dataplane.create()
        idle, _ = await connect(front)
        waiting, writer = await connect(front)
        writer.write(request(FETCH, FETCH_VERSION, 1, fetch_body(1, max_wait_ms=3_600_000)))
        assert await idle.read() == b""
        await dataplane.produce(batch(b"a"))
        assert (await read_response(waiting))[0] == 1
        assert await waiting.read() == b""

    run(tmp_path, test, max_idle_ms=200)


def test_a_connection_that_stops_amid_a_request_is_closed_and_a_slow_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_STUCK_S", 0.2)

    async def test(dataplane: Dataplane, front: Front) -> None:
        await dataplane.create()
        stuck, half = await connect(front)
        only_a_length, announcing = await connect(front)
        slow, bytewise = await connect(front)
        half.write(request(FETCH, FETCH_VERSION, 1, fetch_body(1, max_wait_ms=0))[:20])
        announcing.write(b"\0\0")
        for byte in request(FETCH, FETCH_VERSION, 2, fetch_body(1, max_wait_ms=0)):
            bytewise.write(bytes([byte]))
            await asyncio.sleep(0.01)
        assert (await read_response(slow))[0] == 2
        assert await stuck.read() == await only_a_length.read() == b""
        assert front.listener.in_flight_bytes == 0

    run(tmp_path, test)


def test_a_stop_answers_what_was_begun_and_accepts_nothing(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane, front: Front) -> None:
        dataplane.opens = False
        await dataplane.create()
        reader, writer = await connect(front)
        writer.write(request(PRODUCE, 3, 1, produce_body(3, -1, [(TOPIC, [(0, batch(b"a"))])])))
        await begun(front)
        stopping = asyncio.ensure_future(front.stop())
        await asyncio.sleep(0)
        await dataplane.open(TopicPartition(TOPIC, 0))
        assert (await read_response(reader))[0] == 1
        assert await reader.read() == b""
        await stopping
        with pytest.raises(OSError):
            await connect(front)

    run(tmp_path, test)


def test_a_bound_listener_refuses_until_it_is_started(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane, front: Front) -> None:
        other = Front(dataplane)
        other.acceptor.bind()
        with pytest.raises(OSError):
            await connect(other)
        other.acceptor.start()
        _, writer = await connect(other)
        writer.close()
        await other.stop()

    run(tmp_path, test)


HEARTBEAT_V0 = b"\0\x01g\0\0\0\x01\0\x01m"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (KafkaError(ErrorCode.NOT_COORDINATOR), ErrorCode.NOT_COORDINATOR),
        (LinkError("gone"), ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (TimeoutError(), ErrorCode.COORDINATOR_NOT_AVAILABLE),
    ],
)
def test_a_request_that_can_not_be_forwarded_is_answered_retriable(
    failure: Exception, code: ErrorCode, tmp_path: Path
) -> None:
    async def test(dataplane: Dataplane, front: Front) -> None:
        async def forward(*_: object) -> memoryview:
            raise failure

        dataplane.server.forward_to_coordinator = forward  # type: ignore[assignment]
        reader, writer = await connect(front)
        writer.write(request(HEARTBEAT, 0, 5, HEARTBEAT_V0))
        assert await read_response(reader) == (5, struct.pack(">h", code))
        writer.close()

    run(tmp_path, test)


def test_a_forwarded_answer_goes_back_as_it_is_and_an_empty_one_closes(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane, front: Front) -> None:
        answers = [memoryview(b"\0\0"), memoryview(b"")]

        async def forward(*_: object) -> memoryview:
            return answers.pop(0)

        dataplane.server.forward_to_coordinator = forward  # type: ignore[assignment]
        reader, writer = await connect(front)
        writer.write(request(HEARTBEAT, 0, 5, HEARTBEAT_V0) + request(HEARTBEAT, 0, 6, HEARTBEAT_V0))
        assert await read_response(reader) == (5, b"\0\0")
        assert await reader.read() == b""
        writer.close()

    run(tmp_path, test)


class Charging:
    """Quotas that earn a throttle time for each request of one kind of charge."""

    def __init__(self, kind: str, throttle_ms: int) -> None:
        self.kind = kind
        self.throttle_ms = throttle_ms

    def charge(self, session: ClientSession, client_id: str | None, kind: str, amount: int) -> int:
        return self.throttle_ms if kind == self.kind else 0


@pytest.mark.parametrize("kind", ["request", "produce"])
def test_a_connection_is_mute_for_as_long_as_its_charge_says_and_others_are_not(kind: str, tmp_path: Path) -> None:
    """Two requests that come at once: the first is answered at once with its throttle time, the second is begun only
    after that time; what another connection asks meanwhile is answered."""
    throttle_ms = 400

    async def test(dataplane: Dataplane, front: Front) -> None:
        await dataplane.create()
        await dataplane.produce(batch(b"woken"))
        dataplane.gate = Gate(APIS, quotas=Charging(kind, throttle_ms))
        loop = asyncio.get_running_loop()
        reader, writer = await connect(front)
        began = loop.time()
        one = produce_body(3, -1, [(TOPIC, [(0, batch(b"a"))])])
        writer.write(request(PRODUCE, 3, 1, one) + request(FETCH, FETCH_VERSION, 2, fetch_body(1)))
        correlation, body = await read_response(reader)
        assert (correlation, decode_response(PRODUCE, 3, body).throttle_time // MS) == (1, throttle_ms)
        answered = loop.time()
        (connection,) = front.listener._connections
        assert not connection.is_idle and not connection._begun
        dataplane.gate = Gate(APIS)
        other, other_writer = await connect(front)
        other_writer.write(request(FETCH, FETCH_VERSION, 3, fetch_body(1)))
        assert (await read_response(other))[0] == 3
        assert connection._waiting and not connection._begun, "begun while it was mute"
        correlation, body = await read_response(reader)
        assert (correlation, decode_response(FETCH, FETCH_VERSION, body).throttle_time // MS) == (2, 0)
        assert loop.time() - began >= throttle_ms / 1000
        assert answered - began < throttle_ms / 1000, "the throttle time was waited for before the answer"
        other_writer.close()
        writer.close()

    run(tmp_path, test)


def test_a_mute_connection_is_not_read(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane, front: Front) -> None:
        dataplane.gate = Gate(APIS, quotas=Charging("request", 3_600_000))
        reader, writer = await connect(front)
        writer.write(request(API_VERSIONS, 2, 1))
        correlation, body = await read_response(reader)
        assert (correlation, decode_response(API_VERSIONS, 2, body).throttle_time // MS) == (1, 3_600_000)
        (connection,) = front.listener._connections
        assert not connection.transport.is_reading()
        connection.resume_writing()
        assert not connection.transport.is_reading()
        writer.close()

    run(tmp_path, test)


def test_a_client_tells_its_software_once_and_its_connection_knows_it(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane, front: Front) -> None:
        reader, writer = await connect(front)
        writer.write(request(API_VERSIONS, 3, 1, b"\x05java\x043.9\x00"))
        await read_response(reader)
        (connection,) = front.listener._connections
        session = connection.session
        assert (session.listener, session.host, session.principal) == ("TEST", "127.0.0.1", "User:ANONYMOUS")
        assert (session.software_name, session.software_version) == ("java", "3.9")
        writer.close()

    run(tmp_path, test)


def test_phases_of_a_request_add_up_to_its_whole_time(tmp_path: Path) -> None:
    durations = RequestDurations()

    async def test(dataplane: Dataplane, front: Front) -> None:
        dataplane.opens = False
        await dataplane.create()
        reader, writer = await connect(front)
        one = produce_body(3, -1, [(TOPIC, [(0, batch(b"a"))])])
        writer.write(
            request(PRODUCE, 3, 1, one)
            + request(FETCH, FETCH_VERSION, 2, fetch_body(1))
            + request(FETCH, FETCH_VERSION, 3, fetch_body(1, max_wait_ms=30, offset=1))
        )
        await begun(front)
        await asyncio.sleep(0.05)  # this long at least the produce waits for its replica, and the fetch for the produce
        await dataplane.open(TopicPartition(TOPIC, 0))
        for correlation in (1, 2, 3):
            assert (await read_response(reader))[0] == correlation
        writer.close()

    run(tmp_path, test, durations=durations)
    sums = {(request, phase): histogram.sum_ns / 1e6 for request, phase, histogram in durations.phases()}
    counts = {(request, phase): sum(histogram.counts) for request, phase, histogram in durations.phases()}
    phases = ("queue", "local", "remote")
    assert {(request, phase): 1 + (request == "Fetch") for request, phase in counts} == counts
    for name in ("Produce", "Fetch"):
        assert sums[name, "total"] == pytest.approx(sum(sums[name, phase] for phase in phases))
    assert sums["Produce", "queue"] == 0 and sums["Produce", "remote"] >= 50
    assert sums["Fetch", "queue"] >= 50 and sums["Fetch", "remote"] >= 30


# of the end of the log, with 30 ms to wait
