"""CPU seconds of processes, from /proc."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """User and system time, of all threads, of each process that exists."""
    seconds = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            # The name in parentheses may hold spaces; utime and stime are fields 14 and 15 of the line.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            seconds[pid] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return seconds


def used_by_role(before: Mapping[int, float], after: Mapping[int, float], roles: Mapping[int, str]) -> dict[str, float]:
    """CPU seconds between two samples, added up by role; a process that came in between counts from its start."""
    used: Counter[str] = Counter()
    for pid, seconds in after.items():
        used[roles[pid]] += seconds - before.get(pid, 0.0)
    return dict(used)
