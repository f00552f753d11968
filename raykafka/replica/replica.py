"""An open partition replica: one log, the rules over it, its streams, and what its host is told of them.

It runs on the event loop, which only ever waits for the page cache. What has to reach the disk, or to be cut there,
does so in a thread, and whatever comes meanwhile waits for its turn (rule 22).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from raykafka.cluster.image import PartitionState
from raykafka.log import Log, LogConfig
from raykafka.process.clock import boot_clock_ms
from raykafka.process.tasks import TaskSet
from raykafka.replica import seal_note
from raykafka.replica.appending import Appender
from raykafka.replica.host import Holder, Left, ReplicaHost
from raykafka.replica.hub import StreamHub
from raykafka.replica.outbox import Outbox
from raykafka.replica.receiving import Receiver
from raykafka.replica.rules import events
from raykafka.replica.rules.events import (
    Ack,
    Answer,
    CloseStream,
    Cut,
    Diverged,
    Leave,
    OpenStream,
    Propose,
    Refused,
    Reply,
    Seal,
    Tick,
    Told,
)
from raykafka.replica.rules.partition import Partition
from raykafka.replica.sending import Streams
from raykafka.replica.steps import Steps
from raykafka.replica.throttle import Throttle
from raykafka.replica.timers import NEVER_MS, Timers
from raykafka.replica.upkeep import Upkeep
from raykafka.replica.work_queue import WorkQueue
from raykafka.types import NO_EPOCH, PartitionKey

logger = logging.getLogger(__name__)

DIVERGED = "its log diverged from its leader's below the high watermark"


class Replica:
    """``key`` names it to others, ``broker_epoch`` is the life of its broker, ``hub`` carries its streams. ``append``
    takes what clients send (``Appender.append``), ``receiver`` the streams that leaders open to it. One that is closed,
    or has failed, takes nothing."""

    def __init__(
        self,
        log: Log,
        rules: Partition,
        key: PartitionKey,
        broker_epoch: int,
        hub: StreamHub,
        host: ReplicaHost,
    ) -> None:
        self.log = log
        self.partition = rules
        self._key = key
        self._hub = hub
        self._host = host
        self._jobs = TaskSet(log.directory.name)
        self._out = out = Outbox(hub.turn, host, log, rules)
        self._queue = queue = WorkQueue(self._jobs.run, out.pause, out.resume)
        self._timers = Timers()
        self._upkeep = upkeep = Upkeep(
            log,
            rules,
            queue,
            self._timers,
            self._jobs.run,
            flushed=self._flushed,
            start_moved=self._start_moved,
            failed=self._give_up,
        )
        self._steps = steps = Steps(log, rules, queue, upkeep, out, stepped=self._stepped, failed=self._give_up)
        self._throttle = throttle = Throttle(host, key.partition, rules.broker)
        self._streams = Streams(log, rules, key, hub, steps.take, throttle)
        self.receiver = Receiver(log, rules, broker_epoch, queue, upkeep, out, steps.take, throttle, self._give_up)
        appender = Appender(log, rules, queue, upkeep, out, self._streams, steps, self._give_up)
        self.append = appender.append
        self.delete_records = upkeep.delete_records
        self._led = NO_EPOCH
        self._told_high_watermark = rules.log.high_watermark
        self._tick_at_ms = NEVER_MS
        self._telling = asyncio.Lock()
        self._is_over = False
        self._sealed: events.Left | None = None
        self._closing: asyncio.Task[Left] | None = None
        steps.carry |= {
            Reply: appender.reply,
            Refused: self._refuse,
            OpenStream: self._streams.open,
            CloseStream: self._close_stream,
            Answer: self.receiver.answer,
            Ack: self.receiver.ack,
            Propose: host.propose,
            Diverged: self._diverged,
            events.Left: self._leaves,
        }
        out.view_changed()

    def _flushed(self) -> None:
        self._out.flushed()
        self.receiver.flushed()

    def _close_stream(self, effect: CloseStream) -> None:
        if effect.follower == self.partition.broker:
            self.receiver.close(effect.stream)
        else:
            self._streams.close(effect.follower, effect.stream)

    def describe_followers(self, now_ms: int) -> dict[int, dict[str, Any]]:
        """How each follower stands (``Streams.describe``); nothing at a replica that does not lead."""
        return self._streams.describe(now_ms)

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

    def _tick(self) -> None:
        self._tick_at_ms = NEVER_MS
        self._steps.take(Tick())

    async def told(self, state: PartitionState, holders: Mapping[int, Holder]) -> None:
        """Go by what the controller decided; ``holders`` are the live brokers that hold this partition. Returns once
        that is so: an epoch that begins is on disk (rule 3)."""
        async with self._telling:
            await self._queue.result_of(lambda: self._tell_rules(state, holders))
            await self._queue.result_of(self._note_leading)
        self._hub.look_again(self._key)

    def _tell_rules(self, state: PartitionState, holders: Mapping[int, Holder]) -> None:
        if self._is_over:
            return
        self._streams.holders = holders
        self._steps.step(
            Told(state, {broker: holder.broker_epoch for broker, holder in holders.items()}), boot_clock_ms()
        )
        self._out.view_changed()

    def _note_leading(self) -> None:
        leading = self.partition.leading
        if leading is not None and leading.epoch != self._led:
            self._led = leading.epoch
            logger.info("%s: leads epoch %d from %d", self.log.directory.name, leading.epoch, leading.epoch_start)

    def _refuse(self, refused: Refused) -> None:
        if not self._is_over:
            logger.warning("%s: epoch %d: %s", self.log.directory.name, refused.leader_epoch, refused.reason)
            self._host.refused(refused.leader_epoch, refused.reason)

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

    # the end

    def _diverged(self, effect: Diverged) -> None:
        logger.critical(
            "%s: the leader of epoch %d has other records from offset %d on, below the high watermark %d; this replica "
            "has stopped, and its files are left as they are",
            self.log.directory.name,
            *effect,
        )
        self._fail(DIVERGED, True)

    def _give_up(self, reason: str) -> None:
        """The log can't be relied on, or another replica can take what this one's disk does not."""
        if not self._is_over:
            self._is_over = True
            self._steps.step(Cut(reason), boot_clock_ms())
            self._fail(reason, False)

    def _fail(self, reason: str, diverged: bool) -> None:
        self._is_over = True
        self._out.end()
        self._host.failed(reason, diverged)

    async def leave(self) -> Left | None:
        """Give the log up for another actor of this broker, if that is clean now (rule 17): closed, with the seal by
        which that one goes on in the same epoch. None if it is not: ask again. Raises KAFKA_STORAGE_ERROR."""
        await self._queue.result_of(self._try_to_leave)
        return await self.close() if self._sealed is not None else None

    def _try_to_leave(self) -> None:
        if not self._is_over:
            self._steps.step(Leave(), boot_clock_ms())

    def _leaves(self, effect: events.Left) -> None:
        self._sealed, self._is_over = effect, True

    async def close(self, *, flush: bool = True) -> Left:
        """Close and seal the log. Answers waiting appends first; none is taken any more. Without ``flush`` nothing is
        synced, and the seal holds as long as the machine runs. Raises KAFKA_STORAGE_ERROR."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(flush))
        return await asyncio.shield(self._closing)

    def _end_rules(self) -> Seal | None:
        """What to leave behind, while there is a log to look at."""
        self._is_over = True
        seal = self.partition.closing_seal() if self._sealed is None else self._sealed.seal
        self._steps.step(Cut("the replica is closed"), boot_clock_ms())
        if seal is None or self.log.failed or seal.log_end != self.log.log_end_offset:
            return None
        return seal

    async def _close(self, flush: bool) -> Left:
        self._timers.close()
        seal = await self._queue.result_of(self._end_rules)
        self._streams.close_all()
        self.receiver.close_all()
        await self._jobs.wait()
        self._out.end()
        note = seal_note.note_of(seal) if seal is not None else None
        log = self.log
        try:
            await asyncio.to_thread(log.close, note, flush=flush)
        finally:
            self._out.closed()
        return Left(note, log.log_start_offset, log.log_end_offset, self.partition.checkpoint, log.recovery_point)
