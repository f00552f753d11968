"""What a leader reports to its broker of its followers, for status and metrics: at most once a second, on change."""

from __future__ import annotations

from typing import Any

from raykafka.link import Link
from raykafka.process.clock import boot_clock_ms
from raykafka.replica.rules.partition import Partition
from raykafka.replica.sending import Streams
from raykafka.replica.timers import Timers

REPORT_EVERY_MS = 1000


class FollowerReport:
    """``due`` while the next report has its time; ``last`` is what the broker was told last, {} for no followers."""

    def __init__(self, link: Link, partition: Partition, streams: Streams, timers: Timers) -> None:
        self._link = link
        self._partition = partition
        self._streams = streams
        self._timers = timers
        self.due = False
        self.last: dict[str, Any] = {}

    def schedule(self) -> None:
        """Report in REPORT_EVERY_MS, if something has changed by then."""
        self.due = True
        self._timers.set(self._report, REPORT_EVERY_MS)

    def _report(self) -> None:
        self.due = False
        followers = self._streams.describe(boot_clock_ms())
        report = {"leader_epoch": self._partition.epoch, "followers": followers} if followers else {}
        if report == self.last or self._link.is_closed:
            return
        self.last = report
        self._link.tell("follower_progress", report)
        self.schedule()
