"""One client's connection: requests in, answers out in the order in which the requests came.

Kafka serves one request of a connection at a time. We keep all that a client could observe of that, and no more:
Produce requests that follow one another are handed to their replicas in order without waiting for each other's answers;
any other request begins when everything before it has been answered, so a client reads what it wrote.

Memory is bounded: a connection with enough requests waiting, or whose client does not take its answers, is not read.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from raykafka.broker.api import api_versions
from raykafka.link.frames import FrameProtocol
from raykafka.protocol import codec, registry
from raykafka.protocol.context import RequestContext
from raykafka.protocol.error_code import ErrorCode
from raykafka.protocol.registry import Buffer, UnanswerableRequestError
from raykafka.protocol.wire import MalformedError, skip_tags

PRODUCE = 0
MAX_BYTES_IN_FLIGHT = 32 * 1024 * 1024
MAX_REQUESTS_IN_FLIGHT = 256
_WRITE_BUFFER_BYTES = 1024 * 1024

_HEADER = struct.Struct(">hhih")
_RESPONSE_HEADER = struct.Struct(">ii")

logger = logging.getLogger(__name__)

Dispatch = Callable[[RequestContext, memoryview], Awaitable[list[Buffer]]]


@dataclass(eq=False, slots=True)
class _Request:
    """A request that was begun. ``response`` is None until it is answered; ``closes``: the connection ends there."""

    context: RequestContext
    size: int
    flexible_header: bool
    answer: asyncio.Future[list[Buffer]] | None = None
    response: list[Buffer] | None = None
    closes: bool = False


def parse_header(frame: memoryview) -> tuple[int, int, int, str | None, int]:
    """API key, version, correlation id and client id of a request, and where its body begins. Raises MalformedError,
    and UnanswerableRequestError for an API or version that is not served (ApiVersions is always let through)."""
    if len(frame) < _HEADER.size:
        raise MalformedError("a request ends within its header")
    key, version, correlation, length = _HEADER.unpack_from(frame)
    end = _HEADER.size + max(length, 0)
    if length < -1 or end > len(frame):
        raise MalformedError("a request ends within its client id")
    try:
        client_id = None if length < 0 else str(frame[_HEADER.size : end], "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"a client id is not UTF-8: {error}") from None
    api = registry.api(key)
    if api is None:
        raise UnanswerableRequestError(f"API {key} is not served")
    if not api.serves(version):
        if key == api_versions.API_KEY:
            return key, version, correlation, client_id, end
        raise UnanswerableRequestError(f"{api.name} is served in versions {api.versions}, not in {version}")
    if codec.request_is_flexible(key, max(version, api.versions[0])):
        end = skip_tags(frame, end)
    return key, version, correlation, client_id, end


class KafkaConnection(FrameProtocol):
    """``dispatch(context, body)`` answers one request; what it begins before it returns its awaitable keeps the order
    of the calls. The connection is a member of ``connections`` while it is open."""

    def __init__(
        self, listener: str, dispatch: Dispatch, connections: set[KafkaConnection], max_request_bytes: int
    ) -> None:
        super().__init__()
        self.max_frame_bytes = max_request_bytes
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last_active_ns = time.monotonic_ns()
        self._listener = listener
        self._dispatch = dispatch
        self._connections = connections
        self._client_host = ""
        self._waiting: deque[tuple[memoryview, int]] = deque()
        self._begun: deque[_Request] = deque()
        self._produces_only = True
        self._beginning = False
        self._bytes = 0
        self._reading = True
        self._finishing = False
        self._ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        peer = transport.get_extra_info("peername")
        self._client_host = peer[0] if peer else ""
        self._connections.add(self)

    def closed(self, error: Exception | None) -> None:
        self._ending = True
        self._connections.discard(self)
        self._waiting.clear()
        for request in self._begun:
            if request.answer is not None and not request.answer.done():
                request.answer.cancel()
        self._begun.clear()
        if not self.ended.done():
            self.ended.set_result(None)

    def finish(self) -> None:
        """Begin nothing more; close once what was begun is answered."""
        self._finishing = True
        self._waiting.clear()
        if not self._begun:
            self._ending = True
            self.transport.close()

    @property
    def is_idle(self) -> bool:
        """True while no request of this connection waits for its answer."""
        return not self._begun and not self._waiting

    @property
    def idle_ms(self) -> float:
        """How long ago the last request came or the last answer went."""
        return (time.monotonic_ns() - self._last_active_ns) / 1e6

    # requests

    def frame_received(self, frame: memoryview) -> None:
        if self._ending or self._finishing:
            return
        self._last_active_ns = time.monotonic_ns()
        self._bytes += len(frame)
        self._waiting.append((frame, time.clock_gettime_ns(time.CLOCK_BOOTTIME)))
        self._begin_waiting()
        self._read_or_pause()

    def _begin_waiting(self) -> None:
        if self._beginning:
            return
        self._beginning = True
        waiting, begun = self._waiting, self._begun
        while waiting and not self._ending and self._writable:
            frame, received_ns = waiting[0]
            is_produce = len(frame) > 1 and frame[0] == 0 and frame[1] == PRODUCE
            if begun and not (is_produce and self._produces_only):
                break
            waiting.popleft()
            self._produces_only = is_produce
            self._begin(frame, received_ns)
        self._beginning = False

    def _begin(self, frame: memoryview, received_ns: int) -> None:
        try:
            key, version, correlation, client_id, body_start = parse_header(frame)
        except (MalformedError, UnanswerableRequestError) as error:
            self._refuse(frame, str(error))
            return
        context = RequestContext(
            key, version, correlation, client_id, self._client_host, self._listener, received_ns=received_ns
        )
        api = registry.api(key)
        assert api is not None
        if not api.serves(version):
            request = _Request(context, len(frame), flexible_header=False)
            refusal = api_versions.response(0, ErrorCode.UNSUPPORTED_VERSION)
            request.response = [codec.encode_response(key, 0, refusal)]
            self._begun.append(request)
            self._answer()
            return
        flexible = codec.response_header_is_flexible(key, max(version, api.versions[0]))
        request = _Request(context, len(frame), flexible)
        self._begun.append(request)
        context.mark("queue")
        try:
            request.answer = asyncio.ensure_future(self._dispatch(context, frame[body_start:]))
        except UnanswerableRequestError as error:
            self._close_at(request, str(error))
            return
        except Exception:
            logger.exception("%s v%d failed", api.name, version)
            self._close_at(request, f"{api.name} failed")
            return
        request.answer.add_done_callback(lambda future: self._answered(request, future))

    def _refuse(self, frame: memoryview, reason: str) -> None:
        request = _Request(RequestContext(-1, -1, -1, None, self._client_host, self._listener), len(frame), False)
        self._begun.append(request)
        self._close_at(request, reason)

    # answers

    def _answered(self, request: _Request, future: asyncio.Future[list[Buffer]]) -> None:
        if self._ending or future.cancelled():
            return
        error = future.exception()
        if error is None:
            request.context.mark("local")
            request.response = future.result()
            self._answer()
            return
        api = registry.api(request.context.api_key)
        if not isinstance(error, UnanswerableRequestError):
            logger.error("%s v%d failed", api.name if api else "?", request.context.api_version, exc_info=error)
        self._close_at(request, str(error))

    def _close_at(self, request: _Request, reason: str) -> None:
        """End the connection once everything before ``request`` has been answered."""
        logger.warning("closing the connection from %s on %s: %s", self._client_host, self._listener, reason)
        request.closes = True
        request.response = []
        self._answer()

    def _answer(self) -> None:
        out: list[Buffer] = []
        begun = self._begun
        while begun and begun[0].response is not None:
            request = begun.popleft()
            if request.closes:
                self._ending = True
                break
            self._bytes -= request.size
            if request.response:
                _append_response(out, request)
            request.context.mark("send")
        if out:
            self._last_active_ns = time.monotonic_ns()
            self.transport.writelines(out)
        if self._ending or (self._finishing and not begun):
            self._ending = True
            self.transport.close()
            return
        self._begin_waiting()
        self._read_or_pause()

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
        if self._ending or self.transport.is_closing():
            return
        requests = len(self._waiting) + len(self._begun)
        if self._reading:
            if not self._writable or self._bytes > MAX_BYTES_IN_FLIGHT or requests > MAX_REQUESTS_IN_FLIGHT:
                self._reading = False
                self.transport.pause_reading()
        elif self._writable and self._bytes <= MAX_BYTES_IN_FLIGHT // 2 and requests <= MAX_REQUESTS_IN_FLIGHT // 2:
            self._reading = True
            self.transport.resume_reading()


def _append_response(out: list[Buffer], request: _Request) -> None:
    assert request.response is not None
    length = 4 + request.flexible_header
    for part in request.response:
        length += len(part)
    header = _RESPONSE_HEADER.pack(length, request.context.correlation_id)
    out.append(header + b"\0" if request.flexible_header else header)
    out.extend(request.response)
