"""The scheduling priority of raykafka's processes."""

from __future__ import annotations

import os
from contextlib import suppress

_LOWEST = 19
_AHEAD = -5


def take_normal_priority() -> None:
    """Give every thread of this process the normal priority. Ray starts its workers at nice 15, behind every batch job
    of the machine, and a broker that has to wait there is taken for dead. Where that is not allowed (no CAP_SYS_NICE),
    start Ray with RAY_worker_niceness=0."""
    for thread in os.listdir("/proc/self/task"):
        with suppress(PermissionError, ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, int(thread), 0)


def give_way() -> None:
    """Give this thread, and those it starts, the lowest priority: what they still do, nobody waits for. When a broker
    is killed all of its children end at once, just when others have to take over."""
    os.setpriority(os.PRIO_PROCESS, 0, _LOWEST)


def go_first(pid: int | None = None) -> None:
    """Have this process (or another) go before what has normal priority, where that is allowed: for one that does
    little, and that all wait for when they have lost something."""
    for thread in os.listdir(f"/proc/{pid or 'self'}/task"):
        with suppress(PermissionError, ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, int(thread), _AHEAD)
