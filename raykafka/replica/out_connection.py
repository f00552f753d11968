"""The leaders' end of a replication connection, and the streams on it: what each follower is sent, how much of it is
unacknowledged, what comes back."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from raykafka.errors import LinkError
from raykafka.process.tasks import TaskSet
from raykafka.replica import stream_frames as frames
from raykafka.replica.rules.events import Hello
from raykafka.replica.stream_connection import StreamConnection
from raykafka.replica.turn import Turn
from raykafka.types import PartitionKey

# what may be unacknowledged of a stream; of all streams of a connection before each has only its LEAST_WINDOW_BYTES
WINDOW_BYTES = 8 * 1024 * 1024
CONNECTION_WINDOW_BYTES = 128 * 1024 * 1024
LEAST_WINDOW_BYTES = 512 * 1024

logger = logging.getLogger(__name__)


class LeaderEnd(Protocol):
    """Whoever leads, at the end of one stream."""

    def answered(self, position: frames.Position) -> None:
        """The follower finished the handshake."""

    def acked(self, log_end: int) -> None:
        """The follower's log holds everything below ``log_end``."""

    def granted(self, size: int) -> None:
        """The follower's broker lets ``size`` bytes come."""

    def lost(self, reason: str, refused: bool) -> None:
        """The stream is over; ``refused``: the follower could not write what came. Not called after ``end``."""


class OutStream:
    """One stream. ``number`` names it on ``connection``, which changes when the replica turns out to be elsewhere."""

    __slots__ = ("connection", "end_of", "hello", "hops", "is_answered", "key", "number", "unacked", "unacked_bytes")

    def __init__(self, key: PartitionKey, hello: Hello, end_of: LeaderEnd) -> None:
        self.key = key
        self.hello = hello
        self.end_of = end_of
        self.connection: OutConnection | None = None
        self.number = -1
        self.hops = 0
        self.is_answered = False
        self.unacked_bytes = 0
        self.unacked: deque[tuple[int, int]] = deque()

    def has_credit_for(self, size: int) -> bool:
        """Whether ``size`` bytes may be sent before some of what was sent is acknowledged."""
        connection = self.connection
        if connection is None:
            return False
        shared = connection.unacked_bytes < CONNECTION_WINDOW_BYTES
        return self.unacked_bytes + size <= (WINDOW_BYTES if shared else LEAST_WINDOW_BYTES)

    def data(self, head: tuple[int, int], end_offset: int, records: list[memoryview], size: int) -> None:
        """Send ``records``, ``size`` bytes of whole batches that end before ``end_offset``, with ``head``: (log start,
        high watermark) of the leader."""
        connection = self.connection
        if connection is not None:
            self.unacked.append((end_offset, size))
            self.unacked_bytes += size
            connection.unacked_bytes += size
            connection.send(frames.pack_data(self.number, *head, size), *records)

    def tell(self, head: tuple[int, int]) -> None:
        """Send ``head`` without records."""
        if self.connection is not None:
            self.connection.tell(self.number, head)

    def waits_for_room(self, resume: Callable[[], None]) -> bool:
        """Whether too much waits to be sent on the connection; then ``resume`` is called once that has changed."""
        connection = self.connection
        if connection is None:
            return True
        if connection.has_room:
            return False
        connection.wait_for_room(resume)
        return True

    def ask(self, owed: int) -> None:
        """Ask the follower's broker for an allowance."""
        if self.connection is not None:
            self.connection.send(frames.pack_bytes(frames.ASK, self.number, owed))

    def end(self) -> None:
        """End the stream; nothing of it is told any more."""
        connection = self.connection
        if connection is not None:
            if connection.is_ready:  # else nobody has heard of it
                connection.send(frames.pack_end(self.number, frames.CLOSED))
            connection.drop(self)

    def acked(self, log_end: int) -> None:
        """Take an acknowledgement."""
        unacked, taken = self.unacked, 0
        while unacked and unacked[0][0] <= log_end:
            taken += unacked.popleft()[1]
        if taken and self.connection is not None:
            self.unacked_bytes -= taken
            self.connection.unacked_bytes -= taken
        self.end_of.acked(log_end)


