"""What the processes of a cluster use, and how far two replicas of a partition reach, some times a second."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.lab.background import Background

INTERVAL_S = 0.25


class Memory(NamedTuple):
    """Bytes: all that is resident, and what no other process shares."""

    resident: int
    own: int


class Sample(NamedTuple):
    """``leader_bytes`` and ``follower_bytes`` are what their segment files hold; ``memory`` is by role."""

    at_s: float
    leader_bytes: int
    follower_bytes: int
    memory: dict[str, Memory]


Find = Callable[[], psutil.Process]


class Watch(Background):
    """As a context: samples until it ends. ``processes`` finds the process of each role; one that is not there has no
    entry in a sample."""

    def __init__(self, leader: Path, follower: Path, processes: dict[str, Find]) -> None:
        super().__init__()
        self.samples: list[Sample] = []
        self._leader, self._follower, self._processes = leader, follower, processes

    def _run(self) -> None:
        while not self._over.is_set():
            memory = {}
            for role, find in self._processes.items():
                with contextlib.suppress(psutil.Error, OSError, LookupError, ValueError):
                    found = find().memory_full_info()
                    memory[role] = Memory(found.rss, found.uss)
            self.samples.append(Sample(time.monotonic(), size_of(self._leader), size_of(self._follower), memory))
            self._over.wait(INTERVAL_S)

    def between(self, begin_s: float, end_s: float) -> list[Sample]:
        return [sample for sample in self.samples if begin_s <= sample.at_s <= end_s]


def size_of(partition: Path) -> int:
    """The bytes of a partition's segments."""
    size = 0
    for path in _segments(partition):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def _segments(partition: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from partition.glob("*.log")


def peak(samples: list[Sample]) -> dict[str, Memory]:
    """The most that each role used."""
    most: dict[str, Memory] = {}
    for sample in samples:
        for role, memory in sample.memory.items():
            before = most.get(role, Memory(0, 0))
            most[role] = Memory(max(before.resident, memory.resident), max(before.own, memory.own))
    return most


def arriving(samples: list[Sample]) -> float:
    """MB/s that the leader's log grew by."""
    if len(samples) < 2:
        return 0.0
    return (samples[-1].leader_bytes - samples[0].leader_bytes) / 1e6 / (samples[-1].at_s - samples[0].at_s)
