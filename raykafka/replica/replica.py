"""An open partition replica: one log, the rules over it, and what the broker is told of both.

It runs on the event loop, which only ever waits for the page cache. What has to reach the disk, or to be cut there,
does so in a thread, and whatever comes meanwhile waits for its turn (rule 22).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from raykafka.cluster.image import PartitionState
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link
from raykafka.log import DuplicateSequence, Log, LogConfig
from raykafka.log.batch import read_header
from raykafka.partition.appends import unpack_append
from raykafka.replica.leaving import Left
from raykafka.replica.outbox import Outbox
from raykafka.replica.receiving import Receiver
from raykafka.replica.rules.events import (
    Ack,
    AdvanceStart,
    Answer,
    AskSleep,
    CloseStream,
    Cut,
    Diverged,
    Effect,
    Event,
    OpenStream,
    Propose,
    Refused,
    Reply,
    Restart,
    Seal,
    SetHistory,
    Sleep,
    Tick,
    Told,
    Truncate,
    WriteSeal,
    Wrote,
)
from raykafka.replica.rules.partition import Partition
from raykafka.replica.sending import Peer, Streams
from raykafka.replica.throttle import Throttle
from raykafka.replica.turns import Turns
from raykafka.replica.upkeep import NEVER_MS, Timers, Upkeep, wall_ms
from raykafka.types import NO_EPOCH

logger = logging.getLogger(__name__)

FIGURES_EVERY_MS = 1000
DIVERGED = "its log diverged from its leader's below the high watermark"
_SLOW = frozenset((SetHistory, Truncate, Restart, AdvanceStart))


def boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class _Produce(NamedTuple):
    """What is kept of an append until it is answered."""

    correlation: int
    base_offset: int
    log_append_time_ms: int


class Surroundings(NamedTuple):
    """What a replica is told of its cluster once: the secret of all links, its topic and partition as a follower's
    broker has to know them, its own broker's epoch."""

    secret: bytes
    identity: Mapping[str, Any]
    broker_epoch: int


