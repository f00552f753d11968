"""Chooses faults by a seed and does them to a cluster; undoes what does not undo itself."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, cast

import psutil

from tests.lab.chaos.history import Fault
from tests.lab.chaos.system import ACTOR, Deployable, Network, SmallDisks, System, Victim
from tests.lab.chaos.watch import Watch
from tests.lab.clusters.deployed import ClusterError

STOPPED_S = (0.5, 10.0)
FULL_S = (1.0, 5.0)
AWAY_S = (0.5, 5.0)
ALONE_S = 2.0
CUT_S = (1.0, 12.0)
OFF_S = (0.0, 10.0)
GIVE_UP_WITHIN_S = 60.0
# how long a fault may last before something is said, whatever its share of the time
PATIENCE_S = 20.0
# how often the next fault comes before the last one is over
OVERLAP = 0.3
ACTIVE = "active controller"
ALONE = "alone"
GONE = (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError)

Done = tuple[str, Callable[[], None] | None, float]  # what was hit, how to undo it, and after how many seconds


class Kind(NamedTuple):
    """A kind of fault, and how often it comes, relative to the others; ``group`` is one of a system's ``faults``."""

    name: str
    group: str
    weight: int
    act: Callable[[Injector], Done]


class NotNow(Exception):
    """There is nothing just now to which this fault could be done."""


