"""A link: one authenticated, ordered connection between two processes, over a Unix socket on a node or TCP between
nodes.

It opens with a handshake (``raykafka.link.handshake``). After that both sides send frames ``kind (1 byte) + payload``.
The kinds below ``FIRST_DATA_KIND`` are the link's own (``raykafka.link.frame_kinds``): calls (JSON, small and rare),
forwards (raw bytes both ways) and pings. The others, and what they carry, belong to whoever uses the link: packed
structs and raw record batches, with ``send``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import frame_kinds
from raykafka.link.frames import FrameProtocol
from raykafka.link.handshake import Handshake
from raykafka.process.tasks import TaskSet
from raykafka.types import FrameKind

PING_INTERVAL_S = 1.0
_STALL_S = 0.25
_MOST_BEFORE_OPEN_BYTES = 16 * 1024
_MOST_BYTES = 1 << 30
_FRAME_HEAD = struct.Struct(">iB")
_CORRELATION = struct.Struct(">Q")

logger = logging.getLogger(__name__)

FrameHandler = Callable[[int, memoryview], None]
CloseHandler = Callable[[Exception | None], None]
CallHandler = Callable[[str, dict[str, Any]], Awaitable[Any]]
ForwardHandler = Callable[[memoryview], Awaitable[list[bytes | bytearray | memoryview]]]


class Link(FrameProtocol):
    """One end of a link. ``peer`` is the other side's identity (a dict with at least ``role``) once it is open;
    ``ended`` is done when the connection is over, whoever ended it.

    Call ``start`` once to attach handlers; frames that arrive earlier wait. ``on_frame(kind, payload)`` gets data
    frames; ``on_call(method, args)`` answers calls: what it returns goes back (JSON-able), a KafkaError goes back as
    one; ``on_forward(payload)`` answers forwards with buffers.
    """

    def __init__(self, secret: bytes, identity: dict[str, Any], server_side: bool) -> None:
        super().__init__()
        self.max_frame_bytes = _MOST_BEFORE_OPEN_BYTES
        self._handshake = Handshake(secret, identity, server_side=server_side)
        self.peer: dict[str, Any] = {}
        self.opened: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open = False
        self._waiting: list[memoryview] | None = []
        self._on_frame: FrameHandler | None = None
        self._on_close: CloseHandler | None = None
        self._on_call: CallHandler | None = None
        self._on_forward: ForwardHandler | None = None
        self._next_correlation = 0
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._closed = False
        self._tasks = TaskSet("link")

    # opening

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._write_whole(self._handshake.greeting)

    def _write_whole(self, payload: bytes) -> None:
        """Send a frame of the handshake; an empty one is none."""
        if payload:
            self.transport.write(struct.pack(">i", len(payload)) + payload)

    def frame_received(self, frame: memoryview) -> None:
        if self._open:
            if self._waiting is not None:
                self._waiting.append(frame)
            else:
                self._dispatch(frame)
            return
        try:
            self._write_whole(self._handshake.receive(bytes(frame)))
        except (LinkError, ValueError) as error:
            if not self.opened.done():
                self.opened.set_exception(LinkError(f"handshake failed: {error}"))
            self.transport.abort()
            return
        if self._handshake.peer is not None:
            self.adopted(self._handshake.peer)

    def adopted(self, peer: dict[str, Any]) -> None:
        """The link is open and ``peer`` the other side's identity: proved here, or to the process that detached it."""
        self.peer = peer
        self.max_frame_bytes = _MOST_BYTES
        self._open = True
        self.opened.set_result(self)

    def start(
        self,
        on_frame: FrameHandler | None = None,
        on_close: CloseHandler | None = None,
        on_call: CallHandler | None = None,
        on_forward: ForwardHandler | None = None,
    ) -> None:
        """Attach handlers and deliver what arrived before."""
        self._on_frame, self._on_close, self._on_call, self._on_forward = on_frame, on_close, on_call, on_forward
        waiting, self._waiting = self._waiting or [], None
        for frame in waiting:
            self._dispatch(frame)
        if self._closed and on_close is not None:
            on_close(None)

    # frames

    def send(self, kind: FrameKind, *parts: bytes | bytearray | memoryview) -> None:
        """Queue one frame. Buffers are not copied; do not write into them afterwards."""
        length = 1
        for part in parts:
            length += len(part)
        self.transport.writelines((_FRAME_HEAD.pack(length, kind), *parts))

    def send_gathered(self, frames: Iterable[tuple[FrameKind, bytes, memoryview | None]]) -> None:
        """Queue one frame for each (kind, head, records or None), with one write. Records are not copied, as in
        ``send``."""
        parts: list[bytes | memoryview] = []
        for kind, head, records in frames:
            if records is None:
                parts.append(_FRAME_HEAD.pack(len(head) + 1, kind) + head)
            else:
                parts.append(_FRAME_HEAD.pack(len(head) + len(records) + 1, kind) + head)
                parts.append(records)
        self.transport.writelines(parts)

    def _dispatch(self, frame: memoryview) -> None:
        kind = frame[0]
        if kind >= frame_kinds.FIRST_DATA_KIND:
            if self._on_frame is not None:
                self._on_frame(kind, frame[1:])
        elif kind == frame_kinds.PING:
            self.send(frame_kinds.PONG, frame[1:])
        elif kind == frame_kinds.PONG or kind == frame_kinds.REPLY or kind == frame_kinds.FORWARDED:
            self._take_reply(kind, frame)
        elif kind == frame_kinds.CALL:
            self._tasks.run(self._answer_call(frame))
        elif kind == frame_kinds.TELL:
            body = json.loads(bytes(frame[1:]))
            if self._on_call is not None:
                self._tasks.run(self._hear(body))
        elif kind == frame_kinds.FORWARD:
            self._tasks.run(self._answer_forward(frame))

    async def _hear(self, body: dict[str, Any]) -> None:
        assert self._on_call is not None
        await self._on_call(body["method"], body["args"])

    async def _answer_call(self, frame: memoryview) -> None:
        correlation = bytes(frame[1:9])
        body = json.loads(bytes(frame[9:]))
        try:
            if self._on_call is None:
                raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"nobody answers {body['method']} here")
            reply = {"ok": await self._on_call(body["method"], body["args"])}
        except KafkaError as error:
            reply = {"code": int(error.code), "message": error.message}
        except Exception as error:
            reply = {"code": int(ErrorCode.UNKNOWN_SERVER_ERROR), "message": f"{type(error).__name__}: {error}"}
        if not self._closed:
            self.send(frame_kinds.REPLY, correlation, json.dumps(reply).encode())

    async def _answer_forward(self, frame: memoryview) -> None:
        correlation = bytes(frame[1:9])
        assert self._on_forward is not None
        try:
            parts = await self._on_forward(frame[9:])
        except Exception:
            logger.exception("a forwarded request failed")
            parts = []  # an answer all the same: no bytes, which no response is
        if not self._closed:
            self.send(frame_kinds.FORWARDED, correlation, *parts)

    def _take_reply(self, kind: int, frame: memoryview) -> None:
        (correlation,) = _CORRELATION.unpack_from(frame, 1)
        future = self._replies.pop(correlation, None)
        if future is None or future.done():
            return
        if kind == frame_kinds.REPLY:
            reply = json.loads(bytes(frame[9:]))
            if "ok" in reply:
                future.set_result(reply["ok"])
            else:
                future.set_exception(KafkaError(ErrorCode(reply["code"]), reply["message"]))
        else:
            future.set_result(frame[9:])

    def _expect(self) -> tuple[bytes, asyncio.Future[Any]]:
        if self._closed:
            raise LinkError(f"the link to {self.peer.get('role', 'peer')} is closed")
        self._next_correlation += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._replies[self._next_correlation] = future
        return _CORRELATION.pack(self._next_correlation), future

    async def call(self, method: str, args: dict[str, Any], timeout_s: float | None = None) -> Any:
        """Ask the peer's ``on_call``. Raises KafkaError as the peer raised it, LinkError if the link ends first,
        TimeoutError."""
        correlation, future = self._expect()
        self.send(frame_kinds.CALL, correlation, json.dumps({"method": method, "args": args}).encode())
        async with asyncio.timeout(timeout_s):
            return await future

    def tell(self, method: str, args: dict[str, Any]) -> None:
        """Like ``call``, but nothing comes back."""
        self.send(frame_kinds.TELL, json.dumps({"method": method, "args": args}).encode())

    async def forward(self, *parts: bytes | bytearray | memoryview, timeout_s: float | None = None) -> memoryview:
        """Send raw bytes to the peer's ``on_forward`` and return the raw bytes it answers with: none if it failed."""
        correlation, future = self._expect()
        self.send(frame_kinds.FORWARD, correlation, *parts)
        async with asyncio.timeout(timeout_s):
            return await future

    async def ping(self, timeout_s: float) -> None:
        """Return once the peer's event loop has answered. Raises TimeoutError or LinkError."""
        correlation, future = self._expect()
        self.send(frame_kinds.PING, correlation)
        async with asyncio.timeout(timeout_s):
            await future

    async def until_silent(self, silent_after_s: float, interval_s: float = PING_INTERVAL_S) -> None:
        """Ping for as long as the link lives. Raises TimeoutError once a ping was not answered for ``silent_after_s``,
        LinkError when the link ends.

        Only time in which this event loop ran is counted: after a stall of our own, the answer may lie there unread.
        """
        loop = asyncio.get_running_loop()
        while True:
            correlation, answered = self._expect()
            self.send(frame_kinds.PING, correlation)
            left_s = silent_after_s
            try:
                while not answered.done():
                    if left_s <= 0:
                        raise TimeoutError(f"no answer for {silent_after_s:g} s")
                    began = loop.time()
                    await asyncio.wait([answered], timeout=min(left_s, _STALL_S))
                    left_s -= min(loop.time() - began, _STALL_S)
                answered.result()
            finally:
                answered.cancel()  # nobody waits for it any more
            await asyncio.wait([self.ended], timeout=interval_s)

    # handing over

    async def detach(self) -> socket.socket:
        """Give up this end: a socket on which the connection goes on, for somebody else to ``adopt``. Only before
        ``start``, and only while the peer is to say nothing. Raises LinkError if it has spoken or gone."""
        if self._closed or self.transport.is_closing():
            raise LinkError(f"the link to {self.peer.get('role', 'peer')} is closed")
        self.transport.pause_reading()
        while self.transport.get_write_buffer_size() and not self._closed:
            await asyncio.sleep(0)
        if self._closed or self._waiting or self.partial is not None:
            self.transport.abort()
            raise LinkError(f"the link to {self.peer.get('role', 'peer')} can't be handed over")
        handed_over = socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno()))
        self.transport.abort()
        return handed_over

    # closing

    def close(self) -> None:
        """Close the connection once what was queued has been sent."""
        if self.transport is not None:
            self.transport.close()

    @property
    def is_closed(self) -> bool:
        return self._closed

    def closed(self, error: Exception | None) -> None:
        self._closed = True
        ended = LinkError(f"the link to {self.peer.get('role', 'peer')} ended")
        if not self.opened.done():
            self.opened.set_exception(ended)
        if not self.ended.done():
            self.ended.set_result(None)
        replies, self._replies = self._replies, {}
        for future in replies.values():
            if not future.done():
                future.set_exception(ended)
        if self._on_close is not None and self._waiting is None:
            self._on_close(error)
