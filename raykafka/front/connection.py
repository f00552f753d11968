"""One client's connection: requests in, answers out in the order in which the requests came.

Kafka serves one request of a connection at a time. We keep all that a client could observe of that, and no more:
Produce requests that follow one another are handed to their replicas in order without waiting for each other's answers;
any other request begins when everything before it has been answered, so a client reads what it wrote.

Memory is bounded: a connection with enough requests waiting, or whose client does not take its answers, is not read.
Nor is one that has a request waiting while all connections of its listener together have enough (``InFlight``). What
counts is the memory that requests came in, for as long as anybody holds any of it: records that are in the log and wait
for followers hold none of it, unless those followers have yet to be sent them.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from raykafka.error_code import ErrorCode
from raykafka.errors import UnanswerableRequestError
from raykafka.front.api import api_versions
from raykafka.front.routes import Routes, parse_header
from raykafka.link.frames import FrameProtocol
from raykafka.process.clock import boot_clock_ns
from raykafka.protocol import codec
from raykafka.protocol.answer import Answer, Buffer, StreamedResponse
from raykafka.protocol.context import RequestContext
from raykafka.protocol.registry import Api
from raykafka.protocol.session import ClientSession
from raykafka.protocol.wire import MalformedError

PRODUCE = 0
MAX_BYTES_IN_FLIGHT = 32 * 1024 * 1024
MAX_REQUESTS_IN_FLIGHT = 256
_WRITE_BUFFER_BYTES = 1024 * 1024

_RESPONSE_HEADER = struct.Struct(">ii")

logger = logging.getLogger(__name__)

Dispatch = Callable[[Api, RequestContext, memoryview], Awaitable[list[Buffer]]]


class _Frame(bytearray):
    """The memory that a request came in. It can be told when nobody holds it any more."""

    __slots__ = ("__weakref__",)


class InFlight:
    """The bytes of all requests that came through a listener and are still held, and how many it means to hold at
    most."""

    __slots__ = ("limit", "owners", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.owners: set[KafkaConnection] = set()  # kept, also when they have ended: they are told of what is let go


class _Request:
    """A request that was begun. ``response`` is None until it is answered; ``closes``: the connection ends there."""

    __slots__ = ("closes", "context", "flexible_header", "response", "streaming", "task")

    def __init__(self, context: RequestContext, flexible_header: bool) -> None:
        self.context = context
        self.flexible_header = flexible_header
        self.task: asyncio.Future[Any] | None = None
        self.response: list[Buffer] | None = None
        self.closes = False
        self.streaming = False


class KafkaConnection(FrameProtocol):
    """``dispatch(api, context, body)`` answers one request; what it begins before it returns its awaitable keeps the
    order of the calls. The connection is a member of ``connections`` while it is open. ``answered(api_key, total_ns,
    queue_ns, remote_ns)`` is told how long each request took."""

    frame_type = _Frame

    def __init__(
        self,
        listener: str,
        routes: Routes,
        dispatch: Dispatch,
        connections: set[KafkaConnection],
        in_flight: InFlight,
        max_request_bytes: int,
        answered: Callable[[int, int, int, int], None] | None = None,
    ) -> None:
        super().__init__()
        self.max_frame_bytes = max_request_bytes
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._last_active_ns = boot_clock_ns()
        self._routes = routes
        self._dispatch = dispatch
        self._connections = connections
        self._in_flight = in_flight
        self._answered = answered
        self.session = ClientSession("", listener)
        self._waiting: deque[tuple[memoryview, int]] = deque()
        self._begun: deque[_Request] = deque()
        self._produces_only = True
        self._answering = False
        self._held: dict[int, tuple[weakref.ref[Any], int]] = {}  # by the reference's id: it has no hash
        self._bytes = 0
        self._thread = threading.get_ident()
        self._reading = True
        self._mute: asyncio.TimerHandle | None = None
        self._partial_before: tuple[int, int] | None = None
        self._partial_since_ns = 0
        self._finishing = False
        self._ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        peer = transport.get_extra_info("peername")
        self.session.host = peer[0] if peer else ""
        self._connections.add(self)

    def closed(self, error: Exception | None) -> None:
        self._ending = True
        self._connections.discard(self)
        self._waiting.clear()
        self._unmute()
        for request in self._begun:
            if request.task is not None and not request.task.done():
                request.task.cancel()
        self._begun.clear()
        if not self.ended.done():
            self.ended.set_result(None)

    def hold(self) -> None:
        """Take and answer nothing any more, though the connection stays open."""
        self._ending = True
        self._waiting.clear()
        self._unmute()

    def finish(self) -> None:
        """Begin nothing more; close once what was begun is answered."""
        self._finishing = True
        self._waiting.clear()
        self._unmute()
        if not self._begun:
            self._ending = True
            self.transport.close()

    @property
    def is_idle(self) -> bool:
        """True while no request of this connection waits for its answer, and none is held back by a throttle time."""
        return not self._begun and not self._waiting and self._mute is None

    @property
    def idle_ms(self) -> float:
        """How long ago the last request came or the last answer went."""
        return (boot_clock_ns() - self._last_active_ns) / 1e6

    def partial_took(self, size: int) -> None:
        self._in_flight.used += size

    def stuck_s(self) -> float:
        """For how long nothing more has come of a request that has begun to come, though it was read: as far as it was
        looked at, by calling this."""
        partial, now_ns = self.partial, boot_clock_ns()
        if partial is None or partial != self._partial_before or not self._reading:
            self._partial_before, self._partial_since_ns = partial, now_ns
        return (now_ns - self._partial_since_ns) / 1e9

    # requests

    def frame_received(self, frame: memoryview) -> None:
        if self._ending or self._finishing:
            return
        self._last_active_ns = received_ns = boot_clock_ns()
        size = len(frame)
        held = weakref.ref(frame.obj, self._let_go)
        if not self._held:
            self._in_flight.owners.add(self)
        self._held[id(held)] = held, size
        self._bytes += size
        self._in_flight.used += size
        self._waiting.append((frame, received_ns))
        del frame
        self._begin_waiting(received_ns)
        self._read_or_pause()

    def _let_go(self, frame: weakref.ref[Any]) -> None:
        """Nobody holds that request's memory any more. Called by whoever held it last."""
        if threading.get_ident() == self._thread:
            self._given_back(frame)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._given_back, frame)

    def _given_back(self, frame: weakref.ref[Any]) -> None:
        _, size = self._held.pop(id(frame))
        if not self._held:
            self._in_flight.owners.discard(self)
        self._bytes -= size
        self._in_flight.used -= size
        if not self._reading:
            self._loop.call_soon(self._read_or_pause)

    def _begin_waiting(self, now_ns: int = 0) -> None:
        """Begin what may begin. ``now_ns`` is the time, where the caller has it already."""
        waiting, begun = self._waiting, self._begun
        while waiting and not self._ending and self._writable and self._mute is None:
            frame, received_ns = waiting[0]
            is_produce = len(frame) > 1 and frame[0] == 0 and frame[1] == PRODUCE
            if begun and not (is_produce and self._produces_only):
                return
            waiting.popleft()
            self._produces_only = is_produce
            self._begin(frame, received_ns, now_ns or boot_clock_ns())
            del frame

    def _begin(self, frame: memoryview, received_ns: int, now_ns: int) -> None:
        try:
            key, version, correlation, client_id, body_start, route = parse_header(frame, self._routes)
        except (MalformedError, UnanswerableRequestError) as error:
            unknown = RequestContext(-1, -1, -1, None, self.session, received_ns)
            request = _Request(unknown, False)
            self._begun.append(request)
            self._close_at(request, str(error))
            return
        context = RequestContext(key, version, correlation, client_id, self.session, received_ns)
        context.begun_ns = now_ns
        request = _Request(context, route.flexible_response)
        self._begun.append(request)
        if not route.serves:
            refusal = api_versions.response(self._routes.apis, 0, ErrorCode.UNSUPPORTED_VERSION)
            request.response = [codec.encode_response(key, 0, refusal)]
            self._answer_soon()
            return
        try:
            answer = self._dispatch(route.api, context, frame[body_start:])
        except UnanswerableRequestError as error:
            self._close_at(request, str(error))
            return
        except Exception as error:
            logger.exception("API %d v%d failed", key, version)
            self._close_at(request, str(error))
            return
        if isinstance(answer, Answer):
            context.waits_from_ns = boot_clock_ns()
            answer.then(partial(self._given, request))
        else:
            request.task = asyncio.ensure_future(answer)
            request.task.add_done_callback(partial(self._task_done, request))

    # answers

    def _given(self, request: _Request, answer: Answer) -> None:
        if answer.error is None:
            request.response = answer.buffers
            self._answer_soon()
        else:
            self._failed(request, answer.error)

    def _task_done(self, request: _Request, task: asyncio.Future[list[Buffer]]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            request.response = task.result()
            self._answer_soon()
        else:
            self._failed(request, error)

    def _failed(self, request: _Request, error: BaseException) -> None:
        if not isinstance(error, UnanswerableRequestError):
            context = request.context
            logger.error("API %d v%d failed", context.api_key, context.api_version, exc_info=error)
        self._close_at(request, str(error))

    def _close_at(self, request: _Request, reason: str) -> None:
        """End the connection once everything before ``request`` has been answered."""
        if not self._ending:
            logger.warning("closing the connection from %s on %s: %s", self.session.host, self.session.listener, reason)
        request.closes = True
        request.response = []
        self._answer_soon()

    def _answer_soon(self) -> None:
        """Answers that are given in one pass of the event loop go out in one write."""
        if not self._answering:
            self._answering = True
            self._loop.call_soon(self._answer)

    def _answer(self) -> None:
        self._answering = False
        if self._ending:
            return
        out: list[Buffer] = []
        begun, throttle_ms, now_ns = self._begun, 0, boot_clock_ns()
        while begun and begun[0].response is not None:
            request = begun[0]
            if isinstance(request.response, StreamedResponse):
                if not request.streaming:
                    request.streaming = True
                    _append_head(out, request)
                    request.task = asyncio.ensure_future(self._stream(request.response))
                    request.task.add_done_callback(partial(self._streamed, request))
                break
            begun.popleft()
            if request.closes:
                self._ending = True
                break
            context = request.context
            if context.throttle_ms > throttle_ms:
                throttle_ms = context.throttle_ms
            if self._answered is not None:
                remote_ns = context.waited_ns
                if context.waits_from_ns:
                    remote_ns += now_ns - context.waits_from_ns
                received_ns = context.received_ns
                self._answered(context.api_key, now_ns - received_ns, context.begun_ns - received_ns, remote_ns)
            if request.response:
                _append_head(out, request)
                out.extend(request.response)
        if out:
            self._last_active_ns = now_ns
            self.transport.writelines(out)
        if self._ending or (self._finishing and not begun):
            self._ending = True
            self.transport.close()
            return
        if throttle_ms:
            self._mute_for(throttle_ms)
        if self._waiting:
            self._begin_waiting()
        if not self._reading:
            self._read_or_pause()

    async def _stream(self, response: StreamedResponse) -> None:
        """Send a response as fast as the client takes it."""
        for part in response:
            if isinstance(part, Buffer):
                self.transport.write(part)
                continue
            async for chunk in part.chunks():
                self.transport.write(chunk)
                await self.drained()

    def _streamed(self, request: _Request, task: asyncio.Future[Any]) -> None:
        if self._ending or task.cancelled():
            return
        error = task.exception()
        if error is not None:
            # part of the response is out: the client must not take what follows for the rest of it (rule 21)
            logger.warning("a response to %s on %s was cut short: %s", self.session.host, self.session.listener, error)
            self._ending = True
            self.transport.abort()
            return
        request.response = []
        self._answer_soon()

    # backpressure

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_or_pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._ending:
            self._begin_waiting()
            self._read_or_pause()

    def _read_or_pause(self) -> None:
        requests = len(self._waiting) + len(self._begun)
        if self._mute is not None or self._ending:
            return
        if self._reading:
            too_much = self._bytes > MAX_BYTES_IN_FLIGHT or self._in_flight.used > self._in_flight.limit
            if requests and (too_much or not self._writable or requests > MAX_REQUESTS_IN_FLIGHT):
                self._pause(True)
        elif self._writable and (
            not requests
            or (
                self._bytes <= MAX_BYTES_IN_FLIGHT // 2
                and requests <= MAX_REQUESTS_IN_FLIGHT // 2
                and self._in_flight.used <= self._in_flight.limit
            )
        ):
            self._pause(False)

    def _mute_for(self, throttle_ms: int) -> None:
        """Read nothing and begin nothing for so long: the answer that told the client of it is on its way (KIP-219)."""
        until = self._loop.time() + throttle_ms / 1000
        if self._mute is not None:
            until = max(until, self._mute.when())
            self._mute.cancel()
        self._mute = self._loop.call_at(until, self._listen_again)
        if self._reading:
            self._pause(True)

    def _listen_again(self) -> None:
        self._mute = None
        self._begin_waiting()
        self._read_or_pause()

    def _unmute(self) -> None:
        if self._mute is not None:
            self._mute.cancel()
            self._mute = None

    def _pause(self, pause: bool) -> None:
        if self._ending or self.transport.is_closing():
            return
        self._reading = not pause
        if pause:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


def _append_head(out: list[Buffer], request: _Request) -> None:
    assert request.response is not None
    length = 4 + request.flexible_header
    for part in request.response:
        length += len(part)
    header = _RESPONSE_HEADER.pack(length, request.context.correlation_id)
    out.append(header + b"\0" if request.flexible_header else header)
