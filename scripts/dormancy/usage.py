"""What the processes of a cluster hold in memory and take of the processors, by role."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass

import psutil
from cpu import cpu_seconds, used_by_role
from systems import System

LATER = "of later processes"


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one role: how many processes, their private (USS) and resident (RSS) memory added up, and their time on the
    processors in percent of one core."""

    processes: int
    private_mb: float
    resident_mb: float
    cpu_percent: float


def usage(system: System, over_s: float) -> dict[str, Usage]:
    """By role; processors over the ``over_s`` seconds that this takes."""
    roles = system.roles()
    before, began = cpu_seconds(roles), time.monotonic()
    time.sleep(over_s)
    after, seconds = cpu_seconds(roles), time.monotonic() - began
    used = used_by_role(before, after, roles)
    private: Counter[str] = Counter()
    resident: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for pid, role in roles.items():
        with contextlib.suppress(psutil.Error):
            memory = psutil.Process(pid).memory_full_info()
            private[role] += memory.uss
            resident[role] += memory.rss
            count[role] += 1
    return {
        role: Usage(count[role], private[role] / 1e6, resident[role] / 1e6, 100 * used.get(role, 0.0) / seconds)
        for role in sorted(count)
    }


class Meter:
    """Processor time of ``roles`` since this was made, and of the processes there are at the end that came since."""

    def __init__(self, roles: dict[int, str]) -> None:
        self._roles = roles
        self._before = cpu_seconds(roles)

    def used(self) -> dict[str, float]:
        """CPU seconds by role."""
        return used_by_role(self._before, cpu_seconds(self._roles), self._roles)
