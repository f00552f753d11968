"""An open partition replica: one log, the rules over it, and what the broker is told of both.

It runs on the event loop, which only ever waits for the page cache. What has to reach the disk, or to be cut there,
does so in a thread, and whatever comes meanwhile waits for its turn (rule 22).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from raykafka.cluster.image import PartitionState
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link
from raykafka.log import Log, LogConfig
from raykafka.process.clock import boot_clock_ms
from raykafka.process.tasks import TaskSet
from raykafka.replica.appending import Appender
from raykafka.replica.follower_report import FollowerReport
from raykafka.replica.outbox import Outbox
from raykafka.replica.receiving import Receiver
from raykafka.replica.rules.events import (
    Ack,
    Answer,
    AskSleep,
    CloseStream,
    Cut,
    Diverged,
    OpenStream,
    Propose,
    Refused,
    Reply,
    Seal,
    Sleep,
    Tick,
    Told,
    WriteSeal,
)
from raykafka.replica.rules.partition import Partition
from raykafka.replica.seal_note import SealNote
from raykafka.replica.sending import Holder, Streams
from raykafka.replica.steps import Steps
from raykafka.replica.throttle import Throttle
from raykafka.replica.timers import NEVER_MS, Timers
from raykafka.replica.upkeep import Upkeep
from raykafka.replica.work_queue import WorkQueue
from raykafka.types import NO_EPOCH

logger = logging.getLogger(__name__)

DIVERGED = "its log diverged from its leader's below the high watermark"


class ReplicaIdentity(NamedTuple):
    """Who a replica is to others: ``secret`` proves it on every link, ``partition`` names its topic, topic id and
    partition to a follower's broker, ``broker_epoch`` is the life of its own broker."""

    secret: bytes
    partition: Mapping[str, Any]
    broker_epoch: int


