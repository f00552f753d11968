"""What a replica does at intervals: flushes, retention, the deletion of old files, and closing those that are not
written any more. What waits for the disk does so in threads, one job at a time (rule 22)."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log import Log
from raykafka.partition.appends import DELETE_ALL
from raykafka.process.clock import wall_clock_ms
from raykafka.replica.rules.partition import Partition
from raykafka.replica.timers import Timers
from raykafka.replica.work_queue import WorkQueue

logger = logging.getLogger(__name__)

DEFAULT_RETENTION_CHECK_INTERVAL_MS = 300_000
REST_EVERY_MS = 60_000


class Upkeep:
    """``flushed()`` is called when the log's recovery point has moved, ``start_moved()`` when retention moved the log's
    start, ``failed(reason)`` when the log takes no more writes. ``run`` starts a coroutine as a task. ``disk`` is held
    by whoever changes or syncs files."""

    def __init__(
        self,
        log: Log,
        partition: Partition,
        queue: WorkQueue,
        timers: Timers,
        run: Callable[[Coroutine[Any, Any, None]], object],
        *,
        flushed: Callable[[], None],
        start_moved: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self.disk = asyncio.Lock()
        self._log = log
        self._partition = partition
        self._queue = queue
        self._timers = timers
        self._run = run
        self._flushed, self._start_moved, self._failed = flushed, start_moved, failed
        self._segments_version = log.segments_version
        self._retention_interval_ms = DEFAULT_RETENTION_CHECK_INTERVAL_MS
        self._flushing = False
        self._flush_again = False
        self._rest_due = False
        self._end_at_rest = -1

    def configure(self, config: Mapping[str, str]) -> None:
        """Go by the log's config, and by a topic's effective ``config``, from now on."""
        self._retention_interval_ms = int(config.get("log.retention.check.interval.ms", self._retention_interval_ms))
        # replicas that were opened together do not do it together
        self._timers.set(self._check_retention, int(self._retention_interval_ms * random.uniform(0.5, 1)))
        self._timers.set(self._flush_if_due, self._log.config.flush_ms)

    # flushing

    def must_flush(self) -> bool:
        """Whether ``flush.messages`` has what was written flushed before anybody is told that it is."""
        log = self._log
        return log.log_end_offset - log.recovery_point >= log.config.flush_messages

    def flush(self) -> None:
        """Flush what the log holds now, in a thread; once more if that is asked for meanwhile."""
        if self._flushing:
            self._flush_again = True
        else:
            self._flushing = True
            self._run(self._flush_in_thread())

    def wrote(self) -> None:
        """The log was appended to: flush if a segment was rolled, and look after its files later."""
        if not self._rest_due:
            self._rest_due = True
            self._timers.set(self._rest_soon, REST_EVERY_MS)
        if self._log.segments_version != self._segments_version:
            self._segments_version = self._log.segments_version
            self.flush()

    async def _flush_in_thread(self) -> None:
        try:
            async with self.disk:
                await asyncio.to_thread(self._log.flush)
        except KafkaError as error:
            self._failed(error.message)
            return
        finally:
            self._flushing = False
        self._flushed()
        if self._flush_again:
            self._flush_again = False
            self.flush()

    def _flush_if_due(self) -> None:
        if self._log.flush_due(wall_clock_ms()):
            self.flush()
        self._timers.set(self._flush_if_due, self._log.config.flush_ms)

    # files

    def _rest_soon(self) -> None:
        self._queue.submit(self._rest)

    def _rest(self) -> None:
        """Close files that are not written any more; what they hold is flushed before."""
        log = self._log
        must_flush = log.rest()
        self._rest_due = must_flush or log.log_end_offset != self._end_at_rest
        self._end_at_rest = log.log_end_offset
        if must_flush:
            self.flush()
        if self._rest_due:
            self._timers.set(self._rest_soon, REST_EVERY_MS)

    # retention

    def _check_retention(self) -> None:
        """Rename what is too old or too much, and unlink what was renamed long enough ago. A follower's log starts
        where its leader's does."""
        self._queue.submit(lambda: self._queue.begin(self._expire(wall_clock_ms())))
        self._timers.set(self._check_retention, self._retention_interval_ms)

    async def _expire(self, now_ms: int) -> None:
        log, rules = self._log, self._partition
        leads = rules.leading is not None
        try:
            async with self.disk:
                gone = await asyncio.to_thread(log.expire, now_ms, rules.log.high_watermark, by_retention=leads)
        except KafkaError as error:
            logger.error("%s: retention: %s", log.directory.name, error.message)
        else:
            if gone:
                rules.log.start = log.log_start_offset
                self._segments_version = log.segments_version
                self._start_moved()
        self._run(self._purge_in_thread(now_ms))

    async def delete_records(self, offset: int) -> int:
        """As ``access.PartitionAccess.delete_records``; files go with the next look at retention."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.submit(lambda: self._begin_to_delete(offset, done))
        return await done

    def _begin_to_delete(self, offset: int, done: asyncio.Future[int]) -> None:
        log, rules = self._log, self._partition
        end = rules.log.high_watermark
        if done.done():
            return  # who asked is gone
        if rules.leading is None:
            done.set_exception(KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER))
        elif not log.config.delete:
            done.set_exception(KafkaError(ErrorCode.POLICY_VIOLATION, "the topic's cleanup.policy is not delete"))
        elif not (offset == DELETE_ALL or 0 <= offset <= end):
            done.set_exception(KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, f"the high watermark is {end}"))
        elif (start := end if offset == DELETE_ALL else offset) <= log.log_start_offset:
            done.set_result(log.log_start_offset)
        else:
            self._queue.begin(self._delete(start, done))

    async def _delete(self, start: int, done: asyncio.Future[int]) -> None:
        log = self._log
        try:
            async with self.disk:
                await asyncio.to_thread(log.advance_log_start, start)
        except KafkaError as error:
            if not done.done():
                done.set_exception(error)
            return
        self._partition.log.start = log.log_start_offset
        self._start_moved()
        await asyncio.sleep(0)  # behind the view that shows it
        if not done.done():
            done.set_result(log.log_start_offset)

    async def _purge_in_thread(self, now_ms: int) -> None:
        try:
            waiting = await asyncio.to_thread(self._log.purge, now_ms)
        except KafkaError as error:
            logger.error("%s: deleting old segments: %s", self._log.directory.name, error.message)
            return
        if waiting:
            delay_ms = min(self._retention_interval_ms, self._log.config.file_delete_delay_ms + 1)
            self._timers.set(self._check_retention, delay_ms)
