"""The follower's end of its leaders' streams: writes what comes, acknowledges.

Acknowledgements are cumulative: one for each pass of the event loop, however many frames it brought.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from raykafka.errors import KafkaError, LinkError
from raykafka.log import Log
from raykafka.log.batch_layout import BASE_OFFSET
from raykafka.process.clock import wall_clock_ms
from raykafka.process.tasks import TaskSet
from raykafka.replica import stream_frames as frames
from raykafka.replica.in_connection import InStream
from raykafka.replica.outbox import Outbox
from raykafka.replica.rules.events import Ack, Answer, Hello, Received, StreamId, StreamLost
from raykafka.replica.rules.partition import Partition
from raykafka.replica.throttle import FOLLOWER, Throttle
from raykafka.replica.upkeep import Upkeep
from raykafka.replica.work_queue import WorkQueue

logger = logging.getLogger(__name__)

Step = Callable[[Hello | Received | StreamLost], None]


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
        self._streams: dict[StreamId, InStream] = {}
        self._held_until = 0
        self._closed = False

    # what comes

    def hello(self, stream: InStream) -> bool:
        """Take ``stream``, which a leader opens, or answer False: it is ahead of what this replica was told (rule
        3)."""
        state = self._partition.state
        if self._closed or state is None or state.leader_epoch < stream.hello.stream.leader_epoch:
            return False
        stream.replica = self
        self._begin(stream)
        return True

    def _begin(self, stream: InStream) -> None:
        if self._queue.busy:
            self._queue.submit(lambda: self._begin(stream))
            return
        name = stream.hello.stream
        if not stream.is_open:
            return
        if self._closed or name in self._streams:
            stream.end()
            return
        self._streams[name] = stream
        self._step(stream.hello)
        if self._partition.stopped is not None:
            self.close(name)

    def data(self, stream: InStream, log_start: int, high_watermark: int, records: memoryview) -> None:
        """Whole batches came, or none, with where the leader's log starts and how far it is committed."""
        if self._queue.busy:
            self._queue.submit(lambda: self.data(stream, log_start, high_watermark, records))
            return
        if not stream.is_open:
            return  # what an older stream still brings is dropped (rule 11)
        following, name = self._partition.following, stream.hello.stream
        if following is None or following.stream != name:
            self._drop(stream)
            return
        if records:
            base_offset = BASE_OFFSET.unpack_from(records)[0]
            if not following.takes(name, base_offset):
                logger.error(
                    "%s: its leader sent offset %d where %d comes next",
                    self._log.directory.name,
                    base_offset,
                    self._log.log_end_offset,
                )
                self._drop(stream)
                return
            try:
                self._write(records)
            except KafkaError as error:
                logger.error("%s: what its leader sent can't be written: %s", self._log.directory.name, error.message)
                self._drop(stream, frames.REFUSED)
                return
            self._count(len(records))
        self._step(Received(name, self._log.log_end_offset, log_start, high_watermark))

    def _drop(self, stream: InStream, reason: int = frames.CLOSED) -> None:
        """End a stream that can't go on."""
        stream.end(reason)
        self.lost(stream)

    def lost(self, stream: InStream) -> None:
        """A stream is over."""
        name = stream.hello.stream
        if self._streams.get(name) is stream:
            del self._streams[name]
            self._step(StreamLost(self._partition.broker, name))

    def ask(self, stream: InStream, owed: int) -> None:
        """A leader is held back until this broker takes more of throttled replicas: it is told when."""
        self._tasks.run(self._grant(stream, owed))

    async def _grant(self, stream: InStream, owed: int) -> None:
        try:
            granted = await self._throttle.ask(FOLLOWER, owed)
        except LinkError:
            return  # the link to the broker has ended, and so does this actor
        stream.grant(granted)

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
            self._held_until = log.log_end_offset  # until it is flushed, only what is flushed is acknowledged
            self._upkeep.flush()
        self._out.view_changes()
        self._upkeep.wrote()

    def _count(self, size: int) -> None:
        """Count what an in-sync replica received against the throttle. What comes to one that is not in sync has been
        granted before."""
        broker, state = self._partition.broker, self._partition.state
        if self._throttle.holds(FOLLOWER, broker) and state is not None and broker in state.isr:
            self._throttle.spent(FOLLOWER, size)

    # what goes back

    def answer(self, effect: Answer) -> None:
        """Send the answer to a Hello."""
        self._held_until = 0  # what has to be flushed was, before this
        stream = self._streams.get(effect.stream)
        if stream is not None:
            stream.answer(frames.Position(effect.log_end, effect.last_epoch, self._broker_epoch))

    def ack(self, effect: Ack) -> None:
        """Acknowledge at the end of this pass of the event loop."""
        stream = self._streams.get(effect.stream)
        if stream is not None:
            flushed_to = self._log.recovery_point
            stream.ack(effect.log_end if flushed_to >= self._held_until else min(effect.log_end, flushed_to))

    def flushed(self) -> None:
        """The log's recovery point moved."""
        name = self._partition.following.stream if self._partition.following else None
        if name is not None:
            self.ack(Ack(name, self._log.log_end_offset))

    def close(self, name: StreamId) -> None:
        """End a stream, with whatever it still brings."""
        stream = self._streams.pop(name, None)
        if stream is not None:
            stream.end()

    def close_all(self) -> None:
        """End all streams; none is taken any more."""
        self._closed = True
        self._tasks.cancel()
        for name in tuple(self._streams):
            self.close(name)
