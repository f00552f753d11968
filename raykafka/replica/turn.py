"""What is put off to the end of a pass of the event loop, for all replicas of an actor together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raykafka.process.tasks import call_alone


class Turn:
    """Work first, which may add to what is written, then writes: one write for each connection carries what all
    partitions have for it. Whoever adds something sees to it that it is added once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: list[Callable[[], None]] = []
        self._writes: list[Callable[[], None]] = []
        self._scheduled = False

    def do(self, work: Callable[[], None]) -> None:
        """Call ``work`` at the end of this pass."""
        self._work.append(work)
        if not self._scheduled:
            self._schedule()

    def write(self, write: Callable[[], None]) -> None:
        """Call ``write`` at the end of this pass, after all work."""
        self._writes.append(write)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self._end)

    def _end(self) -> None:
        self._scheduled = False
        work, self._work = self._work, []
        for call in work:
            call_alone(call)
        if self._scheduled:
            return  # the work made more of it: what is written waits for that
        writes, self._writes = self._writes, []
        for call in writes:
            call_alone(call)
