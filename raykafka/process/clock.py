"""The clock of this machine that runs on while it sleeps and never jumps (rule 23): CLOCK_BOOTTIME, in three units."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import CLOCK_BOOTTIME, clock_gettime, clock_gettime_ns


def boot_clock() -> float:
    """Seconds since this machine started."""
    return clock_gettime(CLOCK_BOOTTIME)


def boot_clock_ms() -> int:
    """Milliseconds since this machine started."""
    return clock_gettime_ns(CLOCK_BOOTTIME) // 1_000_000


# Several times for each request: no frame of Python's around the call.
boot_clock_ns: Callable[[], int] = partial(clock_gettime_ns, CLOCK_BOOTTIME)
"""Nanoseconds since this machine started."""
