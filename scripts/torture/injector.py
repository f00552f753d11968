"""Chooses faults by a seed and does them to a cluster on this machine; undoes what does not undo itself."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psutil
from raykafka_cluster import ClusterError

from scripts.torture.history import Fault
from scripts.torture.machine import Machine
from scripts.torture.watch import Watch

STOPPED_S = (0.5, 10.0)
FULL_S = (1.0, 5.0)
AWAY_S = (0.5, 5.0)
ALONE_S = 2.0
# how often the next fault comes before the last one is over
OVERLAP = 0.3
FOUND_WITHIN_S = 20.0


class Kind(NamedTuple):
    """A kind of fault, and how often it comes, relative to the others."""

    name: str
    weight: int
    act: Callable[[Injector], tuple[str, Callable[[], None] | None, float]]


class NotNow(Exception):
    """There is nothing just now to which this fault could be done."""


class Injector:
    """``run`` does ``faults`` of them within ``seconds``. ``faults_done`` has them all, with their moments."""

    def __init__(self, machine: Machine, watch: Watch, rng: random.Random, *, min_insync_replicas: int) -> None:
        self.machine, self.watch, self.rng = machine, watch, rng
        self.min_insync_replicas = min_insync_replicas
        self.done: list[Fault] = []
        self._stopped: list[psutil.Process] = []

    def run(self, faults: int, seconds: float) -> None:
        begun = time.monotonic()
        kinds = [kind for kind in KINDS if self._can(kind)]
        for number in range(faults):
            share_s = (seconds - (time.monotonic() - begun)) / (faults - number)
            self._one(kinds, number, max(share_s, 0.5))

    def _can(self, kind: Kind) -> bool:
        if kind.name == LOSE_ALONE:
            return self.min_insync_replicas == 1
        return kind.name != "full disk" or self.machine.has_disks

    def _one(self, kinds: list[Kind], number: int, share_s: float) -> None:
        """One fault, and then its share of the time: until it is over, or for a while only."""
        overlap, shares = self.rng.random() < OVERLAP, self.rng.random()
        deadline = time.monotonic() + share_s
        while True:
            kind = self.rng.choices(kinds, [kind.weight for kind in kinds])[0]
            began = time.time()
            with contextlib.suppress(NotNow, psutil.NoSuchProcess, FileNotFoundError):
                what, undo, after_s = kind.act(self)
                break
            time.sleep(0.1)
        print(f"{number + 1:4}  {time.strftime('%H:%M:%S')}  {kind.name}: {what}", flush=True)
        if undo is not None:
            time.sleep(after_s)
            undo()
        self.done.append(Fault(kind.name, what, began, time.time()))
        if overlap:
            time.sleep(max(0.0, min(2.0 * shares, deadline - time.monotonic())))
        else:
            self.watch.wait_acknowledged(time.time(), deadline)

    def go_on(self) -> None:
        """Let everything that was stopped go on, as far as it still is there."""
        for process in self._stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        self._stopped.clear()

    # what the kinds do: each answers what was hit, how to undo it, and after how many seconds

    def candidates(self, role: str) -> list[tuple[str, psutil.Process]]:
        machine = self.machine
        match role:
            case "replica":
                return machine.replicas()
            case "broker":
                found = [(f"broker {b}", machine.broker(b)) for b in machine.brokers]
            case "zookeeper":
                found = [("ZooKeeper", machine.zookeeper())]
            case "supervisor":
                found = [("the Supervisor", machine.supervisor())]
            case "active controller":
                active = self.watch.controller()
                found = [(f"controller of broker {active}, the active one", machine.child("controller", active))]
            case _:
                found = [(f"{role} of broker {b}", machine.child(role, b)) for b in machine.brokers]
        return [(what, process) for what, process in found if process is not None]

    def pick(self, role: str) -> tuple[str, psutil.Process]:
        found = self.candidates(role)
        if not found:
            raise NotNow
        return found[self.rng.randrange(len(found))]

    def kill(self, role: str) -> tuple[str, None, float]:
        what, process = self.pick(role)
        process.kill()
        return what, None, 0.0

    def stand_still(self, role: str) -> tuple[str, Callable[[], None], float]:
        what, process = self.pick(role)
        seconds = self.rng.uniform(*STOPPED_S)
        process.suspend()
        self._stopped.append(process)
        return f"{what} for {seconds:.1f} s", self.go_on, seconds

    def full_disk(self) -> tuple[str, Callable[[], None], float]:
        broker, seconds = self.rng.choice(self.machine.brokers), self.rng.uniform(*FULL_S)
        self.machine.fill_disk(broker)
        return f"of broker {broker} for {seconds:.1f} s", lambda: self.machine.free_disk(broker), seconds

    def lose_disk(self) -> tuple[str, None, float]:
        """Only where every replica is in sync: a broker that is behind must not be the last one that has a record."""
        if not self.watch.in_sync():
            raise NotNow
        broker = self.rng.choice(self.machine.brokers)
        self.machine.lose_disk(broker)
        return f"of broker {broker}", None, 0.0

    def lose_disk_alone(self) -> tuple[str, None, float]:
        """Two brokers die, the third goes on alone for a while, and then its disk is lost: with
        min.insync.replicas=1 what it acknowledged meanwhile is gone."""
        if not self.watch.in_sync():
            raise NotNow
        alone, *others = self.rng.sample(list(self.machine.brokers), len(self.machine.brokers))
        for broker in others:
            process = self.machine.broker(broker)
            if process is not None:
                process.kill()
        time.sleep(ALONE_S)
        self.machine.lose_disk(alone)
        return f"of broker {alone}, alone in the ISR", None, 0.0

    def shut_down(self) -> tuple[str, Callable[[], None], float]:
        broker, seconds = self.rng.choice(self.machine.brokers), self.rng.uniform(*AWAY_S)
        self._patiently(lambda: self.machine.shut_down(broker))
        return f"broker {broker} for {seconds:.1f} s", lambda: self.bring_back(broker), seconds

    def bring_back(self, broker: int) -> None:
        self._patiently(lambda: self.machine.bring_back(broker))

    @staticmethod
    def _patiently(command: Callable[[], None]) -> None:
        """A command that the Supervisor carries out may come while that is being restarted."""
        try:
            command()
        except (ClusterError, subprocess.TimeoutExpired):
            time.sleep(2.0)
            with contextlib.suppress(ClusterError, subprocess.TimeoutExpired):
                command()


LOSE_ALONE = "lost disk, alone"


def _kinds() -> Iterator[Kind]:
    kills = {"broker": 5, "replica": 5, "coordinator": 2, "active controller": 3, "zookeeper": 2, "supervisor": 1}
    stops = {"broker": 2, "replica": 3, "coordinator": 1, "active controller": 2, "zookeeper": 1, "supervisor": 1}
    for role, weight in kills.items():
        yield Kind(f"kill -9 of {role}", weight, lambda injector, role=role: injector.kill(role))
    for role, weight in stops.items():
        yield Kind(f"SIGSTOP of {role}", weight, lambda injector, role=role: injector.stand_still(role))
    yield Kind("full disk", 2, Injector.full_disk)
    yield Kind("lost disk", 1, Injector.lose_disk)
    yield Kind(LOSE_ALONE, 4, Injector.lose_disk_alone)
    yield Kind("controlled shutdown", 2, Injector.shut_down)


KINDS = tuple(_kinds())
