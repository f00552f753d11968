"""One connection between two replica actors, with the streams that it carries: what is sent, and whether the other end
lives. Both kinds of ends have this in common: ``out_connection`` is the leaders', ``in_connection`` the followers'."""

from __future__ import annotations

import logging
import socket
from typing import Any

from raykafka.link import Link
from raykafka.replica import stream_frames as frames
from raykafka.replica.turn import Turn

# how often each end speaks on a connection that is idle (rule 12)
BEAT_S = 0.5
# how much waits to be sent before only live records are added to it
QUEUE_BYTES = 1024 * 1024

# a peer whose host is gone says nothing: this is how long its silence is borne by the kernel
_PEER_SILENT_MS = 10_000

logger = logging.getLogger(__name__)

Part = bytes | memoryview


class StreamConnection:
    """``name`` says for people whose connection it is. ``is_over`` once it has ended, by either end."""

    def __init__(self, turn: Turn, name: str) -> None:
        self.name = name
        self.is_over = False
        self._turn = turn
        self._link: Link | None = None
        self._parts: list[Part] = []
        self._due = False
        self._quiet_beats = 0
        self._beaten = False

    def start(self, link: Link) -> None:
        """Speak over ``link`` from now on."""
        notice_silence(link)
        link.transport.set_write_buffer_limits(high=QUEUE_BYTES)
        self._link = link
        link.start(on_frame=self._frame, on_close=lambda error: self.end(str(error or "end of file")))

    def end(self, reason: str) -> None:
        """It is over: drop it, with whatever is unread on it, and all its streams."""
        if self.is_over:
            return
        self.is_over = True
        self._parts.clear()
        if self._link is not None:
            self._link.transport.abort()
        self.ended(reason)

    # what each kind of end does

    @property
    def may_speak(self) -> bool:
        """Whether the other end is there to hear."""
        return True

    def received(self, kind: int, payload: memoryview) -> None:
        """A frame came. Raises BadFrame."""
        raise NotImplementedError

    def ended(self, reason: str) -> None:
        """It is over, with all its streams."""
        raise NotImplementedError

    # reading

    def _frame(self, kind: int, payload: memoryview) -> None:
        if self.is_over:
            return
        self._quiet_beats = 0
        try:
            self.received(kind, payload)
        except frames.BadFrame as error:
            logger.error("%s: %s", self.name, error)
            self.end(str(error))

    # writing

    def send(self, *parts: Part) -> None:
        """Send whole frames at the end of this pass of the event loop."""
        if not self._due:
            self.write_soon()
        self._parts += parts

    def write_soon(self) -> None:
        """Write at the end of this pass. Only while that is not ``_due``."""
        self._due = True
        self._turn.write(self._write)

    def collect(self) -> None:
        """Add to ``_parts`` what was gathered for one frame."""

    def _write(self) -> None:
        self._due = False
        self.collect()
        parts, self._parts = self._parts, []
        if self._link is not None and not self.is_over:
            self._beaten = True
            self._link.transport.writelines(parts)

    @property
    def has_room(self) -> bool:
        """Whether less than QUEUE_BYTES wait to be sent."""
        return self._link is not None and self._link.writable

    def beat(self, silent_after_ms: int) -> None:
        """One beat passed: speak if nothing was sent in it, and end a connection whose other end has been silent for
        longer than ``silent_after_ms``. Silence is counted in beats of this event loop, so that a stall of this process
        does not count as the peer's."""
        if self._link is None:
            return
        silent_s = self._quiet_beats * BEAT_S
        self._quiet_beats += 1
        if silent_s * 1000 > silent_after_ms:
            self.end(f"it has been silent for {silent_s:.1f} s")
        elif not self._beaten and self.may_speak:
            self.send(frames.BEAT_FRAME)
        self._beaten = False


def notice_silence(link: Link) -> None:
    """Have the kernel end the connection when the peer's host is gone, though nothing is sent."""
    sock: Any = link.transport.get_extra_info("socket")
    if link.transport.is_closing() or sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _PEER_SILENT_MS)
