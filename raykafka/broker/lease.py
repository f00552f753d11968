"""The lease: how long a broker that can't reach ZooKeeper may still act as if it were registered (rule 15)."""

from __future__ import annotations


class Lease:
    """Good for ``timeout_s`` (the session timeout that ZooKeeper granted) from the moment at which the last answered
    read of this broker's registration was sent. Times are seconds of ``process.clock.boot_clock``.

    acks=all is safe without a lease; acks 0 and 1, and anything newly started, are not."""

    def __init__(self, timeout_s: float, now: float) -> None:
        self.timeout_s = timeout_s
        self._renewed_at = now

    def renew(self, sent_at: float, timeout_s: float) -> None:
        """A read that was sent at ``sent_at`` found our registration in place."""
        self._renewed_at = max(self._renewed_at, sent_at)
        self.timeout_s = timeout_s

    def holds(self, now: float) -> bool:
        """Whether it has not run out."""
        return now < self.until

    @property
    def until(self) -> float:
        """When it runs out."""
        return self._renewed_at + self.timeout_s

    def age_s(self, now: float) -> float:
        """Seconds since the read that renewed it last was sent."""
        return now - self._renewed_at
