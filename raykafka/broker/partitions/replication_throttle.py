"""How much replication of throttled replicas this broker takes part in: ``leader.replication.throttled.rate`` for what
it sends, ``follower.replication.throttled.rate`` for what it takes (KIP-73).

Each rate is for all of the broker's replicas together, in however many replica actors they are open: a replica that
has used up what it was given asks for more and waits for the answer, which is a tenth of a second's worth. So the
broker is asked some ten times a second by each replica that is held back, however many batches that is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

SHARE_S = 0.1
BURST_S = 1.0
# the most that is given at once, so that a rate which is set or lowered soon holds
MOST_BYTES = 8 * 1024 * 1024
_TICK_S = 0.001
_UNLIMITED = (1 << 63) - 1  # Kafka's default


class Budget:
    """A token bucket: bytes come at ``rate`` a second, and BURST_S worth of them is kept. What is granted and owed
    between two moments is never more than ``rate`` times the time between them and that burst. No ``rate``, no limit.
    Times are seconds."""

    def __init__(self, rate: int | None, now_s: float) -> None:
        self.rate = rate
        self._balance = 0.0 if rate is None else rate * BURST_S
        self._at_s = now_s

    def change(self, rate: int | None, now_s: float) -> None:
        """Go by another rate. What is owed stays owed, but for what was taken while there was no limit."""
        self._refill(now_s)
        if rate is not None:
            full = rate * BURST_S
            self._balance = full if self.rate is None else min(self._balance, full)
        self.rate = rate

    def _refill(self, now_s: float) -> None:
        if self.rate is not None:
            self._balance = min(self._balance + self.rate * (now_s - self._at_s), self.rate * BURST_S)
        self._at_s = now_s

    def owe(self, size: int) -> None:
        """Count what a replica took beyond its grant: a batch is taken whole."""
        self._balance -= size

    def spend(self, size: int, now_s: float) -> None:
        """Count what in-sync replicas took, which nobody holds back. It holds others back for BURST_S at most."""
        self._refill(now_s)
        if self.rate is not None:
            self._balance = min(self._balance, max(self._balance - size, -self.rate * BURST_S))

    def grant(self, now_s: float) -> int:
        """A share, or 0 when there is none now."""
        if self.rate is None:
            return MOST_BYTES
        self._refill(now_s)
        share = _share(self.rate)
        if not self.rate or self._balance < share:
            return 0
        self._balance -= share
        return share

    def wait_s(self) -> float | None:
        """How long after a ``grant`` of nothing there can be a share; None for as long as this rate holds."""
        return max(_TICK_S, (_share(self.rate) - self._balance) / self.rate) if self.rate else None


def _share(rate: int) -> int:
    return min(MOST_BYTES, max(1, int(rate * SHARE_S)))


class _Side:
    """One budget and the replicas that wait for it, in the order in which they asked."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._budget = Budget(None, self._loop.time())
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def configure(self, rate: int | None) -> None:
        if rate != self._budget.rate:
            self._budget.change(rate, self._loop.time())
            self._serve()

    def spend(self, size: int) -> None:
        self._budget.spend(size, self._loop.time())

    async def take(self, owed: int) -> int:
        self._budget.owe(owed)
        waiter: asyncio.Future[int] = self._loop.create_future()
        self._waiting.append(waiter)
        if len(self._waiting) == 1:
            self._serve()
        return await waiter

    def _serve(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = self._waiting
        while waiting:
            if waiting[0].done():  # who asked has gone
                waiting.popleft()
                continue
            granted = self._budget.grant(self._loop.time())
            if not granted:
                break
            waiting.popleft().set_result(granted)
        wait_s = self._budget.wait_s() if waiting else None
        if wait_s is not None:
            self._timer = self._loop.call_later(wait_s, self._serve)


class ReplicationThrottle:
    """Both of a broker's limits. Without a rate there is none."""

    def __init__(self) -> None:
        self._sides = {"leader": _Side(), "follower": _Side()}

    def configure(self, leader_rate: int, follower_rate: int) -> None:
        """Go by these rates (bytes a second) from now on; who waits is served by them."""
        for side, rate in (("leader", leader_rate), ("follower", follower_rate)):
            self._sides[side].configure(None if rate == _UNLIMITED else rate)

    async def take(self, args: dict[str, Any]) -> dict[str, Any]:
        """Answer a replica that asks for ``bytes`` of a ``side``, once there are some; ``owed`` is what it took beyond
        the last it was given."""
        return {"bytes": await self._sides[args["side"]].take(args["owed"])}

    def spent(self, args: dict[str, Any]) -> None:
        """A replica's in-sync traffic of a ``side``."""
        self._sides[args["side"]].spend(args["bytes"])
