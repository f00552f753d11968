"""Replica processes started ahead of need: one takes a second to start, for which a first write would wait."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable

from raykafka.broker.children.child import Child
from raykafka.errors import RaykafkaError
from raykafka.process.backoff import Backoff
from raykafka.process.tasks import TaskSet

# A process that starts takes the better part of a second of a core: more at a time only make each of them late.
_STARTS_AT_ONCE = min(4, os.cpu_count() or 1)
_FILL_AFTER_S = 0.2

logger = logging.getLogger(__name__)


class SpareReplicas:
    """Gives replica processes away and starts others in their place. ``start()`` gives a connected one, or raises
    RaykafkaError; ``tasks`` runs the starts."""

    def __init__(self, start: Callable[[], Awaitable[Child]], tasks: TaskSet) -> None:
        self._start_replica = start
        self._tasks = tasks
        self._kept = 0
        self._spares: deque[Child] = deque()
        self._waiters: deque[asyncio.Future[Child]] = deque()
        self._starting = 0
        self._backoff = Backoff()
        self._filling: asyncio.TimerHandle | None = None
        self._stopped = False

    def __len__(self) -> int:
        """How many are ready and nobody's."""
        return len(self._spares)

    def keep(self, count: int) -> None:
        """Have so many ready from now on."""
        self._kept = count
        self._fill()

    def stop(self) -> None:
        """Start no more; who waits for one is cancelled."""
        self._stopped = True
        if self._filling is not None:
            self._filling.cancel()
        for waiter in self._waiters:
            waiter.cancel()

    async def acquire(self) -> Child:
        """A connected process of nobody yet: a spare, or else the next one that starts. The caller attaches its own
        handlers with ``child.link.start`` and closes the link when it is done."""
        while self._spares:
            child = self._spares.popleft()
            if not child.link.is_closed:
                self._fill_later()
                return child
        waiter: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._fill()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._offer(waiter.result())
            raise

    def _fill_later(self) -> None:
        """Have another spare soon: a process that starts takes the processors from the one that was just given away,
        for which somebody waits."""
        if self._filling is None:
            self._filling = asyncio.get_running_loop().call_later(_FILL_AFTER_S, self._fill)

    def _fill(self) -> None:
        if self._filling is not None:
            self._filling.cancel()
            self._filling = None
        if self._stopped:
            return
        while self._waiters and self._waiters[0].done():
            self._waiters.popleft()
        missing = len(self._waiters) + self._kept - len(self._spares) - self._starting
        for _ in range(min(missing, _STARTS_AT_ONCE - self._starting)):
            self._starting += 1
            self._tasks.run(self._start())

    async def _start(self) -> None:
        try:
            await asyncio.sleep(self._backoff.delay_s)
            child = await self._start_replica()
        except RaykafkaError as error:
            if self._stopped:
                return
            logger.error("a replica process did not start: %s", error)
            self._backoff.failed()
            self._starting -= 1
            self._fill()
            return
        self._starting -= 1
        self._backoff.succeeded()
        child.link.start(on_close=lambda _: self._ended(child))
        self._offer(child)
        self._fill()

    def _offer(self, child: Child) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(child)
                return
        self._spares.append(child)

    def _ended(self, child: Child) -> None:
        if child in self._spares:
            self._spares.remove(child)
            self._fill()