class Replica:
    """``failed(reason, diverged)`` is called once, when this process can't go on with this log: it has to end (rule 1).
    ``diverged``: nor can any other, under this leader (rule 10)."""

    def __init__(
        self,
        link: Link,
        log: Log,
        partition: Partition,
        identity: ReplicaIdentity,
        failed: Callable[[str, bool], None],
    ) -> None:
        self.log = log
        self.partition = partition
        self._link = link
        self._failed = failed
        self._jobs = TaskSet(log.directory.name)
        self._ends = TaskSet(f"the end of {log.directory.name}")
        self._out = Outbox(link, log, partition)
        self._queue = WorkQueue(self._jobs.run, self._out.pause, self._out.resume)
        self._timers = Timers()
        self._upkeep = upkeep = Upkeep(
            log,
            partition,
            self._queue,
            self._timers,
            self._jobs.run,
            flushed=self._flushed,
            start_moved=self._start_moved,
            failed=self._give_up,
        )
        self._steps = steps = Steps(
            log, partition, self._queue, upkeep, self._out, stepped=self._stepped, failed=self._give_up
        )
        self._throttle = throttle = Throttle(link, identity.partition["partition"], partition.broker)
        self._streams = Streams(log, partition, identity.secret, identity.partition, steps.take, throttle)
        self._receiver = Receiver(
            log, partition, identity.broker_epoch, self._queue, upkeep, self._out, steps.take, throttle, self._give_up
        )
        appender = Appender(log, partition, self._queue, upkeep, self._out, self._streams, steps, self._give_up)
        self.append = appender.append
        self._report = FollowerReport(link, partition, self._streams, self._timers)
        self._refused: Refused | None = None
        self._led = NO_EPOCH
        self._told_high_watermark = partition.log.high_watermark
        self._tick_at_ms = NEVER_MS
        self._telling = asyncio.Lock()
        self._closed = False
        self._closing: asyncio.Task[dict[str, Any]] | None = None
        self._falling_asleep: asyncio.Task[None] | None = None
        steps.carry |= {
            Reply: appender.reply,
            Refused: self._refuse,
            OpenStream: self._streams.open,
            CloseStream: self._close_stream,
            Answer: self._receiver.answer,
            Ack: self._receiver.ack,
            Propose: self._propose,
            Diverged: self._diverged,
            AskSleep: self._streams.ask_sleep,
            WriteSeal: self._fall_asleep,
        }
        self._out.view_changed()

    def _flushed(self) -> None:
        self._out.flushed()
        self._receiver.flushed()

    # streams

    async def take_stream(self, connection: socket.socket, peer: dict[str, Any]) -> None:
        """Serve a leader's connection that the broker handed over."""
        await self._receiver.take(connection, peer)

    def _close_stream(self, effect: CloseStream) -> None:
        if effect.follower == self.partition.broker:
            self._receiver.close(effect.stream)
        else:
            self._streams.close(effect.follower, effect.stream)

    def _propose(self, effect: Propose) -> None:
        if not self._link.is_closed:
            self._link.tell("propose", effect._asdict())

    def _diverged(self, effect: Diverged) -> None:
        logger.critical(
            "%s: the leader of epoch %d has other records from offset %d on, below the high watermark %d; this replica "
            "has stopped, and its files are left as they are",
            self.log.directory.name,
            *effect,
        )
        self._failed(DIVERGED, True)

    # the rules

    def _stepped(self, now_ms: int) -> None:
        partition = self.partition
        high_watermark, leading = partition.log.high_watermark, partition.leading
        if high_watermark != self._told_high_watermark:
            self._told_high_watermark = high_watermark
            if leading is not None:
                self._out.view_changed()
                self._streams.watermark_moved()
            else:
                self._out.view_changes()
        if self._streams.held:
            self._streams.release_in_sync()
        if leading is not None:
            due_ms = leading.next_tick_ms(now_ms)
            if due_ms is not None and due_ms < self._tick_at_ms:
                self._tick_at_ms = due_ms
                self._timers.set(self._tick, due_ms - now_ms)
        report = self._report
        if not report.due and ((leading is not None and leading.followers) or report.last):
            report.schedule()

    def _tick(self) -> None:
        self._tick_at_ms = NEVER_MS
        self._steps.take(Tick())

    async def told(self, state: PartitionState, holders: Mapping[int, Holder]) -> dict[str, Any]:
        """Take what the controller decided; ``holders`` are the live brokers that hold this partition. Answers whether
        this replica leads now, and why not if it was to."""
        async with self._telling:
            await self._queue.result_of(lambda: self._tell_rules(state, holders))
            return await self._queue.result_of(self._standing)

    def _tell_rules(self, state: PartitionState, holders: Mapping[int, Holder]) -> None:
        self._refused = None
        if self._closed:
            return  # it is written to the seal
        self._streams.holders = holders
        self._steps.step(
            Told(state, {broker: holder.broker_epoch for broker, holder in holders.items()}), boot_clock_ms()
        )
        self._out.view_changed()

    def _standing(self) -> dict[str, Any]:
        refused, leading = self._refused, self.partition.leading
        if leading is not None and leading.epoch != self._led:
            self._led = leading.epoch
            logger.info("%s: leads epoch %d from %d", self.log.directory.name, leading.epoch, leading.epoch_start)
        return {"leads": leading is not None, "refused": refused.reason if refused else ""}

    def _refuse(self, refused: Refused) -> None:
        self._refused = refused
        if not self._closed:
            logger.warning("%s: epoch %d: %s", self.log.directory.name, refused.leader_epoch, refused.reason)

    # time and disk

    def configure(self, config: Mapping[str, str]) -> None:
        """Obey new effective configs from now on. Raises ValueError or KeyError for a value that is none."""
        self.log.config = LogConfig.from_topic_config(config)
        settings = self.partition.settings
        settings.min_insync_replicas = int(config.get("min.insync.replicas", settings.min_insync_replicas))
        settings.lag_ms = int(config.get("replica.lag.time.max.ms", settings.lag_ms))
        self._upkeep.configure(config)
        self._throttle.configure(config)
        self._streams.throttle_changed()

    def _start_moved(self) -> None:
        self._out.view_changed()
        self._streams.watermark_moved()

    def _give_up(self, reason: str) -> None:
        if self._closed:
            return
        self._steps.step(Cut(reason), boot_clock_ms())
        self._out.send()
        self._failed(reason, False)

    # the end

    async def sleep(self) -> bool:
        """Fall asleep, if that is clean now (rule 17): whether it does. A replica that no leader feeds closes its log
        as it is."""
        await self._queue.result_of(self._try_to_sleep)
        return self._falling_asleep is not None

    def _try_to_sleep(self) -> None:
        partition = self.partition
        if partition.leading is not None:
            self._steps.step(Sleep(), boot_clock_ms())
        elif partition.following is None or partition.following.stream is None:
            seal = partition.closing_seal()
            if seal is not None:
                self._fall_asleep(WriteSeal(seal))

    def _fall_asleep(self, effect: WriteSeal) -> None:
        if self._falling_asleep is None and self._closing is None:
            if not self._link.is_closed:
                self._link.tell("dozing", {})
            self._falling_asleep = self._ends.run(self._leave(effect.seal))

    async def _leave(self, seal: Seal) -> None:
        """Seal the log, tell the broker, and end this process."""
        try:
            left = await self.close(seal)
        except KafkaError as error:
            self._failed(error.message, False)
            return
        with suppress(LinkError):
            await self._link.call("asleep", left)
        self._link.close()

    async def close(self, seal: Seal | None = None) -> dict[str, Any]:
        """Flush, close and seal the log. Answers waiting appends first; none is taken any more. Without ``seal``, it is
        sealed as what it is now. Raises KAFKA_STORAGE_ERROR."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(seal))
        return await asyncio.shield(self._closing)

    def _end_rules(self, seal: Seal | None) -> SealNote | None:
        """What to leave behind, while there is a log to look at."""
        partition, log = self.partition, self.log
        if seal is not None:
            self._out.closed()  # readers have what they need; a view of nobody's epoch would mislead them
        else:
            seal = partition.closing_seal()
        self._steps.step(Cut("the replica is closed"), boot_clock_ms())
        if seal is None or log.failed or seal.log_end != log.log_end_offset:
            return None
        last_epoch = partition.log.history.last_record_epoch(log.log_start_offset, log.log_end_offset)
        return SealNote(seal, last_epoch, self._out.view(log.segments))

    async def _close(self, seal: Seal | None) -> dict[str, Any]:
        self._closed = True
        self._timers.close()
        left = await self._queue.result_of(lambda: self._end_rules(seal))
        self._streams.close_all()
        self._receiver.close_all()
        await self._jobs.wait()
        log = self.log
        self._out.send()  # the last view, while there are files to look at
        note = left.to_note() if left is not None else None
        await asyncio.to_thread(log.close, note)
        self._out.closed()
        return {
            "note": note,
            "log_end_offset": log.log_end_offset,
            "high_watermark": self.partition.log.high_watermark,
            "recovery_point": log.recovery_point,
        }