class OutConnection(StreamConnection):
    """``actor`` is whom it leads to, None until that one has said who it is. ``ready(connection)`` is called then,
    ``elsewhere(stream, actor)`` for a stream whose replica is with another actor, ``over(connection, reason)`` at its
    end, after which its streams are lost."""

    def __init__(
        self,
        turn: Turn,
        name: str,
        actor: int | None,
        ready: Callable[[OutConnection], None],
        elsewhere: Callable[[OutStream, int], None],
        over: Callable[[OutConnection, str], None],
    ) -> None:
        super().__init__(turn, name)
        self.actor = actor
        self.is_ready = False
        self.unacked_bytes = 0
        self.idle_beats = 0
        self._ready, self._elsewhere, self._over = ready, elsewhere, over
        self._streams: dict[int, OutStream] = {}
        self._number = 0
        self._heads: dict[int, tuple[int, int]] = {}
        self._waiting_for_room: list[Callable[[], None]] = []
        self._tasks = TaskSet(name, lambda error: self.end(f"{type(error).__name__}: {error}"))

    def __len__(self) -> int:
        """The number of streams."""
        return len(self._streams)

    @property
    def may_speak(self) -> bool:
        """Nothing is said before the other end is: until then its broker hands the connection over."""
        return self.is_ready

    def open(self, stream: OutStream) -> None:
        """Carry ``stream``. Its HELLO goes out once the other end is ready."""
        self._number += 1
        stream.connection, stream.number = self, self._number
        self._streams[self._number] = stream
        self.idle_beats = 0
        if self.is_ready:
            self._greet(stream)

    def _greet(self, stream: OutStream) -> None:
        self.send(frames.pack_hello(stream.number, stream.key, stream.hello))

    def drop(self, stream: OutStream) -> None:
        """Carry ``stream`` no more."""
        if self._streams.pop(stream.number, None) is not None:
            stream.connection = None
            self.unacked_bytes -= stream.unacked_bytes
            self._heads.pop(stream.number, None)

    def tell(self, number: int, head: tuple[int, int]) -> None:
        """Send the newest head of a stream, in one frame with those of others."""
        if not self._due:
            self.write_soon()
        self._heads[number] = head

    def collect(self) -> None:
        if self._heads:
            heads, self._heads = self._heads, {}
            self._parts.append(frames.pack_heads([(number, *head) for number, head in heads.items()]))

    def wait_for_room(self, resume: Callable[[], None]) -> None:
        """Call ``resume`` once there is room again; not at all when the connection ends before."""
        if not self._waiting_for_room:
            self._tasks.run(self._until_room())
        self._waiting_for_room.append(resume)

    async def _until_room(self) -> None:
        with suppress(LinkError):
            if self._link is not None:
                await self._link.drained()
        waiting, self._waiting_for_room = self._waiting_for_room, []
        if not self.is_over:
            for resume in waiting:
                resume()

    def received(self, kind: int, payload: memoryview) -> None:
        if kind == frames.ACKS:
            for number, log_end in frames.unpack_acks(payload):
                stream = self._answered(number)
                if stream is not None:
                    self._acked(stream, log_end)
        elif kind == frames.BEAT:
            pass
        elif kind == frames.READY:
            self._take_ready(frames.unpack_ready(payload))
        elif kind == frames.ANSWER:
            number, position = frames.unpack_answer(payload)
            stream = self._asked(number)
            if stream is not None:
                stream.is_answered = True
                stream.end_of.answered(position)
        elif kind == frames.ELSEWHERE:
            number, actor = frames.unpack_elsewhere(payload)
            stream = self._asked(number)
            if stream is not None:
                self.drop(stream)
                self._elsewhere(stream, actor)
        elif kind == frames.GRANT:
            number, size = frames.unpack_bytes(payload)
            stream = self._answered(number)
            if stream is not None:
                stream.end_of.granted(size)
        elif kind == frames.END:
            number, reason = frames.unpack_end(payload)
            stream = self._stream(number)
            if stream is not None:
                self.drop(stream)
                stream.end_of.lost("its follower ended it", reason == frames.REFUSED)
        else:
            raise frames.BadFrame(f"a frame of kind {kind}")

    def _acked(self, stream: OutStream, log_end: int) -> None:
        """A leader that can't take what came loses its own stream, and no other."""
        try:
            stream.acked(log_end)
        except Exception as error:
            logger.exception("%s: the leader of %s-%d failed", self.name, stream.key.topic, stream.key.partition)
            stream.end()
            stream.end_of.lost(f"{type(error).__name__}: {error}", False)

    def _stream(self, number: int) -> OutStream | None:
        """The stream of that number, None for one that has ended."""
        if not 0 < number <= self._number:
            raise frames.BadFrame(f"there is no stream {number}")
        return self._streams.get(number)

    def _asked(self, number: int) -> OutStream | None:
        stream = self._stream(number)
        if stream is not None and stream.is_answered:
            raise frames.BadFrame(f"stream {number} is answered twice")
        return stream

    def _answered(self, number: int) -> OutStream | None:
        stream = self._stream(number)
        if stream is not None and not stream.is_answered:
            raise frames.BadFrame(f"stream {number} has not been answered")
        return stream

    def _take_ready(self, actor: int) -> None:
        if self.is_ready or self.actor not in (None, actor):
            raise frames.BadFrame(f"actor {actor} is ready, where {self.actor} was to be")
        self.actor, self.is_ready = actor, True
        self._ready(self)
        for stream in tuple(self._streams.values()):
            self._greet(stream)

    def ended(self, reason: str) -> None:
        self._over(self, reason)
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.connection = None
        for stream in streams.values():
            stream.end_of.lost(reason, False)
