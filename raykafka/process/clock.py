"""The two clocks of rule 23: boot time, which runs on while the machine sleeps and never jumps (CLOCK_BOOTTIME), for
timers and leases; and the wall clock, which may jump, for the timestamps of records."""

from __future__ import annotations

from time import CLOCK_BOOTTIME, clock_gettime, clock_gettime_ns, time_ns


def boot_clock() -> float:
    """Seconds since this machine started."""
    return clock_gettime(CLOCK_BOOTTIME)


def boot_clock_ms() -> int:
    """Milliseconds since this machine started."""
    return clock_gettime_ns(CLOCK_BOOTTIME) // 1_000_000


def boot_clock_ns() -> int:
    """Nanoseconds since this machine started."""
    return clock_gettime_ns(CLOCK_BOOTTIME)


def wall_clock_ms() -> int:
    """Milliseconds since 1970, as this machine's clock has it now."""
    return time_ns() // 1_000_000