class Injector:
    """``run`` does so many faults within so many seconds; ``done`` has them all, with their moments."""

    def __init__(self, system: System, watch: Watch, rng: random.Random, *, may_lose: bool) -> None:
        self.system, self.watch, self.rng = system, watch, rng
        groups = (*system.faults, ALONE) if may_lose else system.faults
        self._kinds = [kind for kind in KINDS if kind.group in groups]
        self.done: list[Fault] = []
        self._stopped: list[Victim] = []

    def run(self, faults: int, seconds: float) -> None:
        begun = time.monotonic()
        for number in range(faults):
            share_s = (seconds - (time.monotonic() - begun)) / (faults - number)
            self._one(number, max(share_s, 0.5))

    def _one(self, number: int, share_s: float) -> None:
        """One fault, and then its share of the time: until it is over, or for a while only."""
        overlap, shares = self.rng.random() < OVERLAP, self.rng.random()
        deadline = time.monotonic() + share_s
        while True:
            kind = self.rng.choices(self._kinds, [kind.weight for kind in self._kinds])[0]
            began = time.time()
            with contextlib.suppress(NotNow, *GONE):
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
        elif not self.watch.wait_acknowledged(time.time(), max(deadline, time.monotonic() + PATIENCE_S)):
            silent = [p for p, at in enumerate(self.watch.acknowledged()) if at < time.time() - PATIENCE_S]
            print(f"      partitions {silent} acknowledge nothing", *self.watch.views(), sep="\n        ", flush=True)

    def go_on(self) -> None:
        """Let everything that was stopped go on, as far as it still is there."""
        for victim in self._stopped:
            with contextlib.suppress(*GONE):
                victim.signal(signal.SIGCONT)
        self._stopped.clear()

    # what the kinds do

    def pick(self, role: str) -> Victim:
        """One process of a role."""
        active = -1
        if role == ACTIVE:
            role, active = "controller", self.watch.controller()
        found = [victim for victim in self.system.victims(role) if active in (-1, victim.broker)]
        if not found:
            raise NotNow
        return found[self.rng.randrange(len(found))]

    def kill(self, role: str) -> Done:
        victim = self.pick(role)
        victim.signal(signal.SIGKILL)
        return victim.what, None, 0.0

    def stand_still(self, role: str) -> Done:
        victim = self.pick(role)
        seconds = self.rng.uniform(*STOPPED_S)
        victim.signal(signal.SIGSTOP)
        self._stopped.append(victim)
        return f"{victim.what} for {seconds:.1f} s", self.go_on, seconds

    def full_disk(self) -> Done:
        system = cast(SmallDisks, self.system)
        broker, seconds = self.rng.choice(system.brokers), self.rng.uniform(*FULL_S)
        system.fill_disk(broker)
        return f"of broker {broker} for {seconds:.1f} s", lambda: system.free_disk(broker), seconds

    def lose_disk(self) -> Done:
        """Only where every replica is in sync: a broker that is behind must not be the last one that has a record."""
        if not self.watch.in_sync():
            raise NotNow
        broker = self.rng.choice(self.system.brokers)
        self.system.lose_disk(broker)
        return f"of broker {broker}", None, 0.0

    def lose_disk_alone(self) -> Done:
        """Two brokers die, the third goes on alone for a while, and then its disk is lost: with
        min.insync.replicas=1 what it acknowledged meanwhile is gone."""
        if self.watch.wait_in_sync(PATIENCE_S):
            raise NotNow
        alone, *others = self.rng.sample(list(self.system.brokers), len(self.system.brokers))
        for victim in self.system.victims("broker"):
            if victim.broker in others:
                victim.signal(signal.SIGKILL)
        time.sleep(ALONE_S)
        self.system.lose_disk(alone)
        return f"of broker {alone}, alone in the ISR", self.give_up_what_is_lost, ALONE_S

    def give_up_what_is_lost(self) -> None:
        """Until every partition acknowledges: ask for leaders that may lack records, where every broker is back and the
        last in-sync replica has lost its disk."""
        moment, deadline = time.time(), time.monotonic() + GIVE_UP_WITHIN_S
        while not self.watch.wait_acknowledged(moment, time.monotonic() + 1.0) and time.monotonic() < deadline:
            self.watch.elect_unclean(self.watch.offline())

    def cut_link(self) -> Done:
        system = cast(Network, self.system)
        broker, seconds = self.rng.choice(system.brokers), self.rng.uniform(*CUT_S)
        system.cut(broker)
        return f"of broker {broker}'s host for {seconds:.1f} s", lambda: system.heal(broker), seconds

    def lose_one_way(self) -> Done:
        system = cast(Network, self.system)
        (broker, to), seconds = self.rng.sample(list(system.brokers), 2), self.rng.uniform(*CUT_S)
        system.lose_one_way(broker, to)
        what = f"from broker {broker}'s host to broker {to}'s for {seconds:.1f} s"
        return what, lambda: system.lose_nothing(broker, to), seconds

    def power_off(self) -> Done:
        """Where every replica is in sync, what that host had not flushed is lost as well: of no partition two replicas
        at a time."""
        system = cast(Network, self.system)
        broker = self.rng.choice([broker for broker in system.brokers if not system.has_head(broker)])
        seconds, in_sync = self.rng.uniform(*OFF_S), self.watch.in_sync()
        system.power_off(broker)
        lost = system.cut_logs(broker, self.rng) if in_sync else 0
        what = f"of broker {broker}'s host for {seconds:.1f} s, {lost:,} bytes of its logs are lost"
        return what, lambda: system.power_on(broker), seconds

    def shut_down(self) -> Done:
        broker, seconds = self.rng.choice(self.system.brokers), self.rng.uniform(*AWAY_S)
        self._patiently(lambda: self.system.shut_down(broker))
        return f"broker {broker} for {seconds:.1f} s", lambda: self.bring_back(broker), seconds

    def bring_back(self, broker: int) -> None:
        self._patiently(lambda: self.system.bring_back(broker))

    def use_other_actors(self) -> Done:
        """Replicas move, since their actors are other ones, and back again."""
        system = cast(Deployable, self.system)
        before = system.actors
        other, seconds = self.rng.choice([count for count in (1, 2, 3) if count != before]), self.rng.uniform(*AWAY_S)
        self._patiently(lambda: system.use_actors(other))
        what = f"{other} for each broker for {seconds:.1f} s, then {before}"
        return what, lambda: self._patiently(lambda: system.use_actors(before)), seconds

    @staticmethod
    def _patiently(command: Callable[[], None]) -> None:
        """A command that the Supervisor carries out may come while that is being restarted."""
        try:
            command()
        except (ClusterError, subprocess.TimeoutExpired):
            time.sleep(2.0)
            with contextlib.suppress(ClusterError, subprocess.TimeoutExpired):
                command()


def _kinds() -> Iterator[Kind]:
    kills = {"broker": 5, ACTOR: 5, "coordinator": 2, ACTIVE: 3, "zookeeper": 2, "supervisor": 1}
    stops = {"broker": 2, ACTOR: 3, "coordinator": 1, ACTIVE: 2, "zookeeper": 1, "supervisor": 1}
    for role, weight in kills.items():
        yield Kind(f"kill -9 of {role}", "process", weight, partial(Injector.kill, role=role))
    for role, weight in stops.items():
        yield Kind(f"SIGSTOP of {role}", "process", weight, partial(Injector.stand_still, role=role))
    yield Kind("controlled shutdown", "shutdown", 2, Injector.shut_down)
    yield Kind("other replica actors", "actors", 2, Injector.use_other_actors)
    yield Kind("lost disk", "lost disk", 1, Injector.lose_disk)
    yield Kind("full disk", "full disk", 2, Injector.full_disk)
    yield Kind("link cut", "network", 5, Injector.cut_link)
    yield Kind("one-way loss", "network", 4, Injector.lose_one_way)
    yield Kind("power-off", "network", 3, Injector.power_off)
    yield Kind("lost disk, alone", ALONE, 4, Injector.lose_disk_alone)


KINDS = tuple(_kinds())
