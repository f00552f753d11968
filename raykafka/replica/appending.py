"""The leader's appends: what clients send goes through the rules into the log, to the followers, and is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log import DuplicateSequence, Log
from raykafka.log.batch import read_header
from raykafka.log.compression import TooManyBytes
from raykafka.log.validation import QUICK_BYTES, Checked, is_slow_to_check
from raykafka.partition.appends import Appended, Done
from raykafka.process.clock import boot_clock_ms, wall_clock_ms
from raykafka.replica.outbox import Outbox
from raykafka.replica.refused_producers import RefusedProducers
from raykafka.replica.rules.events import Reply, Wrote
from raykafka.replica.rules.partition import Partition
from raykafka.replica.sending import Streams
from raykafka.replica.steps import Steps
from raykafka.replica.upkeep import Upkeep
from raykafka.replica.work_queue import WorkQueue
from raykafka.types import NO_EPOCH


class _Produce(NamedTuple):
    """What is kept of an append until it is answered."""

    done: Done
    base_offset: int
    log_append_time_ms: int


class Appender:
    """``failed(reason)`` is called when this replica can't lead on with its log: the log takes no more writes, or
    another replica can take what this one's disk does not."""

    def __init__(
        self,
        log: Log,
        partition: Partition,
        queue: WorkQueue,
        upkeep: Upkeep,
        out: Outbox,
        streams: Streams,
        steps: Steps,
        failed: Callable[[str], None],
    ) -> None:
        self._log = log
        self._partition = partition
        self._queue = queue
        self._upkeep = upkeep
        self._out = out
        self._streams = streams
        self._steps = steps
        self._failed = failed
        self._refused = RefusedProducers()
        self._refused_in = NO_EPOCH

    def append(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        """Append ``records`` as leader; ``done`` is called once with the outcome, at the end of a pass of the event
        loop, acks=0 included. ``acks`` is 0, 1 or -1; ``leader_epoch`` ANY_EPOCH, or the only one that may take it.
        ``records`` must not change any more."""
        if self._queue.busy:
            self._queue.submit(lambda: self.append(records, acks, timeout_ms, leader_epoch, done))
            return
        error = self._partition.admit(acks, leader_epoch)
        if self._refused and not error:
            error = self._refused_now().behind(records)
        if error:
            self._refuse(records, error)
            self._out.answer(done, self._refusal(error))
        elif is_slow_to_check(records):
            self._check_slowly(records, acks, timeout_ms, leader_epoch, done)
        else:
            try:
                checked = self._log.check(records, wall_clock_ms(), most_bytes=QUICK_BYTES)
            except TooManyBytes:
                self._check_slowly(records, acks, timeout_ms, leader_epoch, done)
            except KafkaError as refusal:
                self._refuse(records, refusal.code)
                self._out.answer(done, self._refusal(refusal.code, refusal.message))
            else:
                self._write(records, checked, acks, timeout_ms, done)

    def _check_slowly(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        """Check the batches in a thread; what comes meanwhile waits for them."""
        outcome: Checked | KafkaError = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "the batches could not be checked")

        async def check() -> None:
            nonlocal outcome
            try:
                outcome = await asyncio.to_thread(self._log.check, records, wall_clock_ms())
            except KafkaError as refusal:
                outcome = KafkaError(refusal.code, refusal.message)  # without what it was raised over

        def go_on() -> None:
            error = self._partition.admit(acks, leader_epoch)  # it may have failed meanwhile
            refusal = KafkaError(error) if error else outcome
            if isinstance(refusal, KafkaError):
                self._refuse(records, refusal.code)
                self._out.answer(done, self._refusal(refusal.code, refusal.message))
            else:
                self._write(records, refusal, acks, timeout_ms, done)

        self._queue.begin(check(), go_on, pauses=False)

    def _write(self, records: memoryview, checked: Checked, acks: int, timeout_ms: int, done: Done) -> None:
        log = self._log
        try:
            info = log.append_as_leader(records, self._partition.epoch, wall_clock_ms(), checked=checked)
            token = _Produce(done, info.base_offset, info.log_append_time_ms)
            last_offset = info.last_offset
            self._streams.appended(info.base_offset, info.records)
        except DuplicateSequence as duplicate:
            last_offset = duplicate.base_offset + read_header(records, 0).last_offset_delta
            time_ms = duplicate.timestamp if log.config.log_append_time else -1
            token = _Produce(done, duplicate.base_offset, time_ms)
        except KafkaError as refusal:
            self._refuse(records, refusal.code)
            self._out.answer(done, self._refusal(refusal.code, refusal.message))
            if log.failed or self._should_resign(refusal.code):
                self._failed(refusal.message)
            return
        if self._refused:
            self._refused.taken(records)
        if self._upkeep.must_flush():
            self._out.hold(log.log_end_offset)
            self._upkeep.flush()
        now_ms = boot_clock_ms()
        self._steps.step(Wrote(token, acks, last_offset, now_ms + timeout_ms), now_ms)
        self._out.view_changes()
        self._upkeep.wrote()

    def _refuse(self, records: memoryview, error: ErrorCode) -> None:
        if self._partition.leading is not None:
            self._refused_now().refused(records, error)

    def _refused_now(self) -> RefusedProducers:
        """What was refused in this leadership: another leader may have taken what was refused before."""
        if self._partition.epoch != self._refused_in:
            self._refused, self._refused_in = RefusedProducers(), self._partition.epoch
        return self._refused

    def reply(self, reply: Reply) -> None:
        """Answer an append that the rules have decided."""
        token: _Produce = reply.token
        start = self._log.log_start_offset
        self._out.answer(token.done, Appended(-1, reply.error, token.base_offset, token.log_append_time_ms, start))

    def _refusal(self, error: ErrorCode, message: str = "") -> Appended:
        return Appended(-1, error, log_start_offset=self._log.log_start_offset, message=message)

    def _should_resign(self, code: ErrorCode) -> bool:
        """Whether another replica can take what this one's disk does not."""
        leading = self._partition.leading
        return code is ErrorCode.KAFKA_STORAGE_ERROR and leading is not None and leading.has_heir()
