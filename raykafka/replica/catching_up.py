"""Followers that are sent what they lack from the files, in rotation: a bounded part of each pass of the event loop, so
that live traffic goes on beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raykafka.process.tasks import call_alone

PIECES_A_PASS = 4


class Rotation:
    """Work in pieces. Each time it is called, a piece of work is done, and it answers whether there is more at once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Callable[[], bool], None] = {}
        self._scheduled = False

    def add(self, work: Callable[[], bool]) -> None:
        """Do ``work`` from the next pass on, after what waits already; once, however often it is added."""
        self._waiting[work] = None
        if not self._scheduled:
            self._schedule()

    def remove(self, work: Callable[[], bool]) -> None:
        """Do ``work`` no more."""
        self._waiting.pop(work, None)

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self._pass)

    def _pass(self) -> None:
        self._scheduled = False
        waiting = self._waiting
        for _ in range(min(PIECES_A_PASS, len(waiting))):
            work = next(iter(waiting), None)
            if work is None:
                return
            del waiting[work]
            if call_alone(work):
                waiting[work] = None
        if waiting and not self._scheduled:
            self._schedule()
