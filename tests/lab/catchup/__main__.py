"""A broker is stopped, much is written, and it is started again while records keep arriving: how long its replica takes
to be in sync, what arrived meanwhile, and how much memory every process took."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab import REPOSITORY
from tests.lab.catchup.watch import Memory, Watch, arriving, peak
from tests.lab.clusters.actors import add_option
from tests.lab.clusters.systems import BROKERS, Deployed, Plain, System
from tests.lab.clusters.topic import Topic

TOPIC = "catchup"
WITHIN_S = 120.0
CALM_S = 10.0
MB = 1_000_000


@dataclass
class Found:
    """``arriving_mb_s``: what the leader's log grew by, in each phase. ``begun_after_s`` and ``in_sync_after_s`` count
    from the start of the broker; the latter is None where it did not come to be in sync."""

    system: str
    behind_mb: int
    rate_mb_s: float
    filled_at_mb_s: float
    arriving_mb_s: dict[str, float]
    copied_mb: float
    copied_mb_s: float
    begun_after_s: float
    in_sync_after_s: float | None
    memory_before: dict[str, Memory]
    memory_during: dict[str, Memory]
    load_average: float


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that what was started is ended
    system = Plain(actors=options.actors) if options.without_ray else Deployed(actors=options.actors)
    try:
        system.start()
        run = Run(system, options)
        found = run.measure()
    finally:
        system.stop()
    say(found)
    if options.json is not None:
        options.json.write_text(json.dumps(dataclasses.asdict(found), indent=1))
    return 1 if run.failed or found.in_sync_after_s is None else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/catchup", description=__doc__)
    parser.add_argument(
        "--behind", type=int, default=1000, metavar="MB", help="written while it is away (default 1000)"
    )
    parser.add_argument("--rate", type=float, default=50.0, metavar="MB/S", help="that keep arriving; 0: all that goes")
    parser.add_argument("--within", type=float, default=300.0, metavar="S", help="give up after this long")
    parser.add_argument("--without-ray", action="store_true", help="brokers as plain processes: much lighter")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    add_option(parser)
    return parser.parse_args()


class Run:
    """One measurement on a system that has started."""

    def __init__(self, system: System, options: argparse.Namespace) -> None:
        self._system, self._options = system, options
        self._topic = Topic(system, TOPIC, 1)
        self.failed = False

    def measure(self) -> Found:
        system, options = self._system, self._options
        self._topic.create()
        self._write(20 * MB)
        self._topic.wait_in_sync(WITHIN_S)
        leader = self._topic.leaders()[0]
        follower, other = (leader + 1) % BROKERS, (leader + 2) % BROKERS
        system.shut_down(follower)
        began = time.monotonic()
        self._write(options.behind * MB)
        filling_s = time.monotonic() - began
        print(f"{options.behind} MB written without broker {follower} in {filling_s:.1f} s", flush=True)
        roles = {
            "leader's broker": lambda: system.broker(leader),
            "leader's replica actor": lambda: system.actor(leader, TOPIC, 0),
            "follower's broker": lambda: system.broker(follower),
            "follower's replica actor": lambda: system.actor(follower, TOPIC, 0),
            "in-sync follower's broker": lambda: system.broker(other),
            "in-sync follower's replica actor": lambda: system.actor(other, TOPIC, 0),
        }
        logs = (system.data(leader) / f"{TOPIC}-0", system.data(follower) / f"{TOPIC}-0")
        with Watch(*logs, roles) as watch, self._flow(options.rate * MB, 0):
            time.sleep(CALM_S)
            started = time.monotonic()
            system.bring_back(follower)
            in_sync = self._in_sync(options.within)
            ended = time.monotonic()
            time.sleep(CALM_S)
        before, during = watch.between(started - CALM_S + 2, started), watch.between(started, ended)
        had = before[-1].follower_bytes
        first = next((sample for sample in during if sample.follower_bytes > had), during[-1])
        copied, copying_s = during[-1].follower_bytes - had, max(ended - first.at_s, 0.001)
        return Found(
            system.name,
            options.behind,
            options.rate,
            options.behind / filling_s,
            {
                "before": arriving(before),
                "while it starts": arriving(watch.between(started, first.at_s)),
                "while it catches up": arriving(watch.between(first.at_s, ended)),
                "after": arriving(watch.between(ended, ended + CALM_S)),
            },
            copied / MB,
            copied / MB / copying_s,
            first.at_s - started,
            ended - started if in_sync else None,
            peak(before),
            peak(during),
            os.getloadavg()[0],
        )

    def _in_sync(self, within_s: float) -> bool:
        """Whether every replica is in sync within that time."""
        try:
            self._topic.wait_in_sync(within_s)
        except TimeoutError:
            return False
        return True

    def _write(self, size: int) -> None:
        with self._flow(0, size) as process:
            process.wait(WITHIN_S * 4)

    @contextlib.contextmanager
    def _flow(self, rate: float, size: int) -> Iterator[subprocess.Popen[bytes]]:
        """A producer that goes on until the context ends, or ``size`` bytes are written."""
        command = [sys.executable, "-m", "tests.lab.catchup.flow", self._system.bootstrap, TOPIC, str(rate), str(size)]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            self.failed |= process.wait(WITHIN_S * 2) != 0


def say(found: Found) -> None:
    print(f"\n{found.system}; load average {found.load_average:.1f} on {os.cpu_count()} cores")
    rates = ", ".join(f"{when} {rate:.1f}" for when, rate in found.arriving_mb_s.items())
    print(f"arriving, MB/s: {rates} (filled at {found.filled_at_mb_s:.1f})")
    print(
        f"{found.copied_mb:.0f} MB copied at {found.copied_mb_s:.1f} MB/s, begun {found.begun_after_s:.1f} s after the "
        "start"
    )
    after = found.in_sync_after_s
    print("NOT in sync again" if after is None else f"in sync again after {after:.1f} s")
    print("\n| process | MB of its own before, at most while it catches up | resident |\n|---|---|---|")
    for role, most in found.memory_during.items():
        had = found.memory_before.get(role)
        own, resident = (f"{had.own / MB:.0f}", f"{had.resident / MB:.0f}") if had else ("-", "-")
        print(f"| {role} | {own}, {most.own / MB:.0f} | {resident}, {most.resident / MB:.0f} |")


if __name__ == "__main__":
    sys.exit(main())
