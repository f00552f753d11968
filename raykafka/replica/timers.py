"""Calls that are due once, each at one time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

NEVER_MS = 1 << 50


class Timers:
    """Timers of one event loop, each named by what it calls. Delays are milliseconds."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handles: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._closed = False

    def set(self, call: Callable[[], None], delay_ms: int) -> None:
        """Run ``call`` once after ``delay_ms``, instead of when it was set to run before. Never from NEVER_MS on, or
        once closed. By then the clock, in whole milliseconds, shows that they have gone by."""
        earlier = self._handles.pop(call, None)
        if earlier is not None:
            earlier.cancel()
        if delay_ms < NEVER_MS and not self._closed:
            self._handles[call] = self._loop.call_later((max(delay_ms, 0) + 1) / 1000, call)

    def close(self) -> None:
        """Cancel all timers; none is set any more."""
        self._closed = True
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()
