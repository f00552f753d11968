"""Length-prefixed frames over a stream socket, read without copying large ones.

Kafka's wire protocol and raykafka's own links both send a 4-byte big-endian length and then that many bytes. What
arrives is received into a buffer that all connections of a thread share, and each frame is copied out of it; the rest
of one that has mostly yet to come is received straight into the frame. Either way the receiver owns the memory it is
given and may write into it.

A length is only an announcement: memory is taken as bytes arrive, or as much at once as the connection has shown before
that it needs. A connection that is silent between frames holds none.
"""

from __future__ import annotations

import asyncio
import struct
import threading

from raykafka.errors import LinkError

_LENGTH = struct.Struct(">i")
_RECEIVE_BUFFER_BYTES = 128 * 1024
_DIRECT_BYTES = 64 * 1024
_FIRST_BYTES = 16 * 1024

_of_thread = threading.local()


def _receive_buffer() -> memoryview:
    """What this thread receives into: nothing stays there from one event to the next."""
    buffer = getattr(_of_thread, "buffer", None)
    if buffer is None:
        buffer = _of_thread.buffer = memoryview(bytearray(_RECEIVE_BUFFER_BYTES))
    return buffer


class FrameProtocol(asyncio.BufferedProtocol):
    """An asyncio protocol that hands over whole frames, without their length prefix.

    Subclasses implement ``frame_received(frame)`` (a writable memoryview that they own, of a ``frame_type``) and
    ``closed(error)``. Both run on the event loop. ``max_frame_bytes`` bounds the memory one peer can make us take; a
    frame over it ends the connection.
    """

    max_frame_bytes = 128 * 1024 * 1024
    frame_type = bytearray

    def __init__(self) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self._shared = _receive_buffer()
        self._head = b""  # of a length, of which less than 4 bytes have come
        self._frame: memoryview | None = None  # one that has come in part; as long as it, or shorter for now
        self._length = 0
        self._filled = 0
        self._direct = False
        self._largest = 0
        self._frames = 0
        self._writable = True
        self._drain_waiters: list[asyncio.Future[None]] = []

    def frame_received(self, frame: memoryview) -> None:
        """A frame has arrived whole."""
        raise NotImplementedError

    def closed(self, error: Exception | None) -> None:
        """The connection ended, by either side. Called once."""

    def partial_took(self, size: int) -> None:
        """A frame that has come in part takes so many bytes more, or gives them back."""

    # reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    @property
    def partial(self) -> tuple[int, int] | None:
        """Where in its stream of frames the connection is, when it is amid one; another value when more has come."""
        if self._frame is None and not self._head:
            return None
        return self._frames, len(self._head) if self._frame is None else 4 + self._filled

    def get_buffer(self, sizehint: int) -> memoryview:
        frame = self._frame
        self._direct = frame is not None and self._length - self._filled > _DIRECT_BYTES
        if frame is None or not self._direct:
            return self._shared
        if self._filled == len(frame):
            frame = self._grow_frame(self._filled + 1)
        return frame[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._direct:
            self._filled += nbytes
            if self._filled == self._length:
                self._end_frame()
            return
        start, view = 0, self._shared
        if self._frame is not None:
            start = self._fill_frame(view[:nbytes])
            if self._frame is not None or self.transport.is_closing():
                return
        elif self._head:
            start = min(4 - len(self._head), nbytes)
            self._head += bytes(view[:start])
            if len(self._head) < 4:
                return
            (length,) = _LENGTH.unpack(self._head)
            self._head = b""
            if not self._begin_frame(length):
                return
            start += self._fill_frame(view[start:nbytes])
            if self._frame is not None or self.transport.is_closing():
                return
        self._split(view, start, nbytes)

    def _split(self, view: memoryview, start: int, end: int) -> None:
        while end - start >= 4:
            (length,) = _LENGTH.unpack_from(view, start)
            start += 4
            if not 0 <= length <= end - start:
                if self._begin_frame(length):
                    self._fill_frame(view[start:end])
                return
            if length > self.max_frame_bytes:
                self.transport.abort()
                return
            frame = memoryview(self.frame_type(view[start : start + length]))
            start += length
            self._frames += 1
            self.frame_received(frame)
            if self.transport.is_closing():
                return
        self._head = bytes(view[start:end])

    def _begin_frame(self, length: int) -> bool:
        """A frame of that length comes. False where it is none that may come: the connection ends."""
        if length < 0 or length > self.max_frame_bytes:
            self.transport.abort()
            return False
        self._length, self._filled = length, 0
        size = min(length, max(_FIRST_BYTES, self._largest))
        self._frame = memoryview(self.frame_type(size))
        self.partial_took(size)
        return True

    def _fill_frame(self, data: memoryview) -> int:
        """Put what has come of ``data`` into the frame; how much of it belongs there."""
        assert self._frame is not None
        size = min(len(data), self._length - self._filled)
        behind = self._filled + size
        frame = self._frame if behind <= len(self._frame) else self._grow_frame(behind)
        frame[self._filled : behind] = data[:size]
        self._filled = behind
        if behind == self._length:
            self._end_frame()
        return size

    def _grow_frame(self, least: int) -> memoryview:
        assert self._frame is not None
        before, size = self._frame, min(self._length, max(least, 2 * len(self._frame)))
        self._frame = memoryview(self.frame_type(size))
        self._frame[: self._filled] = before[: self._filled]
        self.partial_took(size - len(before))
        return self._frame

    def _end_frame(self) -> None:
        assert self._frame is not None
        frame, self._frame = self._frame, None
        self._filled = 0
        self._frames += 1
        self._largest = max(self._largest, len(frame))
        self.partial_took(-len(frame))
        self.frame_received(frame)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable = True
        self._wake_drain_waiters()
        if self._frame is not None:
            frame, self._frame = self._frame, None
            self.partial_took(-len(frame))
        self.closed(exc)

    # writing

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake_drain_waiters()

    @property
    def writable(self) -> bool:
        """False while more than the transport's high-water mark waits to be sent."""
        return self._writable

    async def drained(self) -> None:
        """Wait until the peer has taken enough of what was written. Raises LinkError if the connection ended."""
        if not self._writable:
            waiter = asyncio.get_running_loop().create_future()
            self._drain_waiters.append(waiter)
            await waiter
        if self.transport.is_closing():
            raise LinkError("the connection ended while its peer was being written to")

    def _wake_drain_waiters(self) -> None:
        waiters, self._drain_waiters = self._drain_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
