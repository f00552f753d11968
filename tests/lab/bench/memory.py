"""The machine's memory: touched before anything is measured, watched meanwhile, and what processes hold of it."""

from __future__ import annotations

import contextlib
import mmap
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from tests.lab.bench.measured import ClientError

TOUCHED_SHARE = 0.8  # of the memory that is available: the rest is for what runs besides
MOST_TOUCHED_GB = 64.0
LEAST_AVAILABLE = 1_500_000_000
_STEP = 64 << 20


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of one process: private (USS), and with its share of what several map (PSS)."""

    private: int
    proportional: int


def held(pids: Iterable[int]) -> dict[int, Held]:
    """Of each process that exists."""
    found = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            memory = psutil.Process(pid).memory_full_info()
            found[pid] = Held(memory.uss, memory.pss)
    return found


def bytes_to_touch(most_gb: float, available: int) -> int:
    return int(min(most_gb * 1e9, available * TOUCHED_SHARE))


def touch(most_gb: float) -> int:
    """Write once to each page of most of the available memory, in a process that then ends; how many bytes.

    A virtual machine gets a page from its host when it first writes to it, which costs several times as much as every
    later use. Untouched, whichever system happens to grow into fresh memory pays for that.
    """
    count = bytes_to_touch(most_gb, psutil.virtual_memory().available)
    if count > 0:
        subprocess.run([sys.executable, "-m", "tests.lab.bench.memory", str(count)], check=True)
    return count


def require_memory() -> None:
    """Raise ClientError when so little is available that the machine would kill processes next."""
    available = psutil.virtual_memory().available
    if available < LEAST_AVAILABLE:
        raise ClientError(f"given up: the servers left {available / 1e9:.1f} GB of the machine's memory")


def _touch_here(count: int) -> None:
    kept = []
    ones = b"\1" * (_STEP // mmap.PAGESIZE)
    for _ in range(count // _STEP):
        block = mmap.mmap(-1, _STEP, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block[:: mmap.PAGESIZE] = ones
        kept.append(block)


if __name__ == "__main__":
    _touch_here(int(sys.argv[1]))
