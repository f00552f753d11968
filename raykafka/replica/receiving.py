"""The follower's end of a stream: takes the connection that its broker hands over, writes what comes, acknowledges.

Acknowledgements are cumulative: one for each pass of the event loop, however many frames it brought.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link, adopt
from raykafka.log import Log
from raykafka.log.batch_layout import BASE_OFFSET
from raykafka.process.clock import wall_clock_ms
from raykafka.process.tasks import TaskSet
from raykafka.replica import stream_frames as frames
from raykafka.replica.outbox import Outbox
from raykafka.replica.rules.events import Ack, Answer, Hello, Received, Sleep, StreamId, StreamLost
from raykafka.replica.rules.partition import Partition
from raykafka.replica.throttle import FOLLOWER, Throttle
from raykafka.replica.upkeep import Upkeep
from raykafka.replica.work_queue import WorkQueue

logger = logging.getLogger(__name__)

Step = Callable[[Hello | Received | Sleep | StreamLost], None]


class Receiver:
    """The streams that leaders have open to this replica: one that is followed, and older ones on their way out.

    ``step`` gives an event to the rules; ``failed(reason)`` is called when the log takes no more writes.
    """

    def __init__(
        self,
        log: Log,
        partition: Partition,
        broker_epoch: int,
        queue: WorkQueue,
        upkeep: Upkeep,
        out: Outbox,
        step: Step,
        throttle: Throttle,
        failed: Callable[[str], None],
    ) -> None:
        self._log = log
        self._partition = partition
        self._broker_epoch = broker_epoch
        self._queue = queue
        self._step = step
        self._upkeep = upkeep
        self._out = out
        self._throttle = throttle
        self._failed = failed
        self._tasks = TaskSet(f"{log.directory.name}: the streams from its leaders")
        self._loop = asyncio.get_running_loop()
        self._links: dict[StreamId, Link] = {}
        self._quiet_beats: dict[Link, int] = {}
        self._beat: asyncio.TimerHandle | None = None
        self._acks: dict[StreamId, int] = {}
        self._held_until = 0
        self._closed = False

    async def take(self, sock: socket.socket, peer: dict[str, Any]) -> None:
        """Serve a connection from a leader. ``peer`` is what the leader said of itself and of the stream when it
        connected."""
        link = await adopt(sock, peer)
        if self._closed:
            link.transport.abort()
            return
        frames.notice_silence(link)
        stream = StreamId(*peer["stream"])

        def ended(_: object) -> None:
            self._quiet_beats.pop(link, None)
            if self._links.get(stream) is link:
                del self._links[stream]
                self._step(StreamLost(self._partition.broker, stream))

        link.start(on_frame=lambda kind, payload: self._frame(link, stream, kind, payload), on_close=ended)
        link.send(frames.READY)
        self._quiet_beats[link] = 0
        if self._beat is None:
            self._beat = self._loop.call_later(frames.BEAT_S, self._beats)

    def _beats(self) -> None:
        """Drop the connection of a leader that has been silent for longer than the allowed lag: one that lives sends a
        frame at every beat (rule 12)."""
        for link, quiet in tuple(self._quiet_beats.items()):
            self._quiet_beats[link] = quiet + 1
            silent_s = quiet * frames.BEAT_S
            if silent_s * 1000 > self._partition.settings.lag_ms:
                logger.warning("%s: its leader has been silent for %.1f s", self._log.directory.name, silent_s)
                link.transport.abort()
        self._beat = self._loop.call_later(frames.BEAT_S, self._beats) if self._quiet_beats else None

    def _frame(self, link: Link, stream: StreamId, kind: int, payload: memoryview) -> None:
        if link.transport.is_closing():
            return  # what an older stream still brings is dropped (rule 11)
        if kind == frames.ASK:
            self._quiet_beats[link] = 0
            self._tasks.run(self._grant(link, frames.unpack_bytes(payload)))
            return
        if self._queue.busy:
            self._queue.submit(lambda: self._frame(link, stream, kind, payload))
            return
        self._quiet_beats[link] = 0
        if kind == frames.DATA:
            self._data(link, stream, payload)
        elif kind == frames.SLEEP:
            self._step(Sleep(stream, frames.unpack_sleep(payload)))
        elif kind == frames.HELLO:
            hello = frames.unpack_hello(payload)
            if hello.stream != stream or stream in self._links:
                link.transport.abort()
                return
            self._links[stream] = link
            self._step(hello)
            if self._partition.stopped is not None:
                self.close(stream)

    async def _grant(self, link: Link, owed: int) -> None:
        """Answer a leader that is held back until this broker takes more of throttled replicas."""
        try:
            granted = await self._throttle.ask(FOLLOWER, owed)
        except LinkError:
            return  # the link to the broker has ended, and with it this process
        if not link.is_closed:
            link.send(frames.GRANT, frames.pack_bytes(granted))

    def _data(self, link: Link, stream: StreamId, payload: memoryview) -> None:
        following = self._partition.following
        if following is None or following.stream != stream:
            link.transport.abort()
            return
        log_start, high_watermark, records = frames.unpack_data(payload)
        if not records:
            self.ack(Ack(stream, self._log.log_end_offset))  # the leader hears that this replica lives
        else:
            base_offset = BASE_OFFSET.unpack_from(records)[0]
            if not following.takes(stream, base_offset):
                logger.error(
                    "%s: its leader sent offset %d where %d comes next",
                    self._log.directory.name,
                    base_offset,
                    self._log.log_end_offset,
                )
                link.transport.abort()
                return
            try:
                self._write(records)
            except KafkaError as error:
                logger.error("%s: what its leader sent can't be written: %s", self._log.directory.name, error.message)
                link.send(frames.REFUSED)
                link.close()
                return
            self._count(len(records))
        self._step(Received(stream, self._log.log_end_offset, log_start, high_watermark))

    def _write(self, records: memoryview) -> None:
        """Write what the leader sent, whole batches, at the log's end. Raises KafkaError."""
        log = self._log
        try:
            log.append_as_follower(records, wall_clock_ms())
        except KafkaError as error:
            if log.failed:
                self._failed(error.message)
            raise
        if self._upkeep.must_flush():
            self.hold(log.log_end_offset)
            self._upkeep.flush()
        self._out.view_changes()
        self._upkeep.flush_rolled()

    def _count(self, size: int) -> None:
        """Count what an in-sync replica received against the throttle. What comes to one that is not in sync has been
        granted before."""
        broker, state = self._partition.broker, self._partition.state
        if self._throttle.holds(FOLLOWER, broker) and state is not None and broker in state.isr:
            self._throttle.spent(FOLLOWER, size)

    def answer(self, effect: Answer) -> None:
        """Send the answer to a Hello."""
        link = self._links.get(effect.stream)
        self._held_until = 0  # what has to be flushed was, before this
        if link is not None and not link.is_closed:
            position = frames.Position(effect.log_end, effect.last_epoch, self._broker_epoch)
            link.send(frames.ANSWER, position.pack())

    def ack(self, effect: Ack) -> None:
        """Acknowledge at the end of this pass of the event loop."""
        if not self._acks:
            self._loop.call_soon(self._send_acks)
        self._acks[effect.stream] = effect.log_end

    def hold(self, until_flushed_to: int) -> None:
        """Until the log is flushed to the offset ``until_flushed_to``, acknowledge only what is flushed."""
        self._held_until = until_flushed_to

    def flushed(self) -> None:
        """The log's recovery point moved."""
        stream = self._partition.following.stream if self._partition.following else None
        if stream is not None:
            self.ack(Ack(stream, self._log.log_end_offset))

    def _send_acks(self) -> None:
        acks, self._acks = self._acks, {}
        flushed_to = self._log.recovery_point
        if flushed_to < self._held_until:
            acks = {stream: min(log_end, flushed_to) for stream, log_end in acks.items()}
        for stream, log_end in acks.items():
            link = self._links.get(stream)
            if link is not None and not link.is_closed:
                link.send(frames.ACK, frames.pack_ack(log_end))

    def close(self, stream: StreamId) -> None:
        """Drop a stream's connection, with whatever is unread on it."""
        link = self._links.pop(stream, None)
        if link is not None:
            link.transport.abort()

    def close_all(self) -> None:
        """Drop all connections; none is taken any more."""
        self._closed = True
        if self._beat is not None:
            self._beat.cancel()
        for stream in list(self._links):
            self.close(stream)
