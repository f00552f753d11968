"""What a replica tells its broker: the view, then the answers to appends, in one write for each turn of the event
loop."""

from __future__ import annotations

import asyncio
from collections import deque

from raykafka.error_code import ErrorCode
from raykafka.link import Link
from raykafka.log import Log
from raykafka.partition.appends import APPENDED, pack_appended
from raykafka.partition.view import VIEW, View
from raykafka.replica.rules.partition import Partition
from raykafka.types import FrameKind

VIEW_WITHIN_S = 0.2


class Outbox:
    """Collects messages until the pass of the event loop ends, then sends them in one write. An answer that has to wait
    for an fsync is held back, and no later one overtakes it."""

    def __init__(self, link: Link, log: Log, partition: Partition) -> None:
        self._link = link
        self._log = log
        self._partition = partition
        self._loop = asyncio.get_running_loop()
        self._answers: list[tuple[FrameKind, bytes]] = []
        self._held: deque[tuple[int, FrameKind | None, bytes]] = deque()
        self._scheduled = False
        self._paused = False
        self._view_due = False
        self._segments_told: int | None = None
        self._changes: asyncio.TimerHandle | None = None

    def answer(
        self, correlation: int, error: ErrorCode, base_offset: int = -1, time_ms: int = -1, message: str = ""
    ) -> None:
        """Answer the append of ``correlation``. ``time_ms`` is its LogAppendTime, -1 for CreateTime."""
        packed = pack_appended(correlation, error, base_offset, time_ms, self._log.log_start_offset, message)
        if self._held:
            self._held.append((-1, APPENDED, packed))
            return
        self._answers.append((APPENDED, packed))
        if not self._scheduled:
            self._schedule()

    def hold(self, until_flushed_to: int) -> None:
        """Hold the answers that come after this one back until the log is flushed to an offset."""
        self._held.append((until_flushed_to, None, b""))

    def flushed(self) -> None:
        """The log's recovery point moved."""
        self._release()
        self.view_changed()

    def _release(self) -> None:
        flushed_to = self._log.recovery_point
        while self._held and self._held[0][0] <= flushed_to:
            _, kind, packed = self._held.popleft()
            if kind is not None:
                self._answers.append((kind, packed))

    def closed(self) -> None:
        """The log was flushed and closed: no view of it can be made any more."""
        self._view_due = False
        if self._changes is not None:
            self._changes.cancel()
        self._release()
        self.send()

    def view_changes(self) -> None:
        """Something changed that no reader waits for: send a view within VIEW_WITHIN_S, with all that changes until
        then."""
        if self._changes is None:
            self._changes = self._loop.call_later(VIEW_WITHIN_S, self.view_changed)

    def view_changed(self) -> None:
        """Send a view at the end of this pass of the event loop."""
        self._view_due = True
        if not self._scheduled:
            self._schedule()

    def pause(self) -> None:
        """Send nothing until ``resume``: the files are being changed."""
        self._paused = True

    def resume(self) -> None:
        """Send again, at once what has collected."""
        self._paused = False
        self.send()

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self.send)

    def send(self) -> None:
        """Send what has collected. Nothing once the link has ended: the broker has emptied its view by then (rule
        20)."""
        self._scheduled = False
        if self._paused:
            return
        answers, self._answers = self._answers, []
        if self._view_due:
            self._view_due, segments = False, None
            if self._changes is not None:
                self._changes.cancel()
                self._changes = None
            if self._log.segments_version != self._segments_told:
                self._segments_told, segments = self._log.segments_version, self._log.segments
            answers.insert(0, (VIEW, self.view(segments).pack()))
        if answers and not self._link.is_closed:
            self._link.send_many(answers)

    def view(self, segments: tuple[int, ...] | None) -> View:
        """What may be read now; ``segments`` is None where they are as in the last view."""
        log, partition = self._log, self._partition
        high_watermark = partition.readable_end
        position = log.position_of(high_watermark)
        unstable = log.first_unstable_offset
        stable = high_watermark if unstable is None else min(unstable, high_watermark)
        return View(
            partition.epoch,
            partition.epoch_start,
            log.truncations,
            log.log_start_offset,
            high_watermark,
            position,
            stable,
            position if stable == high_watermark else log.position_of(stable),
            log.log_end_offset,
            log.recovery_point,
            segments,
        )
