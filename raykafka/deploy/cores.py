"""How many cores the processes of this node may use: those that the kernel lets them run on, within the quota of their
control group (version 2), as a container has one."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")
_UNLIMITED = "max"


def usable_cores() -> int:
    """At least 1. Half a core counts as none, beside whole ones."""
    cores = len(os.sched_getaffinity(0))
    try:
        own = _OWN_GROUP.read_text()
    except OSError:
        return cores
    quota = quota_cores(_GROUPS, own)
    return cores if quota is None else max(min(cores, int(quota)), 1)


def quota_cores(groups: Path, own: str) -> float | None:
    """The least quota, in cores, of the control group that ``own`` (as /proc/self/cgroup) names below ``groups``, and
    of those that it lies in; None where there is none."""
    path = next((line.removeprefix("0::/") for line in own.splitlines() if line.startswith("0::/")), None)
    if path is None:
        return None
    found = []
    for group in (PurePosixPath(path), *PurePosixPath(path).parents):
        try:
            quota, period = (groups / group / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue  # a group that this process does not see, or the root of all, which has no quota
        if quota != _UNLIMITED:
            found.append(int(quota) / int(period))
    return min(found, default=None)
