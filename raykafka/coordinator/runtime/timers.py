"""One timer for each key that has a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timers:
    """Calls ``ring(key)`` when the earliest deadline that was arranged for the key is over. It may ring early, because
    a deadline that moves later leaves the timer be."""

    def __init__(self, now_ms: Callable[[], int], ring: Callable[[str], None]) -> None:
        """``now_ms`` is the clock of the deadlines."""
        self._now_ms = now_ms
        self._ring = ring
        self._timers: dict[str, tuple[int, asyncio.TimerHandle]] = {}

    def arrange(self, key: str, due_ms: int | None) -> None:
        """Ring at ``due_ms``, unless the key's timer rings before; None: not at all."""
        timer = self._timers.get(key)
        if timer is not None:
            if due_ms is not None and timer[0] <= due_ms:
                return
            timer[1].cancel()
            del self._timers[key]
        if due_ms is not None:
            delay_s = max(due_ms - self._now_ms(), 0) / 1000
            handle = asyncio.get_running_loop().call_later(delay_s, self._rings, key)
            self._timers[key] = (due_ms, handle)

    def cancel(self) -> None:
        """Cancel all."""
        for _, handle in self._timers.values():
            handle.cancel()
        self._timers.clear()

    def _rings(self, key: str) -> None:
        del self._timers[key]
        self._ring(key)
