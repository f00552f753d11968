"""How often the replica of one partition has failed, and when it may be tried again."""

from __future__ import annotations

from raykafka.process.backoff import Backoff

# one that was open for so long has got over what had failed before
CALM_S = 10.0


class Failures:
    """``count`` is how often its log was closed before that was asked for, or could not be opened; ``reason`` why
    last, empty once it is open again; ``last_s`` when. It may be opened again from ``try_again_s`` on: at once after
    the first failure, then after growing delays. Times are seconds of the boot clock."""

    __slots__ = ("_backoff", "_opened_s", "count", "last_s", "reason", "try_again_s")

    def __init__(self) -> None:
        self.count = 0
        self.reason = ""
        self.last_s = 0.0
        self.try_again_s = 0.0
        self._opened_s: float | None = None
        self._backoff: Backoff | None = None

    def failed(self, reason: str, now: float) -> None:
        self.count += 1
        self.reason = reason
        self.last_s = now
        if self._backoff is None or (self._opened_s is not None and now - self._opened_s >= CALM_S):
            self._backoff = Backoff()
        self.try_again_s = now + self._backoff.delay_s
        self._backoff.failed()
        self._opened_s = None

    def opened(self, now: float) -> None:
        """The log is open."""
        self.reason = ""
        self._opened_s = now

    def since_last_s(self, now: float) -> float | None:
        """How long ago the last one was; None without one."""
        return round(now - self.last_s, 1) if self.count else None