class Replica:
    """``failed(reason, diverged)`` is called once, when this process can't go on with this log: it has to end (rule 1).
    ``diverged``: nor can any other, under this leader (rule 10)."""

    def __init__(
        self,
        link: Link,
        log: Log,
        partition: Partition,
        surroundings: Surroundings,
        failed: Callable[[str, bool], None],
    ) -> None:
        self.log = log
        self.partition = partition
        self._link = link
        self._failed = failed
        self._out = Outbox(link, log, partition)
        self._turns = Turns(self._run, self._out.pause, self._out.resume)
        self._timers = Timers()
        self._upkeep = Upkeep(
            log,
            partition,
            self._turns,
            self._timers,
            self._run,
            flushed=self._flushed,
            cut_short=self._cut_short,
            failed=self._give_up,
        )
        self._throttle = throttle = Throttle(link, surroundings.identity["partition"], partition.broker)
        secret, identity, broker_epoch = surroundings
        self._streams = Streams(log, partition, secret, identity, self._streamed, throttle)
        self._receiver = Receiver(log, partition, broker_epoch, self._turns, self._streamed, self._write, throttle)
        self._refused: Refused | None = None
        self._led = NO_EPOCH
        self._shown = partition.log.high_watermark
        self._tick_at_ms = NEVER_MS
        self._flush_messages = log.config.flush_messages
        self._telling = asyncio.Lock()
        self._jobs: set[asyncio.Task[None]] = set()
        self._cut_off: set[int] = set()
        self._figures: dict[str, Any] = {}
        self._figures_due = False
        self._closed = False
        self._closing: asyncio.Task[dict[str, Any]] | None = None
        self._falling_asleep: asyncio.Task[None] | None = None
        self._carry: dict[type, Callable[[Any], None]] = {
            Reply: self._reply,
            SetHistory: self._set_history,
            Truncate: self._truncate,
            Restart: self._restart,
            AdvanceStart: self._advance_start,
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

    # appends

    def append(self, payload: memoryview) -> None:
        """Take one APPEND frame. It is answered by an APPENDED, acks=0 included."""
        if self._turns.busy:
            self._turns.take(lambda: self.append(payload))
            return
        correlation, acks, leader_epoch, timeout_ms, records = unpack_append(payload)
        error = self.partition.admit(acks, leader_epoch)
        if error:
            self._out.answer(correlation, error)
            return
        log = self.log
        try:
            info = log.append_as_leader(records, self.partition.epoch, wall_ms())
            token = _Produce(correlation, info.base_offset, info.log_append_time_ms)
            last_offset = info.last_offset
            self._streams.appended(info.base_offset, info.records)
        except DuplicateSequence as duplicate:
            last_offset = duplicate.base_offset + read_header(records, 0).last_offset_delta
            time_ms = duplicate.timestamp if log.config.log_append_time else -1
            token = _Produce(correlation, duplicate.base_offset, time_ms)
        except KafkaError as refusal:
            self._out.answer(correlation, self._seen_by_producer(refusal.code, records), message=refusal.message)
            if log.failed or self._should_resign(refusal.code):
                self._give_up(refusal.message)
            return
        if self._cut_off:
            self._cut_off.discard(read_header(records, 0).producer_id)
        if self._wants_flush():
            self._out.hold(log.log_end_offset)
            self._upkeep.flush()
        now_ms = boot_ms()
        self._step(Wrote(token, acks, last_offset, now_ms + timeout_ms), now_ms)
        self._out.view_changes()
        self._upkeep.flush_rolled()

    def _seen_by_producer(self, code: ErrorCode, records: memoryview) -> ErrorCode:
        """What to answer for a refused batch. Batches in flight behind one that the disk refused are out of order only
        for that: they get the same answer, after which an idempotent producer sends all of them again, in order. For an
        order that it can't explain it would begin a new epoch, and write again what is there."""
        if code is ErrorCode.KAFKA_STORAGE_ERROR:
            self._cut_off.add(read_header(records, 0).producer_id)
        elif code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER and read_header(records, 0).producer_id in self._cut_off:
            return ErrorCode.KAFKA_STORAGE_ERROR
        return code

    def _should_resign(self, code: ErrorCode) -> bool:
        """Whether another replica can take what this one's disk does not."""
        leading = self.partition.leading
        return code is ErrorCode.KAFKA_STORAGE_ERROR and leading is not None and leading.has_heir()

    def _wants_flush(self) -> bool:
        """Whether ``flush.messages`` has what was written flushed before anybody is told that it is."""
        return self.log.log_end_offset - self.log.recovery_point >= self._flush_messages

    def _flushed(self) -> None:
        self._out.flushed()
        self._receiver.flushed()

    # streams

    async def take_stream(self, connection: socket.socket, peer: dict[str, Any]) -> None:
        """Serve a leader's connection that the broker handed over."""
        await self._receiver.take(connection, peer)

    def _streamed(self, event: Event) -> None:
        if self._turns.busy:
            self._turns.take(lambda: self._streamed(event))
        else:
            self._step(event, boot_ms())

    def _write(self, records: memoryview) -> None:
        """Write what the leader sent. Raises KafkaError."""
        log = self.log
        try:
            log.append_as_follower(records, wall_ms())
        except KafkaError as error:
            if log.failed:
                self._give_up(error.message)
            raise
        if self._wants_flush():
            self._receiver.hold(log.log_end_offset)
            self._upkeep.flush()
        self._out.view_changes()
        self._upkeep.flush_rolled()

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

    def _reply(self, reply: Reply) -> None:
        token: _Produce = reply.token
        self._out.answer(token.correlation, reply.error, token.base_offset, token.log_append_time_ms)

    # the rules

    def _step(self, event: Event, now_ms: int) -> None:
        """Carry out what one event asks for, each effect finished before the next begins."""
        effects, carry = self.partition.step(event, now_ms), self._carry
        for done, effect in enumerate(effects):
            if self._is_slow(effect):
                self._turns.begin(self._carry_slowly(effects[done:]))
                return
            carry[type(effect)](effect)
        self._stepped(now_ms)

    def _is_slow(self, effect: Effect) -> bool:
        return type(effect) in _SLOW or (type(effect) is Answer and self._wants_flush())

    async def _carry_slowly(self, effects: list[Effect]) -> None:
        try:
            async with self._upkeep.disk:
                for effect in effects:
                    if type(effect) is Answer and self._wants_flush():
                        await asyncio.to_thread(self.log.flush)
                    if type(effect) in _SLOW:
                        await asyncio.to_thread(self._carry[type(effect)], effect)
                    else:
                        self._carry[type(effect)](effect)
        except KafkaError as error:
            self._give_up(error.message)
            return
        self._out.view_changed()
        self._stepped(boot_ms())

    def _stepped(self, now_ms: int) -> None:
        partition = self.partition
        high_watermark, leading = partition.log.high_watermark, partition.leading
        if high_watermark != self._shown:
            self._shown = high_watermark
            if leading is not None:
                self._out.view_changed()
                self._streams.watermark_moved()
            else:
                self._out.view_changes()
        if self._streams.held:
            self._streams.let_in_sync_go()
        if leading is not None:
            due_ms = leading.next_tick_ms(now_ms)
            if due_ms is not None and due_ms < self._tick_at_ms:
                self._tick_at_ms = due_ms
                self._timers.set(self._tick, due_ms - now_ms)
        if not self._figures_due and ((leading is not None and leading.followers) or self._figures):
            self._figures_due = True
            self._timers.set(self._tell_figures, FIGURES_EVERY_MS)

    def _tick(self) -> None:
        self._tick_at_ms = NEVER_MS
        self._streamed(Tick())

    def _tell_figures(self) -> None:
        """Tell the broker how this leader's followers stand, when that has changed: {} at a follower."""
        self._figures_due = False
        followers = self._streams.describe(boot_ms())
        figures = {"leader_epoch": self.partition.epoch, "followers": followers} if followers else {}
        if figures == self._figures or self._link.is_closed:
            return
        self._figures, self._figures_due = figures, True
        self._link.tell("figures", figures)
        self._timers.set(self._tell_figures, FIGURES_EVERY_MS)

    async def told(self, state: PartitionState, peers: Mapping[int, Peer]) -> dict[str, Any]:
        """Take what the controller decided; ``peers`` are the live brokers that hold this partition. Answers whether
        this replica leads now, and why not if it was to."""
        async with self._telling:
            await self._turns.taken(lambda: self._tell_rules(state, peers))
            return await self._turns.taken(self._standing)

    def _tell_rules(self, state: PartitionState, peers: Mapping[int, Peer]) -> None:
        self._refused = None
        if self._closed:
            return  # it is written to the seal
        self._streams.peers = peers
        self._step(Told(state, {broker: peer.broker_epoch for broker, peer in peers.items()}), boot_ms())
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

    def _set_history(self, effect: SetHistory) -> None:
        self.log.epochs.replace(effect.history)

    def _truncate(self, effect: Truncate) -> None:
        logger.warning("%s: truncated from %d to %d", self.log.directory.name, self.log.log_end_offset, effect.offset)
        self.log.truncate_to(effect.offset)

    def _restart(self, effect: Restart) -> None:
        logger.warning("%s: all records dropped, begun again at %d", self.log.directory.name, effect.offset)
        self.log.truncate_fully(effect.offset)

    def _advance_start(self, effect: AdvanceStart) -> None:
        self.log.advance_log_start(effect.offset)

    # time and disk

    def configure(self, config: Mapping[str, str]) -> None:
        """Obey new effective configs from now on. Raises ValueError or KeyError for a value that is none."""
        self.log.config = LogConfig.from_topic_config(config)
        self._flush_messages = self.log.config.flush_messages
        settings = self.partition.settings
        settings.min_insync_replicas = int(config.get("min.insync.replicas", settings.min_insync_replicas))
        settings.lag_ms = int(config.get("replica.lag.time.max.ms", settings.lag_ms))
        self._upkeep.configure(config)
        self._throttle.configure(config)
        self._streams.throttle_changed()

    def _cut_short(self) -> None:
        self._out.view_changed()
        self._streams.watermark_moved()

    def _run(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    def _give_up(self, reason: str) -> None:
        if self._closed:
            return
        self._step(Cut(reason), boot_ms())
        self._out.send()
        self._failed(reason, False)

    # the end

    async def sleep(self) -> bool:
        """Fall asleep, if that is clean now (rule 17): whether it does. A replica that no leader feeds closes its log
        as it is."""
        await self._turns.taken(self._try_to_sleep)
        return self._falling_asleep is not None

    def _try_to_sleep(self) -> None:
        partition = self.partition
        if partition.leading is not None:
            self._step(Sleep(), boot_ms())
        elif partition.following is None or partition.following.stream is None:
            seal = partition.closing_seal()
            if seal is not None:
                self._fall_asleep(WriteSeal(seal))

    def _fall_asleep(self, effect: WriteSeal) -> None:
        if self._falling_asleep is None and self._closing is None:
            if not self._link.is_closed:
                self._link.tell("dozing", {})
            self._falling_asleep = asyncio.create_task(self._leave(effect.seal))

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

    def _end_rules(self, seal: Seal | None) -> Left | None:
        """What to leave behind, while there is a log to look at."""
        partition, log = self.partition, self.log
        if seal is not None:
            self._out.closed()  # readers have what they need; a view of nobody's epoch would mislead them
        else:
            seal = partition.closing_seal()
        self._step(Cut("the replica is closed"), boot_ms())
        if seal is None or log.failed or seal.log_end != log.log_end_offset:
            return None
        last_epoch = partition.log.history.last_record_epoch(log.log_start_offset, log.log_end_offset)
        return Left(seal, last_epoch, self._out.view(log.segments))

    async def _close(self, seal: Seal | None) -> dict[str, Any]:
        self._closed = True
        self._timers.close()
        left = await self._turns.taken(lambda: self._end_rules(seal))
        self._streams.close_all()
        self._receiver.close_all()
        while self._jobs:
            await asyncio.wait(self._jobs)
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
