"""Keeps a replica's work in order while some of it waits for the disk in a thread (rule 22)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from raykafka.process.tasks import call_alone

T = TypeVar("T")


class WorkQueue:
    """Work is done at once, unless something slow was begun that has not ended: then after that, in the order in which
    it came.

    ``run`` starts a coroutine as a task. ``pause`` is called when something slow begins, ``resume`` when all of it has
    ended, also where nothing was paused. On a hot path callers look at ``busy`` first, and submit only while it is
    true.
    """

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

    def submit(self, work: Callable[[], None]) -> None:
        """Do ``work`` now, or when what came before it has been done."""
        if self.busy:
            self._waiting.append(work)
        else:
            work()

    async def result_of(self, work: Callable[[], T]) -> T:
        """Submit ``work`` and return what it returned, or raise what it raised. Something slow that it began may not
        have ended then."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def do() -> None:
            try:
                done.set_result(work())
            except Exception as error:
                done.set_exception(error)

        self.submit(do)
        return await done

    def begin(
        self, slow: Coroutine[Any, Any, None], then: Callable[[], None] | None = None, *, pauses: bool = True
    ) -> None:
        """Start ``slow``; only while nothing else that is slow runs. It raises nothing. ``then`` is done first when it
        has ended. Without ``pauses`` it changes nothing that is shown meanwhile."""
        assert not self.busy
        self.busy = True
        if pauses:
            self._pause()
        self._run(self._to_its_end(slow, then))

    async def _to_its_end(self, slow: Coroutine[Any, Any, None], then: Callable[[], None] | None) -> None:
        try:
            await slow
        finally:
            self.busy = False
            if then is not None:
                call_alone(then)
            while self._waiting and not self.busy:
                call_alone(self._waiting.popleft())
            if not self.busy:
                self._resume()
