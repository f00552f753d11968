"""What a replica does beside appends and streams: flushes, retention, and the deletion of old files. All of it in
threads, one job on the disk at a time (rule 22)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from raykafka.errors import KafkaError
from raykafka.log import Log
from raykafka.replica.rules.partition import Partition
from raykafka.replica.turns import Turns

logger = logging.getLogger(__name__)

DEFAULT_RETENTION_CHECK_INTERVAL_MS = 300_000
NEVER_MS = 1 << 50


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Timers:
    """Calls that are due once, each at one time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handles: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._closed = False

    def set(self, call: Callable[[], None], delay_ms: int) -> None:
        """Run ``call`` once after ``delay_ms``, instead of when it was set to run before."""
        earlier = self._handles.pop(call, None)
        if earlier is not None:
            earlier.cancel()
        if delay_ms < NEVER_MS and not self._closed:
            self._handles[call] = self._loop.call_later(max(delay_ms, 1) / 1000, call)

    def close(self) -> None:
        self._closed = True
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()


class Upkeep:
    """``flushed()`` is called when the log's recovery point has moved, ``cut_short()`` when retention moved its start,
    ``failed(reason)`` when the log takes no more writes. ``disk`` is held by whoever changes or syncs files."""

    def __init__(
        self,
        log: Log,
        partition: Partition,
        turns: Turns,
        timers: Timers,
        run: Callable[[Coroutine[Any, Any, None]], object],
        *,
        flushed: Callable[[], None],
        cut_short: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self.disk = asyncio.Lock()
        self._log = log
        self._partition = partition
        self._turns = turns
        self._timers = timers
        self._run = run
        self._flushed, self._cut_short, self._failed = flushed, cut_short, failed
        self._segments_version = log.segments_version
        self._retention_interval_ms = DEFAULT_RETENTION_CHECK_INTERVAL_MS
        self._flushing = False
        self._flush_again = False

    def configure(self, config: Mapping[str, str]) -> None:
        self._retention_interval_ms = int(config.get("log.retention.check.interval.ms", self._retention_interval_ms))
        self._timers.set(self._check_retention, self._retention_interval_ms)
        self._timers.set(self._flush_if_due, self._log.config.flush_ms)

    # flushing

    def flush(self) -> None:
        """Flush what the log holds now."""
        if self._flushing:
            self._flush_again = True
        else:
            self._flushing = True
            self._run(self._flush_in_thread())

    def flush_rolled(self) -> None:
        """Flush if a segment was rolled since the last look."""
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
        if self._log.flush_due(wall_ms()):
            self.flush()
        self._timers.set(self._flush_if_due, self._log.config.flush_ms)

    # retention

    def _check_retention(self) -> None:
        """Rename what is too old or too much, and unlink what was renamed long enough ago. A follower's log starts
        where its leader's does."""
        self._turns.take(lambda: self._turns.begin(self._expire(wall_ms())))
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
                self._cut_short()
        self._run(self._purge_in_thread(now_ms))

    async def _purge_in_thread(self, now_ms: int) -> None:
        try:
            waiting = await asyncio.to_thread(self._log.purge, now_ms)
        except KafkaError as error:
            logger.error("%s: deleting old segments: %s", self._log.directory.name, error.message)
            return
        if waiting:
            delay_ms = min(self._retention_interval_ms, self._log.config.file_delete_delay_ms + 1)
            self._timers.set(self._check_retention, delay_ms)
