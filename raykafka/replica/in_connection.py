"""The followers' end of a replication connection, and the streams on it: what leaders send to the replicas of this
actor, and what these acknowledge."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from raykafka.replica import stream_frames as frames
from raykafka.replica.rules.events import Hello
from raykafka.replica.stream_connection import StreamConnection
from raykafka.replica.turn import Turn
from raykafka.types import PartitionKey

logger = logging.getLogger(__name__)


class FollowerEnd(Protocol):
    """A replica, at the end of the streams that leaders have open to it."""

    def hello(self, stream: InStream) -> bool:
        """Take ``stream``, which a leader opens, or answer False: it is ahead of what this replica was told (rule
        3)."""
        ...

    def data(self, stream: InStream, log_start: int, high_watermark: int, records: memoryview) -> None:
        """Whole batches came, or none."""

    def ask(self, stream: InStream, owed: int) -> None:
        """The leader asks for an allowance."""

    def lost(self, stream: InStream) -> None:
        """The stream is over. Not called after ``end``."""


class InStream:
    """One stream. ``replica`` is who takes it, None while it waits for one; ``is_open`` until it has ended."""

    __slots__ = ("beats", "connection", "hello", "is_open", "key", "number", "replica")

    def __init__(self, connection: InConnection, number: int, key: PartitionKey, hello: Hello) -> None:
        self.connection = connection
        self.number = number
        self.key = key
        self.hello = hello
        self.replica: FollowerEnd | None = None
        self.is_open = True
        self.beats = 0

    def answer(self, position: frames.Position) -> None:
        """This replica's log is the beginning of the leader's."""
        if self.is_open:
            self.connection.send(frames.pack_answer(self.number, position))

    def ack(self, log_end: int) -> None:
        """This replica's log holds everything below ``log_end``."""
        if self.is_open:
            self.connection.ack(self.number, log_end)

    def grant(self, size: int) -> None:
        """``size`` bytes may come."""
        if self.is_open:
            self.connection.send(frames.pack_bytes(frames.GRANT, self.number, size))

    def end(self, reason: int = frames.CLOSED) -> None:
        """End the stream; what it still brings is dropped."""
        if self.is_open:
            self.connection.send(frames.pack_end(self.number, reason))
            self.connection.drop(self)

    def elsewhere(self, actor: int) -> None:
        """End the stream: that actor has the replica."""
        if self.is_open:
            self.connection.send(frames.pack_elsewhere(self.number, actor))
            self.connection.drop(self)


class InConnection(StreamConnection):
    """``peer`` is what the leaders' actor showed. ``arrived(stream)`` is called for each new stream,
    ``over(connection, reason)`` at the end, after which its streams are lost."""

    def __init__(
        self,
        turn: Turn,
        peer: dict[str, Any],
        arrived: Callable[[InStream], None],
        over: Callable[[InConnection, str], None],
    ) -> None:
        super().__init__(turn, f"the streams from actor {peer.get('actor')} of broker {peer.get('broker_id')}")
        self.leader: Any = peer.get("broker_id")
        self._arrived, self._over = arrived, over
        self._streams: dict[int, InStream] = {}
        self._newest = 0
        self._acks: dict[int, int] = {}

    def __len__(self) -> int:
        """The number of streams."""
        return len(self._streams)

    def greet(self, actor: int) -> None:
        """Say who this is."""
        self.send(frames.pack_ready(actor))

    def ack(self, number: int, log_end: int) -> None:
        """Acknowledge at the end of this pass of the event loop, in one frame with the other streams."""
        if not self._due:
            self.write_soon()
        self._acks[number] = log_end

    def collect(self) -> None:
        if self._acks:
            acks, self._acks = self._acks, {}
            self._parts.append(frames.pack_acks(acks.items()))

    def drop(self, stream: InStream) -> None:
        """Take nothing of ``stream`` any more."""
        stream.is_open = False
        self._streams.pop(stream.number, None)
        self._acks.pop(stream.number, None)

    def received(self, kind: int, payload: memoryview) -> None:
        if kind == frames.DATA:
            number, log_start, high_watermark, records = frames.unpack_data(payload)
            stream = self._taken(number)
            if stream is not None:
                self._give(stream, log_start, high_watermark, records)
        elif kind == frames.HEADS:
            for number, log_start, high_watermark in frames.unpack_heads(payload):
                stream = self._taken(number)
                if stream is not None:
                    self._give(stream, log_start, high_watermark, _NO_RECORDS)
        elif kind == frames.BEAT:
            pass
        elif kind == frames.HELLO:
            self._open(*frames.unpack_hello(payload))
        elif kind == frames.ASK:
            number, owed = frames.unpack_bytes(payload)
            stream = self._taken(number)
            if stream is not None:
                stream.replica.ask(stream, owed)  # type: ignore[union-attr]
        elif kind == frames.END:
            number, _ = frames.unpack_end(payload)
            stream = self._stream(number)
            if stream is not None:
                self.drop(stream)
                if stream.replica is not None:
                    stream.replica.lost(stream)
        else:
            raise frames.BadFrame(f"a frame of kind {kind}")

    def _give(self, stream: InStream, log_start: int, high_watermark: int, records: memoryview) -> None:
        """A replica that can't take what came ends its own stream, and no other."""
        replica = stream.replica
        assert replica is not None
        try:
            replica.data(stream, log_start, high_watermark, records)
        except Exception:
            logger.exception("%s: the replica of %s-%d failed", self.name, stream.key.topic, stream.key.partition)
            stream.end()
            replica.lost(stream)

    def _open(self, number: int, key: PartitionKey, hello: Hello) -> None:
        if number <= self._newest or hello.stream.leader != self.leader:
            raise frames.BadFrame(f"a HELLO of {hello.stream} as stream {number}")
        self._newest = number
        stream = self._streams[number] = InStream(self, number, key, hello)
        self._arrived(stream)

    def _stream(self, number: int) -> InStream | None:
        """The stream of that number, None for one that has ended (rule 11)."""
        if not 0 < number <= self._newest:
            raise frames.BadFrame(f"there is no stream {number}")
        return self._streams.get(number)

    def _taken(self, number: int) -> InStream | None:
        stream = self._stream(number)
        if stream is not None and stream.replica is None:
            raise frames.BadFrame(f"stream {number} has not been answered")
        return stream

    def ended(self, reason: str) -> None:
        self._over(self, reason)
        streams, self._streams = self._streams, {}
        self._acks.clear()
        for stream in streams.values():
            stream.is_open = False
        for stream in streams.values():
            if stream.replica is not None:
                stream.replica.lost(stream)


_NO_RECORDS = memoryview(b"")
