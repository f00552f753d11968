"""What faults are done to: a cluster on this machine, or one over simulated hosts."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.lab.clusters.actors import Actors

ACTOR = "replica actor"
_ACTOR_TITLE = re.compile(r"raykafka::replicas (\d+) of broker (\d+)\b")


class ReplicaActor(NamedTuple):
    """A replica actor and its broker."""

    number: int
    broker: int

    def __str__(self) -> str:
        return f"{ACTOR} {self.number} of broker {self.broker}"


def replica_actor(title: str) -> ReplicaActor | None:
    """Which replica actor a process is, by what ``ps`` shows of it."""
    found = _ACTOR_TITLE.search(title)
    return ReplicaActor(int(found[1]), int(found[2])) if found else None


class Victim(NamedTuple):
    """A process that faults are done to. ``signal`` sends it one; where the process has ended, it raises
    ProcessLookupError or NoSuchProcess."""

    what: str
    broker: int
    signal: Callable[[int], None]


class System(Protocol):
    """``faults`` names the groups of faults that can be done to it."""

    @property
    def brokers(self) -> Sequence[int]: ...

    @property
    def faults(self) -> tuple[str, ...]: ...

    @property
    def quick_clients(self) -> bool: ...

    @property
    def bootstrap(self) -> str: ...

    @property
    def folder(self) -> Path:
        """Where clients keep what they saw; it goes with the cluster."""
        ...

    @property
    def chroot(self) -> str: ...

    @property
    def zookeepers(self) -> list[Path]:
        """The data directories of the servers."""
        ...

    @property
    def metrics_targets(self) -> Path: ...

    def data(self, broker: int) -> Path:
        """A broker's data directory."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None:
        """Take all of it down; nothing is left."""
        ...

    def keep_logs(self, to: Path) -> None: ...

    def client(self, words: Sequence[str]) -> list[str]: ...

    def victims(self, role: str) -> list[Victim]: ...

    def shut_down(self, broker: int) -> None: ...

    def bring_back(self, broker: int) -> None: ...

    def halted(self) -> Sequence[int]: ...

    def lose_disk(self, broker: int) -> None:
        """Kill a broker with all its processes and empty its data directory, before anybody starts it again."""
        ...


class SmallDisks(System, Protocol):
    """Each broker has a disk of its own: group "full disk"."""

    def fill_disk(self, broker: int) -> None: ...

    def free_disk(self, broker: int) -> None: ...


class Deployable(System, Protocol):
    """It can be deployed again: group "actors"."""

    actors: Actors

    def use_actors(self, actors: Actors) -> None:
        """Have so many replica actors for each broker from now on. Raises ClusterError."""
        ...


class Network(System, Protocol):
    """Each broker has a host of its own: group "network"."""

    def cut(self, broker: int) -> None: ...

    def heal(self, broker: int) -> None: ...

    def lose_one_way(self, broker: int, to: int) -> None: ...

    def lose_nothing(self, broker: int, to: int) -> None: ...

    def has_head(self, broker: int) -> bool: ...

    def power_off(self, broker: int) -> None: ...

    def cut_logs(self, broker: int, rng: random.Random) -> int: ...

    def power_on(self, broker: int) -> None: ...
