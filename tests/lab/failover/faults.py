"""What is done to a cluster, and how long writes stood still for it."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import psutil

from tests.lab.clusters.systems import BROKERS, System, timeline
from tests.lab.clusters.topic import Topic
from tests.lab.failover.load import Load

TOPIC = "failover"
SETTLE_S = 2.0
WATCH_S = 3.0
STOP_WATCH_S = 14.0
APART_S = 5.0
UNAVAILABLE_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """``seconds`` is the longest gap, of ``partition``; ``errors`` what the producer was told that it can't retry.
    ``again_after_s`` has, for each partition that was led by what was hit, when its own longest gap ended, in order of
    time. Times without another word are seconds after the (first) fault."""

    kind: str
    what: str
    seconds: float
    partition: int
    ended_after_s: float
    errors: int
    in_sync_after_s: float
    again_after_s: list[float]


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
        led: Sequence[int] = (),
        in_sync: bool = True,
    ) -> Outcome:
        """``led`` are the partitions that are led by what is hit."""
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
        gaps = load.longest_gaps(moment - 0.5, end, moment)
        gap = max(gaps, key=lambda gap: gap.seconds)
        again_after_s = sorted(gaps[partition].ended_after_s for partition in led)
        if self._show_timeline:
            for line in timeline(self.topic.system, moment, min(end, moment + max(gap.ended_after_s, 1.0) + 0.5)):
                print(line)
        failed = len(load.errors) - errors
        time.sleep(SETTLE_S)
        return Outcome(
            kind, what, gap.seconds, gap.partition, gap.ended_after_s, failed, in_sync_after_s, again_after_s
        )


class Faults(Measured):
    """Faults of the processes of ``system``."""

    def __init__(self, system: System, topic: Topic, load: Load, rng: random.Random, show_timeline: bool) -> None:
        super().__init__(topic, load, rng, show_timeline)
        self._system = system
        self._healer = ThreadPoolExecutor()
        self._healing: list[Future[None]] = []

    def kill_broker(self, controllers: bool) -> Outcome:
        """``kill -9`` of a broker that leads: the active controller's, or another one."""
        active = self.topic.controller()
        leading = sorted({leader for leader in self.topic.leaders().values() if leader >= 0})
        choices = [b for b in leading if (b == active) == controllers] or leading
        broker = self.rng.choice(choices)
        what = f"broker {broker}" + (", the active controller's" if broker == active else "")
        kill, led = self._kill_of(broker), self._led_by(broker)
        return self._measure("kill -9 of a leader broker", what, kill, self._wait_healed, WATCH_S, led)

    def kill_two_brokers(self) -> Outcome:
        """``kill -9`` of one broker and, APART_S later, of another one: writes stand still until the first is back."""
        first, second = self.rng.sample(range(BROKERS), 2)
        kill_first, kill_second = self._kill_of(first), self._kill_of(second)

        def kill_both() -> None:
            kill_first()
            time.sleep(APART_S)
            kill_second()

        what = f"brokers {first} and {second}, {APART_S:g} s apart"
        led = [*self._led_by(first), *self._led_by(second)]
        return self._measure("kill -9 of two brokers", what, kill_both, self._wait_healed, WATCH_S, led)

    def _led_by(self, broker: int) -> list[int]:
        return [partition for partition, leader in self.topic.leaders().items() if leader == broker]

    def _kill_of(self, broker: int) -> Callable[[], None]:
        """Kills the process that the broker has now, and has it run again beside what is measured, as Ray does."""
        process = self._system.broker(broker)

        def kill() -> None:
            process.kill()
            self._healing.append(self._healer.submit(self._system.heal, broker))

        return kill

    def _wait_healed(self) -> None:
        for healing in self._healing:
            healing.result()
        self._healing.clear()

    def stop(self, role: str) -> Outcome:
        """SIGSTOP of a process; what is still the same one afterwards goes on."""
        leader = self.topic.leaders()[self.rng.randrange(self.topic.partitions)]
        process, what, led = self._stopped(role, leader)

        def go_on() -> None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
            if role == "broker":
                self._system.heal(leader)

        return self._measure(f"SIGSTOP of {role}", what, process.suspend, go_on, STOP_WATCH_S, led)

    def _stopped(self, role: str, leader: int) -> tuple[psutil.Process, str, list[int]]:
        """The process, in words, and the partitions that it leads."""
        system, led = self._system, self._led_by(leader)
        match role:
            case "broker":
                return system.broker(leader), f"broker {leader}", led
            case "replica actor":
                by_actor: dict[psutil.Process, list[int]] = {}
                for partition in led:
                    by_actor.setdefault(system.actor(leader, TOPIC, partition), []).append(partition)
                process, led = max(by_actor.items(), key=lambda item: len(item[1]))
                return process, f"of broker {leader}, which led {len(led)} partitions", led
            case "controller":
                active = self.topic.controller()
                return system.controller(active), f"on broker {active}", []
        raise ValueError(role)

    def shut_down(self) -> list[Outcome]:
        """Controlled shutdown of a leader broker, and its start afterwards."""
        system = self._system
        broker = self.rng.choice(sorted(set(self.topic.leaders().values())))
        what = f"broker {broker}"
        return [
            self._measure(
                "controlled shutdown",
                what,
                lambda: system.shut_down(broker),
                lambda: None,
                WATCH_S,
                self._led_by(broker),
                in_sync=False,
            ),
            self._measure("start after it", what, lambda: system.bring_back(broker), lambda: None, WATCH_S),
        ]
