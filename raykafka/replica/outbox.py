"""What a replica shows and answers: the view, then the outcomes of appends, once in each pass of the event loop."""

from __future__ import annotations

import asyncio
from collections import deque

from raykafka.error_code import ErrorCode
from raykafka.log import Log
from raykafka.partition.appends import Appended, Done
from raykafka.partition.view import View
from raykafka.replica.host import ReplicaHost
from raykafka.replica.rules.partition import Partition
from raykafka.replica.turn import Turn

VIEW_WITHIN_S = 0.2


class Outbox:
    """Collects answers until the pass of the event loop ends, then shows the view and gives them. An answer that has to
    wait for an fsync is held back, and no later one overtakes it."""

    def __init__(self, turn: Turn, host: ReplicaHost, log: Log, partition: Partition) -> None:
        self._turn = turn
        self._host = host
        self._log = log
        self._partition = partition
        self._answers: list[tuple[Done, Appended]] = []
        self._held: deque[tuple[int, Done | None, Appended | None]] = deque()
        self._scheduled = False
        self._paused = False
        self._over = False
        self._view_due = False
        self._segments_told: int | None = None
        self._changes: asyncio.TimerHandle | None = None

    def answer(self, done: Done, appended: Appended) -> None:
        """Give ``done`` the outcome of its append."""
        if self._held:
            self._held.append((-1, done, appended))
            return
        self._answers.append((done, appended))
        if not self._scheduled:
            self._schedule()

    def hold(self, until_flushed_to: int) -> None:
        """Hold the answers that come after this one back until the log is flushed to an offset."""
        self._held.append((until_flushed_to, None, None))

    def flushed(self) -> None:
        """The log's recovery point moved."""
        self._release()
        self.view_changed()

    def _release(self) -> None:
        flushed_to = self._log.recovery_point
        while self._held and self._held[0][0] <= flushed_to:
            _, done, appended = self._held.popleft()
            if done is not None and appended is not None:
                self._answers.append((done, appended))
        if self._answers and not self._scheduled:
            self._schedule()

    def end(self) -> None:
        """Give what answers there are, and show nothing any more."""
        if self._over:
            return
        self.send()
        self._over, self._view_due = True, False
        if self._changes is not None:
            self._changes.cancel()
        self._host.show_nothing()

    def closed(self) -> None:
        """The log was closed: answer what waited for its flush, which may not have been."""
        self._release()
        held, self._held = self._held, deque()
        for _, done, _ in held:
            if done is not None:
                self._answers.append((done, Appended(-1, ErrorCode.NOT_LEADER_OR_FOLLOWER, message="not flushed")))
        self.send()

    def view_changes(self) -> None:
        """Something changed that no reader waits for: show a view within VIEW_WITHIN_S, with all that changes until
        then."""
        if self._changes is None and not self._over:
            self._changes = asyncio.get_running_loop().call_later(VIEW_WITHIN_S, self.view_changed)

    def view_changed(self) -> None:
        """Show a view at the end of this pass of the event loop."""
        if self._over:
            return
        self._view_due = True
        if not self._scheduled:
            self._schedule()

    def pause(self) -> None:
        """Show and answer nothing until ``resume``: the files are being changed."""
        self._paused = True

    def resume(self) -> None:
        """Show and answer again, at once what has collected."""
        self._paused = False
        self.send()

    def _schedule(self) -> None:
        self._scheduled = True
        self._turn.do(self._end_turn)

    def _end_turn(self) -> None:
        self._scheduled = False
        self.send()

    def send(self) -> None:
        """Show and answer what has collected."""
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
            self._host.show(self._view(segments))
        for done, appended in answers:
            done(appended)

    def _view(self, segments: tuple[int, ...] | None) -> View:
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
