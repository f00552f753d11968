"""What the processes of a cluster hold of memory and descriptors and take of the processors, by role."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass

import psutil

from tests.lab.clusters.systems import CountedCluster
from tests.lab.cpu import cpu_seconds, used_by_role


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one role: how many processes, their private (USS) and resident (RSS) memory added up, their open descriptors,
    and their time on the processors in percent of one core."""

    processes: int
    private_mb: float
    resident_mb: float
    descriptors: int
    cpu_percent: float


def usage(system: CountedCluster, over_s: float) -> dict[str, Usage]:
    """By role; processors over the ``over_s`` seconds that this takes."""
    roles = system.roles()
    before, began = cpu_seconds(roles), time.monotonic()
    time.sleep(over_s)
    after, seconds = cpu_seconds(roles), time.monotonic() - began
    used = used_by_role(before, after, roles)
    private: Counter[str] = Counter()
    resident: Counter[str] = Counter()
    descriptors: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for pid, role in roles.items():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            memory = process.memory_full_info()
            private[role] += memory.uss
            resident[role] += memory.rss
            descriptors[role] += process.num_fds()
            count[role] += 1
    return {
        role: Usage(
            count[role],
            private[role] / 1e6,
            resident[role] / 1e6,
            descriptors[role],
            100 * used.get(role, 0.0) / seconds,
        )
        for role in sorted(count)
    }
