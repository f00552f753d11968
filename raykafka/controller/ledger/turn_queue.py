"""Who decides next: one at a time, the most urgent first."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum


class Urgency(IntEnum):
    """How long others may be kept waiting; the lower number goes first."""

    # a broker has died or come: all partitions that it led stand still until then
    BROKERS = 0
    # a partition whose leader's process has ended stands still until then
    FAILED_LEADER = 1
    # everything else
    QUESTION = 2


# Turns in a row that may go ahead of the one that has waited longest. A broker with a broken disk may report leaders as
# failed as fast as they are settled: ISRs that shrink, and so writes elsewhere, must not wait for its end.
AHEAD_AT_MOST = 32


class TurnQueue:
    """A lock for tasks of one event loop. It goes to the most urgent of those that wait, among equals to the one that
    has waited longest; after AHEAD_AT_MOST turns out of order to the one that has waited longest of all. Whoever has it
    keeps it, however urgent another is."""

    def __init__(self) -> None:
        self._taken = False
        self._ahead = 0
        self._order = itertools.count()
        self._waiting: list[tuple[Urgency, int, asyncio.Future[None]]] = []

    def __len__(self) -> int:
        """How many wait."""
        return sum(not turn.done() for _, _, turn in self._waiting)

    @asynccontextmanager
    async def turn(self, urgency: Urgency) -> AsyncIterator[None]:
        await self._wait(urgency)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, urgency: Urgency) -> None:
        if not self._taken:
            self._taken = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, next(self._order), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # it was this one's turn already
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting and self._waiting[0][2].done():
            heapq.heappop(self._waiting)
        if not self._waiting:
            self._taken = False
            return
        oldest = min((waiting for waiting in self._waiting if not waiting[2].done()), key=lambda waiting: waiting[1])
        chosen = self._waiting[0] if self._ahead < AHEAD_AT_MOST else oldest
        self._ahead = self._ahead + 1 if chosen is not oldest else 0
        self._waiting.remove(chosen)
        heapq.heapify(self._waiting)
        chosen[2].set_result(None)
