"""CPU seconds of processes, and when they began, from /proc."""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """User and system time, of all threads, of each process that exists."""
    seconds = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = _fields(pid)
            seconds[pid] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return seconds


def used_s(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """CPU seconds between two samples; a process that came in between counts from its start."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def began_at(pid: int) -> float:
    """The wall clock's time at which a process began. Counted back from now: psutil counts from the time at which the
    machine began, which it knows to a second."""
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(_fields(pid)[19]) / _TICKS_PER_S
    return time.time() - age_s


def _fields(pid: int) -> list[str]:
    """The line's fields from the third on; the name before them may hold spaces. utime and stime are 14 and 15 of the
    line, starttime is 22."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def used_by_role(before: Mapping[int, float], after: Mapping[int, float], roles: Mapping[int, str]) -> dict[str, float]:
    """CPU seconds between two samples, added up by role; a process that came in between counts from its start."""
    used: defaultdict[str, float] = defaultdict(float)
    for pid, seconds in after.items():
        used[roles[pid]] += seconds - before.get(pid, 0.0)
    return dict(used)
