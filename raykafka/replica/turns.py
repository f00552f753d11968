"""Keeps a replica's work in order while some of it waits for the disk in a thread (rule 22)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Turns:
    """Work is done at once, unless something slow was begun that has not ended: then after that, in the order in which
    it came. ``pause`` is called when something slow begins, ``resume`` when all of it has ended."""

    def __init__(
        self,
        run: Callable[[Coroutine[Any, Any, None]], object],
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self._run = run
        self._pause, self._resume = pause, resume
        self._waiting: deque[Callable[[], None]] = deque()
        self.busy = False

    def take(self, work: Callable[[], None]) -> None:
        """Do ``work`` now or in its turn."""
        if self.busy:
            self._waiting.append(work)
        else:
            work()

    async def taken(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, once it has had its turn. Work that it began slowly may not have ended then."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def do() -> None:
            try:
                done.set_result(work())
            except Exception as error:
                done.set_exception(error)

        self.take(do)
        return await done

    def begin(self, slow: Coroutine[Any, Any, None]) -> None:
        """Start ``slow``; only while nothing else is under way. It raises nothing."""
        assert not self.busy
        self.busy = True
        self._pause()
        self._run(self._to_its_end(slow))

    async def _to_its_end(self, slow: Coroutine[Any, Any, None]) -> None:
        try:
            await slow
        finally:
            self.busy = False
            while self._waiting and not self.busy:
                self._waiting.popleft()()
            if not self.busy:
                self._resume()
