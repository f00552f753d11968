"""How the replica processes of one partition have failed, and what may be tried after that."""

from __future__ import annotations

from raykafka.process.backoff import Backoff
from raykafka.process.clock import boot_clock


class Failures:
    """``count`` is how many have ended before they were let go, ``reason`` why the last did, empty once another has
    opened the log. ``diverged``: the log is no beginning of its leader's (rule 10)."""

    def __init__(self) -> None:
        self.count = 0
        self.reason = ""
        self.diverged = False
        self._epoch = -1
        self._last_s = 0.0
        self._backoff = Backoff()

    @property
    def delay_s(self) -> float:
        """How long to wait before the next process is asked for."""
        return self._backoff.delay_s

    @property
    def since_last_s(self) -> float | None:
        return round(boot_clock() - self._last_s, 1) if self.count else None

    def failed(self, reason: str, leader_epoch: int) -> None:
        self.count += 1
        self.reason = reason
        self._epoch = leader_epoch
        self._last_s = boot_clock()
        self._backoff.failed()

    def opened(self) -> None:
        """A process has opened the log."""
        self.reason = ""
        self._backoff.succeeded()

    def may_try_again(self, leader_epoch: int, *, leads: bool) -> bool:
        """An epoch whose leader failed is led no more (rule 1), and from a leader whose log is another one there is
        nothing to follow (rule 10)."""
        return leader_epoch != self._epoch or not (leads or self.diverged)
