"""The leader's ends of its streams: what was appended goes out to every follower, from memory while it keeps up and
from the segment files while it does not.

What an append leaves in memory is handed to the streams at the end of the pass of the event loop. A follower whose
stream has no credit left gets nothing until it acknowledges some, and then what it missed from the files, a piece at a
time in rotation with those of other partitions. One that is throttled gets that in the pieces which its allowances let
through.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.log import Log, LogReader, WouldBlock
from raykafka.log.batch import iter_batches
from raykafka.process.tasks import TaskSet
from raykafka.replica.host import Holder
from raykafka.replica.hub import StreamHub
from raykafka.replica.out_connection import OutStream
from raykafka.replica.rules.events import Acked, Answered, Hello, OpenStream, StreamId, StreamLost
from raykafka.replica.rules.partition import Partition
from raykafka.replica.stream_frames import Position
from raykafka.replica.throttle import StreamThrottle, Throttle
from raykafka.types import PartitionKey

READ_BYTES = 512 * 1024

logger = logging.getLogger(__name__)

Step = Callable[[Acked | Answered | StreamLost], None]


class Streams:
    """All streams of one leader. ``step`` gives an event to the rules. ``held`` are the senders that wait for an
    allowance."""

    def __init__(
        self,
        log: Log,
        partition: Partition,
        key: PartitionKey,
        hub: StreamHub,
        step: Step,
        throttle: Throttle,
    ) -> None:
        self.log = log
        self.key = key
        self.hub = hub
        self.step = step
        self.throttle = throttle
        self.held: set[Sender] = set()
        self._holders: Mapping[int, Holder] = {}
        self._reader: LogReader | None = None
        self._segments_version = -1
        self._partition = partition
        self._state = partition.log
        self._senders: dict[int, Sender] = {}
        self._away: set[int] = set()
        self._turn: list[memoryview] = []
        self._turn_base = 0
        self._heads_due = False

    @property
    def holders(self) -> Mapping[int, Holder]:
        """The live brokers that hold this partition. Streams to lives that have ended are lost."""
        return self._holders

    @holders.setter
    def holders(self, holders: Mapping[int, Holder]) -> None:
        self._holders = holders
        for sender in tuple(self._senders.values()):
            if sender.holder != holders.get(sender.follower):
                self.lost(sender, "that life of its broker has ended")

    def open(self, effect: OpenStream) -> None:
        """Open a stream to a follower; an earlier one to it ends."""
        before = self._senders.pop(effect.follower, None)
        if before is not None:
            before.close()
        self._senders[effect.follower] = sender = Sender(self, effect.follower, effect.hello)
        sender.open()

    def throttle_changed(self) -> None:
        """The topic's throttle was configured anew."""
        for sender in self._senders.values():
            sender.throttle.configured()
            sender.go_on()

    def release_in_sync(self) -> None:
        """Resume the senders that waited for an allowance and need none any more: the high watermark waits for them."""
        for sender in tuple(self.held):
            if not sender.throttle.holds:
                sender.go_on()

    def waits_for(self, follower: int) -> bool:
        """Whether a record is committed only when ``follower`` has it (rule 5)."""
        leading = self._partition.leading
        return leading is None or follower in leading.counted()

    def close(self, follower: int, stream: StreamId) -> None:
        sender = self._senders.get(follower)
        if sender is not None and sender.name == stream:
            del self._senders[follower]
            sender.close()

    def close_all(self) -> None:
        """End all streams."""
        senders, self._senders = self._senders, {}
        for sender in senders.values():
            sender.close()
        if self._reader is not None:
            self._reader.close()

    def lost(self, sender: Sender, reason: str, *, refused: bool = False, said: bool = False) -> None:
        """A stream ended, or has to. ``refused``: the follower could not write what it was sent; ``said``: the log
        output has it already."""
        if self._senders.get(sender.follower) is not sender:
            return
        del self._senders[sender.follower]
        sender.close()
        # a follower that stays away is tried again and again: that is said once
        level = logging.DEBUG if said or sender.follower in self._away else logging.WARNING
        self._away.add(sender.follower)
        logger.log(level, "%s: the stream to broker %d ended: %s", self.log.directory.name, sender.follower, reason)
        self.step(StreamLost(sender.follower, sender.name, refused))

    def arrived(self, follower: int, log_end: int) -> None:
        """A follower's log is the beginning of this one, and ends there."""
        self._away.discard(follower)
        logger.debug("%s: broker %d follows from %d", self.log.directory.name, follower, log_end)

    # sending

    def appended(self, base_offset: int, records: memoryview) -> None:
        """The log holds ``records`` from ``base_offset`` to its end. They must not change any more."""
        if not self._senders:
            return
        if not self._turn:
            self._turn_base = base_offset
            self.hub.turn.do(self._end_turn)
        self._turn.append(records)

    def _end_turn(self) -> None:
        records, self._turn = self._turn, []
        size = sum(map(len, records))
        head, end_offset = self.head(), self.log.log_end_offset
        for sender in tuple(self._senders.values()):
            sender.offer(head, self._turn_base, end_offset, records, size)

    def head(self) -> tuple[int, int]:
        """What every frame says of the leader's log: where it starts, and its high watermark."""
        return self._state.start, self._state.high_watermark

    def watermark_moved(self) -> None:
        """Followers that get no records soon are told without any (rule 12)."""
        if not self._heads_due and self._senders:
            self._heads_due = True
            self.hub.tell_heads_soon(self._tell_heads)

    def _tell_heads(self) -> None:
        self._heads_due = False
        head = self.head()
        for sender in self._senders.values():
            sender.tell(head)

    def fresh_reader(self) -> LogReader:
        """A reader of the log as it is now, for what is sent from the files."""
        log, reader = self.log, self._reader
        if reader is None:
            reader = self._reader = LogReader(log.directory)
            self._segments_version = -1
        if log.segments_version != self._segments_version or log.truncations != reader.truncations:
            self._segments_version = log.segments_version
            reader.update(log.segments, log.truncations)
        return reader

    def describe(self, now_ms: int) -> dict[int, dict[str, Any]]:
        """How each follower stands, for status and metrics: ``live`` while it is fed from memory, ``throttled`` while
        it waits for an allowance, ``unacked_bytes`` on their way to it, ``log_end`` as last acknowledged,
        ``lag_records`` and ``lag_ms`` (None and -1: not known)."""
        leading = self._partition.leading
        progress: dict[int, dict[str, Any]] = {}
        for broker, follower in leading.followers.items() if leading else ():
            sender = self._senders.get(broker)
            lag_records, lag_ms = follower.lag(self._state.end, now_ms)
            progress[broker] = {
                "live": sender is not None and sender.live,
                "throttled": sender in self.held,
                "unacked_bytes": sender.unacked_bytes if sender is not None else 0,
                "log_end": follower.end,
                "lag_records": lag_records,
                "lag_ms": lag_ms,
            }
        return progress


