"""The replication connections of one replica actor, and the streams of its replicas on them.

One TCP connection for each ordered pair of actors, of two brokers, carries the streams of all partitions that the one
leads and the other follows. Its streams are lost together when it ends.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from raykafka.link import adopt
from raykafka.process.tasks import TaskSet
from raykafka.replica.catching_up import Rotation
from raykafka.replica.follower_broker import Dialler, FollowerBroker
from raykafka.replica.host import Holder
from raykafka.replica.in_connection import FollowerEnd, InConnection, InStream
from raykafka.replica.out_connection import LeaderEnd, OutStream
from raykafka.replica.rules.events import Hello
from raykafka.replica.stream_connection import BEAT_S
from raykafka.replica.turn import Turn
from raykafka.types import PartitionKey

# a leader that comes before its follower is open, or knows of the epoch, waits for it this long, and so many do
WAIT_S = 10.0
MOST_WAITING = 20_000
_HEADS_WITHIN_S = 0.1
_SILENT_AFTER_MS = 10_000

logger = logging.getLogger(__name__)

Find = Callable[[PartitionKey], FollowerEnd | int | None]


class StreamHub:
    """``find`` says where the replica of a partition is: its Receiver when it is open here, the number of the other
    actor of this broker that has it, None while that is not known. ``turn`` and ``catching_up`` are shared by all
    replicas of the actor."""

    def __init__(self, secret: bytes, broker_id: int, actor: int, find: Find) -> None:
        self.turn = Turn()
        self.catching_up = Rotation()
        self._dialler = Dialler(secret, broker_id, actor)
        self._find = find
        self._silent_after_ms = _SILENT_AFTER_MS
        self._loop = asyncio.get_running_loop()
        self._tasks = TaskSet("replication connections")
        self._out: dict[tuple[int, Holder], FollowerBroker] = {}
        self._in: set[InConnection] = set()
        self._away: set[int] = set()
        self._waiting: dict[PartitionKey, dict[InStream, None]] = {}
        self._waiting_count = 0
        self._heads_due: list[Callable[[], None]] = []
        self._beat: asyncio.TimerHandle | None = None
        self._closed = False

    def configure(self, silent_after_ms: int) -> None:
        """A connection whose other end has been silent for longer than this ends (rule 12)."""
        self._silent_after_ms = silent_after_ms

    def close(self) -> None:
        """End all connections; none is taken or made any more."""
        self._closed = True
        if self._beat is not None:
            self._beat.cancel()
        for broker in tuple(self._out.values()):
            broker.close()
        for connection in tuple(self._in):
            connection.end("this actor ends")
        self._tasks.cancel()

    # for leaders

    def open(self, follower: int, holder: Holder, key: PartitionKey, hello: Hello, end: LeaderEnd) -> OutStream:
        """Open a stream to the replica on broker ``follower``, of which ``end`` hears."""
        stream = OutStream(key, hello, end)
        broker = self._out.get((follower, holder))
        if broker is None:
            broker = FollowerBroker(
                self.turn, self._dialler, follower, holder, self._away, self._tasks, self._broker_over
            )
            self._out[follower, holder] = broker
        broker.open(stream)
        self._start_beats()
        return stream

    def forget(self, key: PartitionKey) -> None:
        """That partition is gone from this broker."""
        for broker in self._out.values():
            broker.forget(key)

    def _broker_over(self, broker: FollowerBroker) -> None:
        if self._out.get((broker.broker, broker.holder)) is broker:
            del self._out[broker.broker, broker.holder]

    def tell_heads_soon(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` within _HEADS_WITHIN_S, together with those of other partitions: their followers are told in
        one frame."""
        if not self._heads_due:
            self._loop.call_later(_HEADS_WITHIN_S, self._tell_heads)
        self._heads_due.append(tell)

    def _tell_heads(self) -> None:
        due, self._heads_due = self._heads_due, []
        for tell in due:
            tell()

    # for followers

    def take(self, sock: socket.socket, peer: dict[str, Any]) -> None:
        """Serve a leaders' connection, which the broker handed over. ``peer`` is what the leaders' actor showed."""
        if self._closed:
            sock.close()
        else:
            self._tasks.run(self._adopt(sock, peer))

    async def _adopt(self, sock: socket.socket, peer: dict[str, Any]) -> None:
        connection = InConnection(self.turn, peer, self._place, self._in_over)
        link = await adopt(sock, peer)
        if self._closed:
            link.transport.abort()
            return
        self._in.add(connection)
        connection.start(link)
        connection.greet(self._dialler.actor)
        self._start_beats()

    def _in_over(self, connection: InConnection, reason: str) -> None:
        self._in.discard(connection)
        if len(connection) and not self._closed:
            logger.warning("%s: ended with %d streams: %s", connection.name, len(connection), reason)

    def _place(self, stream: InStream) -> None:
        """Give a new stream to its replica, or say where that is."""
        found = self._find(stream.key)
        if found is None or found == self._dialler.actor:
            self._keep(stream)
        elif isinstance(found, int):
            stream.elsewhere(found)
        elif not found.hello(stream):
            self._keep(stream)

    def _keep(self, stream: InStream) -> None:
        """Let a stream wait for its replica. One that the same actor opened before is not needed any more."""
        for older in tuple(self._waiting.get(stream.key, ())):
            if older.connection is stream.connection:
                self._forget(older)
                older.end()
        if self._waiting_count >= MOST_WAITING:
            stream.end()
            return
        self._waiting.setdefault(stream.key, {})[stream] = None
        self._waiting_count += 1

    def _forget(self, stream: InStream) -> None:
        kept = self._waiting[stream.key]
        del kept[stream]
        self._waiting_count -= 1
        if not kept:
            del self._waiting[stream.key]

    def look_again(self, key: PartitionKey) -> None:
        """The replica of that partition was opened, told something, or placed elsewhere: streams may wait for that."""
        for stream in tuple(self._waiting.get(key, ())):
            self._forget(stream)
            if stream.is_open:
                self._place(stream)

    # time

    def _start_beats(self) -> None:
        if self._beat is None and not self._closed:
            self._beat = self._loop.call_later(BEAT_S, self._beats)

    def _beats(self) -> None:
        self._beat = None
        for broker in tuple(self._out.values()):
            broker.beat(self._silent_after_ms)
        for connection in tuple(self._in):
            connection.beat(self._silent_after_ms)
        self._give_up_waiting()
        if self._out or self._in or self._waiting:
            self._start_beats()

    def _give_up_waiting(self) -> None:
        """End the streams that have waited for too long, or whose leader ended them."""
        for kept in tuple(self._waiting.values()):
            for stream in tuple(kept):
                stream.beats += 1
                if not stream.is_open or stream.beats * BEAT_S > WAIT_S:
                    self._forget(stream)
                    stream.end()
