"""The leader's ends of its streams: what was appended goes out to every follower, from memory while it keeps up and
from the segment files while it does not.

What an append leaves in memory is handed to the sockets at the end of the pass of the event loop, one write for each
follower. A follower for which more than WINDOW_BYTES are unacknowledged gets nothing until it acknowledges some, and
then what it missed from the files, a piece in each pass, so that live traffic goes on beside it. One that is throttled
gets that in the pieces which its allowances let through.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link, connect_tcp
from raykafka.log import Log, LogReader, WouldBlock
from raykafka.log.batch import iter_batches
from raykafka.process.tasks import TaskSet
from raykafka.replica import stream_frames as frames
from raykafka.replica.rules.events import Acked, Answered, AskSleep, Hello, OpenStream, StreamId, StreamLost
from raykafka.replica.rules.partition import Partition
from raykafka.replica.throttle import StreamThrottle, Throttle

WINDOW_BYTES = 8 * 1024 * 1024
READ_BYTES = 512 * 1024
IDLE_S = 0.1
_CONNECT_WITHIN_S = 2.0

logger = logging.getLogger(__name__)

Step = Callable[[Acked | Answered | StreamLost], None]


class Holder(NamedTuple):
    """A live broker that holds a replica of this partition: its inter-broker port, in its life ``broker_epoch``."""

    host: str
    port: int
    broker_epoch: int


class Streams:
    """All streams of one leader. ``step`` gives an event to the rules; ``identity`` names the partition to the
    follower's broker. ``held`` are the senders that wait for an allowance."""

    def __init__(
        self,
        log: Log,
        partition: Partition,
        secret: bytes,
        identity: Mapping[str, Any],
        step: Step,
        throttle: Throttle,
    ) -> None:
        self.log = log
        self.secret = secret
        self.identity = identity
        self.step = step
        self.throttle = throttle
        self.held: set[Sender] = set()
        self._holders: Mapping[int, Holder] = {}
        self.reader = LogReader(log.directory)
        self._segments_version = -1
        self._partition = partition
        self._state = partition.log
        self._loop = asyncio.get_running_loop()
        self._senders: dict[int, Sender] = {}
        self._away: set[int] = set()
        self._turn: list[memoryview] = []
        self._turn_base = 0
        self._idle: asyncio.TimerHandle | None = None
        self._beat: asyncio.TimerHandle | None = None

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
        """Connect to a follower; an earlier stream to it ends."""
        before = self._senders.pop(effect.follower, None)
        if before is not None:
            before.close()
        self._senders[effect.follower] = Sender(self, effect.follower, effect.hello)
        if self._beat is None:
            self._beat = self._loop.call_later(frames.BEAT_S, self._beats)

    def _beats(self) -> None:
        """Send the high watermark to each idle follower, and end the stream to one that has been silent for longer than
        the allowed lag (rule 12). Silence is counted in beats of this event loop, so that a stall of this process does
        not count as a follower's."""
        head, lag_s = self.head(), self._partition.settings.lag_ms / 1000
        for sender in tuple(self._senders.values()):
            sender.beat(head, lag_s)
        self._beat = self._loop.call_later(frames.BEAT_S, self._beats) if self._senders else None

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
        if sender is not None and sender.stream == stream:
            del self._senders[follower]
            sender.close()

    def ask_sleep(self, effect: AskSleep) -> None:
        """Send a follower the request to fall asleep, which ends its stream."""
        sender = self._senders.get(effect.follower)
        if sender is not None and sender.stream == effect.stream:
            del self._senders[effect.follower]
            sender.ask_sleep(effect.log_end)

    def close_all(self) -> None:
        """End all streams."""
        for timer in (self._idle, self._beat):
            if timer is not None:
                timer.cancel()
        senders, self._senders = self._senders, {}
        for sender in senders.values():
            sender.close()
        self.reader.close()

    def lost(self, sender: Sender, reason: str, refused: bool = False) -> None:
        """A sender's connection ended, or has to. ``refused``: the follower could not write what it was sent."""
        if self._senders.get(sender.follower) is not sender:
            return
        del self._senders[sender.follower]
        sender.close()
        # a follower that stays away is tried again and again: that is said once
        level = logging.DEBUG if sender.follower in self._away else logging.WARNING
        self._away.add(sender.follower)
        logger.log(level, "%s: the stream to broker %d ended: %s", self.log.directory.name, sender.follower, reason)
        self.step(StreamLost(sender.follower, sender.stream, refused))

    def arrived(self, follower: int, log_end: int) -> None:
        """A follower's log is the beginning of this one, and ends there."""
        self._away.discard(follower)
        logger.info("%s: broker %d follows from %d", self.log.directory.name, follower, log_end)

    # sending

    def appended(self, base_offset: int, records: memoryview) -> None:
        """The log holds ``records`` from ``base_offset`` to its end. They must not change any more."""
        if not self._senders:
            return
        if not self._turn:
            self._turn_base = base_offset
            self._loop.call_soon(self._end_turn)
        self._turn.append(records)

    def _end_turn(self) -> None:
        records, self._turn = self._turn, []
        size = sum(map(len, records))
        head = self.head()
        for sender in tuple(self._senders.values()):
            sender.offer(head, self._turn_base, self.log.log_end_offset, records, size)

    def head(self) -> tuple[int, int]:
        """What every frame says of the leader's log: where it starts, and its high watermark."""
        return self._state.start, self._state.high_watermark

    def watermark_moved(self) -> None:
        """Followers that get no records soon are told without any (rule 12)."""
        if self._idle is None and self._senders:
            self._idle = self._loop.call_later(IDLE_S, self._tell_idle)

    def _tell_idle(self) -> None:
        self._idle = None
        head = self.head()
        for sender in tuple(self._senders.values()):
            sender.tell(head)

    def fresh_reader(self) -> LogReader:
        """A reader of the log as it is now, for what is sent from the files."""
        log = self.log
        if log.segments_version != self._segments_version or log.truncations != self.reader.truncations:
            self._segments_version = log.segments_version
            self.reader.update(log.segments, log.truncations)
        return self.reader

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
                "unacked_bytes": sender.unacked_bytes if sender else 0,
                "log_end": follower.end,
                "lag_records": lag_records,
                "lag_ms": lag_ms,
            }
        return progress