class Sender:
    """One stream, at its leader. ``live``: all of the log has been handed to it, so that appends can follow from
    memory."""

    def __init__(self, streams: Streams, follower: int, hello: Hello) -> None:
        self.follower = follower
        self.name = hello.stream
        self.live = False
        self.holder = streams.holders.get(follower)
        self._streams = streams
        self._hello = hello
        self._stream: OutStream | None = None
        self._answered = False
        self._closed = False
        self._reading = False
        self._next = 0
        self._granted: asyncio.Future[int] | None = None
        self._told = (hello.log_start, hello.high_watermark)
        self._tasks: TaskSet | None = None
        self.throttle = StreamThrottle(
            streams.throttle,
            follower,
            self._ask_follower,
            lambda: streams.waits_for(follower),
            self._run,
            self.go_on,
        )

    def open(self) -> None:
        """Begin: connect to the follower's replica."""
        streams, holder = self._streams, self.holder
        if holder is None:
            asyncio.get_running_loop().call_soon(streams.lost, self, "its broker is not registered")
        else:
            self._stream = streams.hub.open(self.follower, holder, streams.key, self._hello, self)

    def _run(self, work: Coroutine[Any, Any, None]) -> object:
        if self._tasks is None:
            owner = f"{self._streams.log.directory.name}: the stream to broker {self.follower}"
            self._tasks = TaskSet(owner, self._failed)
        return self._tasks.run(work)

    def _failed(self, error: BaseException) -> None:
        self._streams.lost(self, f"{type(error).__name__}: {error}")

    @property
    def unacked_bytes(self) -> int:
        """What was sent and not acknowledged yet."""
        return self._stream.unacked_bytes if self._stream is not None else 0

    def close(self) -> None:
        """End the stream."""
        self._closed, self.live = True, False
        self._streams.held.discard(self)
        self._streams.hub.catching_up.remove(self._catch_up)
        if self._granted is not None:
            self._granted.cancel()
        if self._stream is not None:
            self._stream.end()

    # what comes back: out_connection.LeaderEnd

    def answered(self, position: Position) -> None:
        self._answered = True
        self._next = position.log_end
        self._streams.arrived(self.follower, position.log_end)
        self._streams.step(
            Answered(self.follower, self.name, position.broker_epoch, position.log_end, position.last_epoch)
        )
        self.tell(self._streams.head())
        self._go_on_from_files()

    def acked(self, log_end: int) -> None:
        if log_end > self._next:
            self._streams.lost(self, f"it acknowledged {log_end}, and was sent {self._next}")
            return
        self._streams.step(Acked(self.follower, self.name, log_end))
        if not self.live:
            self._go_on_from_files()

    def granted(self, size: int) -> None:
        if self._granted is not None and not self._granted.done():
            self._granted.set_result(size)

    def lost(self, reason: str, refused: bool) -> None:
        if refused:
            self._streams.lost(self, "it can't write what it is sent", refused=True)
        else:
            self._streams.lost(self, reason, said=True)

    # sending

    def offer(
        self, head: tuple[int, int], base_offset: int, end_offset: int, records: list[memoryview], size: int
    ) -> None:
        """One pass of the event loop appended ``records``, of ``size`` bytes, from ``base_offset`` to ``end_offset``:
        send them, if all before them has been sent and there is credit."""
        stream = self._stream
        if (
            self.live
            and self._next == base_offset
            and stream is not None
            and stream.has_credit_for(size)
            and not self.throttle.holds
        ):
            self._send(stream, head, end_offset, records, size)
        elif self._next < end_offset:
            self.live = False
            self._go_on_from_files()

    def _send(
        self, stream: OutStream, head: tuple[int, int], end_offset: int, records: list[memoryview], size: int
    ) -> None:
        self._next = end_offset
        self._told = head
        self.throttle.sent(size)
        stream.data(head, end_offset, records, size)

    def tell(self, head: tuple[int, int]) -> None:
        """Send ``head`` without records, unless it was sent already."""
        if self._answered and head != self._told and self._stream is not None:
            self._told = head
            self._stream.tell(head)

    # catching up from the files

    def _go_on_from_files(self) -> None:
        if self._answered and not (self._closed or self._reading or self in self._streams.held):
            self._streams.hub.catching_up.add(self._catch_up)

    def go_on(self) -> None:
        """Look again whether anything may be sent: the throttle, who is in sync, or the room on the connection has
        changed."""
        self._streams.held.discard(self)
        if not self.live:
            self._go_on_from_files()

    async def _ask_follower(self, owed: int) -> int:
        """How many bytes the follower's broker lets come, once it does."""
        if self._closed or self._stream is None:
            raise LinkError("the stream has ended")
        self._granted = asyncio.get_running_loop().create_future()
        self._stream.ask(owed)
        return await self._granted

    def _catch_up(self) -> bool:
        """Send the next piece from the files: whether there is another at once. There is none when the end of the log
        is reached, the credit or an allowance is used up, the connection has no room, or the disk lets wait."""
        streams, stream = self._streams, self._stream
        if self._closed or self._reading or stream is None:
            return False
        if self._next >= streams.log.log_end_offset:
            self.live = True
            return False
        if not stream.has_credit_for(1) or stream.waits_for_room(self.go_on):
            return False
        room = self.throttle.room(READ_BYTES)
        if room <= 0:
            streams.held.add(self)
            return False
        try:
            return self._send_piece(stream, self._read(room, nowait=True))
        except WouldBlock:
            self._reading = True
            self._run(self._read_in_thread(stream, room))
        except KafkaError as error:
            streams.lost(self, f"it can't be caught up: {error}")
        return False

    async def _read_in_thread(self, stream: OutStream, room: int) -> None:
        try:
            data = await asyncio.to_thread(self._read, room, nowait=False)
            self._reading = False
            if not self._closed and self._send_piece(stream, data):
                self._go_on_from_files()
        except KafkaError as error:
            self._streams.lost(self, f"it can't be caught up: {error}")
        finally:
            self._reading = False

    def _send_piece(self, stream: OutStream, data: memoryview) -> bool:
        end_offset = max((header.last_offset + 1 for _, header in iter_batches(data)), default=-1)
        if end_offset < 0:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, f"no batch is at offset {self._next}")
        self._send(stream, self._streams.head(), end_offset, [data], len(data))
        return True

    def _read(self, size: int, *, nowait: bool) -> memoryview:
        """Whole batches from ``_next`` on, of ``size`` bytes at most, or one. Raises KafkaError, WouldBlock."""
        streams = self._streams
        log, reader = streams.log, streams.fresh_reader()
        place = reader.read(self._next, size, log.position_of(log.log_end_offset), nowait=nowait)
        return memoryview(b"") if place is None else reader.fetch_bytes(place, nowait)
