"""What is done to a cluster, and how long writes stood still for it."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from tests.lab.clusters.systems import BROKERS, System, timeline
from tests.lab.clusters.topic import Topic
from tests.lab.failover.load import Load

TOPIC = "failover"
SETTLE_S = 2.0
WATCH_S = 3.0
STOP_WATCH_S = 14.0
UNAVAILABLE_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """``seconds`` is the longest gap, of ``partition``; ``errors`` what the producer was told that it can't retry."""

    kind: str
    what: str
    seconds: float
    partition: int
    ended_after_s: float
    errors: int
    in_sync_after_s: float


class Measured:
    """Measures what is done to the cluster of ``topic`` under ``load``."""

    def __init__(self, topic: Topic, load: Load, rng: random.Random, show_timeline: bool) -> None:
        self.topic, self.load, self.rng = topic, load, rng
        self._show_timeline = show_timeline

    def calm(self, seconds: float) -> Outcome:
        """No fault at all: what this machine and load show by themselves."""
        return self._measure("no fault", "nothing", lambda: None, lambda: None, seconds)

    def _measure(
        self,
        kind: str,
        what: str,
        fault: Callable[[], object],
        heal: Callable[[], object],
        watch_s: float,
        in_sync: bool = True,
    ) -> Outcome:
        load, errors = self.load, len(self.load.errors)
        moment = time.time()
        fault()
        done = time.time()
        while time.time() < done + watch_s:
            time.sleep(0.05)
        deadline = time.monotonic() + UNAVAILABLE_AFTER_S
        while not load.all_acknowledged_since(done + 0.2) and time.monotonic() < deadline:
            time.sleep(0.05)
        for line in load.stuck() if time.monotonic() >= deadline else ():
            print(line, flush=True)
        heal()
        if in_sync:
            self.topic.wait_in_sync()
        in_sync_after_s = time.time() - moment if in_sync else 0.0
        end = time.time()
        gap = load.longest_gap(moment - 0.5, end, moment)
        if self._show_timeline:
            for line in timeline(self.topic.system, moment, min(end, moment + max(gap.ended_after_s, 1.0) + 0.5)):
                print(line)
        failed = len(load.errors) - errors
        time.sleep(SETTLE_S)
        return Outcome(kind, what, gap.seconds, gap.partition, gap.ended_after_s, failed, in_sync_after_s)


class Faults(Measured):
    """Faults of the processes of ``system``."""

    def __init__(self, system: System, topic: Topic, load: Load, rng: random.Random, show_timeline: bool) -> None:
        super().__init__(topic, load, rng, show_timeline)
        self._system = system

    def kill_broker(self, controllers: bool) -> Outcome:
        """``kill -9`` of a broker that leads: the active controller's, or another one."""
        system, active = self._system, self.topic.controller()
        leading = sorted({leader for leader in self.topic.leaders().values() if leader >= 0})
        choices = [b for b in leading if (b == active) == controllers] or leading
        broker = self.rng.choice(choices)
        process = system.broker(broker)
        what = f"broker {broker}" + (", the active controller's" if broker == active else "")
        return self._measure("kill -9 of a leader broker", what, process.kill, lambda: system.heal(broker), WATCH_S)

    def stop(self, role: str) -> Outcome:
        """SIGSTOP of a process; what is still the same one afterwards goes on."""
        partition = self.rng.randrange(self.topic.partitions)
        leader = self.topic.leaders()[partition]
        process, broker, what = self._stopped(role, leader, partition)

        def go_on() -> None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
            if role == "broker":
                self._system.heal(broker)

        return self._measure(f"SIGSTOP of {role}", what, process.suspend, go_on, STOP_WATCH_S)

    def _stopped(self, role: str, leader: int, partition: int) -> tuple[psutil.Process, int, str]:
        system = self._system
        match role:
            case "broker":
                return system.broker(leader), leader, f"broker {leader}"
            case "leader replica":
                return system.replica(leader, TOPIC, partition), leader, f"of partition {partition} on broker {leader}"
            case "follower replica":
                broker = (leader + 1) % BROKERS
                return system.replica(broker, TOPIC, partition), broker, f"of partition {partition} on broker {broker}"
            case "controller":
                active = self.topic.controller()
                return system.controller(active), active, f"on broker {active}"
        raise ValueError(role)

    def shut_down(self) -> list[Outcome]:
        """Controlled shutdown of a leader broker, and its start afterwards."""
        system = self._system
        broker = self.rng.choice(sorted(set(self.topic.leaders().values())))
        what = f"broker {broker}"
        return [
            self._measure(
                "controlled shutdown", what, lambda: system.shut_down(broker), lambda: None, WATCH_S, in_sync=False
            ),
            self._measure("start after it", what, lambda: system.bring_back(broker), lambda: None, WATCH_S),
        ]