class Sender:
    """One stream. ``live``: all of the log has been handed to the connection, so that appends can follow from
    memory."""

    def __init__(self, streams: Streams, follower: int, hello: Hello) -> None:
        self.follower = follower
        self.stream = hello.stream
        self.live = False
        self.unacked_bytes = 0
        self._streams = streams
        self._hello = hello
        self._link: Link | None = None
        self._answered = False
        self._closed = False
        self._next = 0
        self._granted: asyncio.Future[int] | None = None
        self._unacked: deque[tuple[int, int]] = deque()
        self._told = (-1, -1)
        self._pumping = False
        self._quiet_beats = 0
        self._beaten = True
        self.holder = streams.holders.get(follower)
        self._tasks = TaskSet(f"{streams.log.directory.name}: the stream to broker {follower}", self._failed)
        self.throttle = StreamThrottle(
            streams.throttle,
            follower,
            self._ask_follower,
            lambda: streams.waits_for(follower),
            self._tasks.run,
            self.go_on,
        )
        self._tasks.run(self._connect())

    def _failed(self, error: BaseException) -> None:
        self._streams.lost(self, f"{type(error).__name__}: {error}")

    async def _connect(self) -> None:
        streams, holder = self._streams, self.holder
        if holder is None:
            streams.lost(self, "its broker is not registered")
            return
        identity = {**streams.identity, "role": frames.STREAM_ROLE, "stream": list(self.stream)}
        try:
            async with asyncio.timeout(_CONNECT_WITHIN_S):
                link = await connect_tcp(holder.host, holder.port, streams.secret, identity)
        except (OSError, LinkError, TimeoutError) as error:
            streams.lost(self, f"{holder.host}:{holder.port} can't be reached: {error or type(error).__name__}")
            return
        if self._closed:
            link.close()
            return
        if (link.peer.get("broker_id"), link.peer.get("broker_epoch")) != (self.follower, holder.broker_epoch):
            link.close()
            streams.lost(self, f"{holder.host}:{holder.port} is answered by another life or broker")
            return
        frames.notice_silence(link)
        self._link = link
        link.start(on_frame=self._frame, on_close=lambda error: streams.lost(self, str(error or "end of file")))

    def ask_sleep(self, log_end: int) -> None:
        """Ask the follower to fall asleep at the leader's log end, and end the stream."""
        self._end()
        if self._link is not None and not self._link.is_closed:
            self._link.send(frames.SLEEP, frames.pack_sleep(log_end))
            self._link.close()

    def close(self) -> None:
        """Drop the connection, with whatever is unread on it."""
        self._end()
        if self._link is not None:
            self._link.transport.abort()

    def _end(self) -> None:
        self._closed, self.live = True, False
        self._streams.held.discard(self)
        if self._granted is not None:
            self._granted.cancel()

    def _frame(self, kind: int, payload: memoryview) -> None:
        if self._closed or self._link is None:
            return
        self._quiet_beats = 0
        if kind == frames.ACK:
            log_end = frames.unpack_ack(payload)
            unacked = self._unacked
            while unacked and unacked[0][0] <= log_end:
                self.unacked_bytes -= unacked.popleft()[1]
            self._streams.step(Acked(self.follower, self.stream, log_end))
            if not self.live:
                self._pump_soon()
        elif kind == frames.GRANT:
            if self._granted is not None and not self._granted.done():
                self._granted.set_result(frames.unpack_bytes(payload))
        elif kind == frames.REFUSED:
            self._streams.lost(self, "it can't write what it is sent", refused=True)
        elif kind == frames.READY:
            self._link.send(frames.HELLO, frames.pack_hello(self._hello))
        elif kind == frames.ANSWER and not self._answered:
            position = frames.Position.unpack(payload)
            self._answered = True
            self._streams.arrived(self.follower, position.log_end)
            self._next = position.log_end
            self._streams.step(
                Answered(self.follower, self.stream, position.broker_epoch, position.log_end, position.last_epoch)
            )
            self._pump_soon()

    def offer(
        self, head: tuple[int, int], base_offset: int, end_offset: int, records: list[memoryview], size: int
    ) -> None:
        """One pass of the event loop appended ``records``, of ``size`` bytes, from ``base_offset`` to ``end_offset``:
        send them, if all before them has been sent and the window is not full."""
        fits = self._next == base_offset and self.unacked_bytes < WINDOW_BYTES
        if self.live and fits and not self.throttle.holds:
            self._send(head, end_offset, records, size)
        elif self._next < end_offset:
            self.live = False
            if self._answered:
                self._pump_soon()

    def _send(self, head: tuple[int, int], end_offset: int, records: list[memoryview], size: int) -> None:
        if self._link is None or self._link.is_closed:
            return
        self._next = end_offset
        self._told, self._beaten = head, True
        self._unacked.append((end_offset, size))
        self.unacked_bytes += size
        self.throttle.sent(size)
        self._link.send(frames.DATA, frames.pack_data(*head), *records)

    def tell(self, head: tuple[int, int]) -> None:
        """Send ``head`` without records, unless it was sent already."""
        if self._answered and head != self._told:
            self._tell(head)

    def _tell(self, head: tuple[int, int]) -> None:
        if self._link is not None and not self._link.is_closed:
            self._told, self._beaten = head, True
            self._link.send(frames.DATA, frames.pack_data(*head))

    def beat(self, head: tuple[int, int], lag_s: float) -> None:
        """One beat passed: send a frame if none was sent in it, and end the stream if the follower has been silent for
        longer than ``lag_s``."""
        silent_s = self._quiet_beats * frames.BEAT_S
        self._quiet_beats += 1
        if silent_s > lag_s:
            self._streams.lost(self, f"it has been silent for {silent_s:.1f} s")
        elif self._answered and not self._beaten:
            self._tell(head)
        self._beaten = False

    # catching up from the files

    def _pump_soon(self) -> None:
        if not self._pumping and not self._closed and self not in self._streams.held:
            self._pumping = True
            self._tasks.run(self._pump())

    def go_on(self) -> None:
        """Look again whether anything may be sent: the throttle, or who is in sync, has changed."""
        self._streams.held.discard(self)
        if self._answered and not self.live:
            self._pump_soon()

    async def _ask_follower(self, owed: int) -> int:
        """How many bytes the follower's broker lets come, once it does."""
        if self._link is None or self._link.is_closed:
            raise LinkError("the stream has ended")
        self._granted = asyncio.get_running_loop().create_future()
        self._link.send(frames.ASK, frames.pack_bytes(owed))
        return await self._granted

    async def _pump(self) -> None:
        """Send from the files until the end of the log is reached, the window is full, an allowance is used up or the
        stream is over."""
        streams = self._streams
        try:
            while not self._closed and self.unacked_bytes < WINDOW_BYTES:
                if self._next >= streams.log.log_end_offset:
                    self.live = True
                    return
                room = self.throttle.room(READ_BYTES)
                if room <= 0:
                    streams.held.add(self)
                    return
                data = await self._read(room)
                if self._closed:
                    return
                end_offset = max((header.last_offset + 1 for _, header in iter_batches(data)), default=-1)
                if end_offset < 0:
                    raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, f"no batch is at offset {self._next}")
                self._send(streams.head(), end_offset, [data], len(data))
                await asyncio.sleep(0)
        except KafkaError as error:
            streams.lost(self, f"it can't be caught up: {error}")
        finally:
            self._pumping = False

    async def _read(self, size: int) -> memoryview:
        """Whole batches from ``_next`` on, of ``size`` bytes at most, or one. Raises KafkaError."""
        streams = self._streams
        log, reader = streams.log, streams.fresh_reader()
        end = log.position_of(log.log_end_offset)

        def read(nowait: bool) -> memoryview:
            place = reader.read(self._next, size, end, nowait=nowait)
            return memoryview(b"") if place is None else reader.fetch_bytes(place, nowait)

        try:
            return read(True)
        except WouldBlock:
            return await asyncio.to_thread(read, False)
