"""Length-prefixed frames over a stream socket, read without copying large ones.

Kafka's wire protocol and raykafka's own links both send a 4-byte big-endian length and then that many bytes. Frames
that fit beside others in the receive buffer are copied out of it; a larger one is received straight into a buffer of
its own. Either way the receiver owns the memory it is given and may write into it.
"""

from __future__ import annotations

import asyncio
import struct

from raykafka.errors import LinkError

_LENGTH = struct.Struct(">i")
_RECEIVE_BUFFER_BYTES = 64 * 1024


class FrameProtocol(asyncio.BufferedProtocol):
    """An asyncio protocol that hands over whole frames, without their length prefix.

    Subclasses implement ``frame_received(frame)`` (a writable memoryview that they own) and ``closed(error)``. Both
    run on the event loop. ``max_frame_bytes`` bounds the memory one peer can make us allocate; a frame over it ends the
    connection.
    """

    max_frame_bytes = 128 * 1024 * 1024

    def __init__(self) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self._buffer = bytearray(_RECEIVE_BUFFER_BYTES)
        self._buffer_view = memoryview(self._buffer)
        self._filled = 0
        self._large: memoryview | None = None
        self._large_filled = 0
        self._writable = True
        self._drain_waiters: list[asyncio.Future[None]] = []

    def frame_received(self, frame: memoryview) -> None:
        """A frame has arrived whole."""
        raise NotImplementedError

    def closed(self, error: Exception | None) -> None:
        """The connection ended, by either side. Called once."""

    # reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._large is not None:
            return self._large[self._large_filled :]
        return self._buffer_view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._large is not None:
            self._large_filled += nbytes
            if self._large_filled == len(self._large):
                frame, self._large = self._large, None
                self.frame_received(frame)
            return
        self._filled += nbytes
        self._split()

    def _split(self) -> None:
        start, filled, view = 0, self._filled, self._buffer_view
        while filled - start >= 4:
            (length,) = _LENGTH.unpack_from(view, start)
            if length < 0 or length > self.max_frame_bytes:
                self._filled = 0
                self.transport.abort()
                return
            if filled - start - 4 < length:
                if length + 4 > _RECEIVE_BUFFER_BYTES - start:
                    self._begin_large(start + 4, length)
                    return
                break
            start += 4
            frame = memoryview(bytearray(view[start : start + length]))
            start += length
            self.frame_received(frame)
            if self.transport.is_closing():
                return
        rest = filled - start
        if start and rest:
            view[:rest] = bytes(view[start:filled])
        self._filled = rest

    def _begin_large(self, start: int, length: int) -> None:
        have = self._filled - start
        self._large = memoryview(bytearray(length))
        self._large[:have] = self._buffer_view[start : self._filled]
        self._large_filled = have
        self._filled = 0

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable = True
        self._wake_drain_waiters()
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
