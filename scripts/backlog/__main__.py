"""A broker is stopped, much is written, and it is started again while records keep arriving: how long its replica takes
to be in sync, what arrived meanwhile, and how much memory every process took."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts" / "peer"), str(ROOT / "scripts" / "outage")]

from confluent_kafka import KafkaException  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402
from systems import BROKERS, Deployed, Plain, System  # noqa: E402
from watch import Memory, Watch, arriving, peak  # noqa: E402

TOPIC = "backlog"
WITHIN_S = 120.0
CALM_S = 10.0
POLL_S = 0.1
MB = 1_000_000


def main() -> int:
    options = parse()
    system = Plain() if options.without_ray else Deployed()
    try:
        system.start()
        run = Run(system, options)
        found = run.measure()
    finally:
        system.stop()
    print(f"\n{system.name}; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    say(found)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))
    return 1 if run.failed or found["in_sync_after_s"] is None else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/catchup", description=__doc__)
    parser.add_argument(
        "--behind", type=int, default=1000, metavar="MB", help="written while it is away (default 1000)"
    )
    parser.add_argument("--rate", type=float, default=50.0, metavar="MB/S", help="that keep arriving; 0: all that goes")
    parser.add_argument("--within", type=float, default=300.0, metavar="S", help="give up after this long")
    parser.add_argument("--without-ray", action="store_true", help="brokers as plain processes: much lighter")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


class Run:
    """One measurement on a system that has started."""

    def __init__(self, system: System, options: argparse.Namespace) -> None:
        self._system, self._options = system, options
        self._admin = AdminClient({"bootstrap.servers": system.bootstrap, "log_level": 0})
        self.failed = False

    def measure(self) -> dict[str, object]:
        system, options = self._system, self._options
        self._create()
        self._write(20 * MB)
        self._wait_in_sync(WITHIN_S)
        leader = self._leader()
        follower, other = (leader + 1) % BROKERS, (leader + 2) % BROKERS
        system.shut_down(follower)
        began = time.monotonic()
        self._write(options.behind * MB)
        filling_s = time.monotonic() - began
        print(f"{options.behind} MB written without broker {follower} in {filling_s:.1f} s", flush=True)
        roles = {
            "leader's broker": lambda: system.broker(leader),
            "leader's replica": lambda: system.replica(leader, TOPIC, 0),
            "follower's broker": lambda: system.broker(follower),
            "follower's replica": lambda: system.replica(follower, TOPIC, 0),
            "in-sync follower's broker": lambda: system.broker(other),
            "in-sync follower's replica": lambda: system.replica(other, TOPIC, 0),
        }
        logs = (system.data(leader) / f"{TOPIC}-0", system.data(follower) / f"{TOPIC}-0")
        with Watch(*logs, roles) as watch, self._flow(options.rate * MB, 0):
            time.sleep(CALM_S)
            started = time.monotonic()
            system.bring_back(follower)
            in_sync = self._wait_in_sync(options.within)
            ended = time.monotonic()
            time.sleep(CALM_S)
        before, during = watch.between(started - CALM_S + 2, started), watch.between(started, ended)
        had = before[-1].follower_bytes
        first = next((sample for sample in during if sample.follower_bytes > had), during[-1])
        copied, copying_s = during[-1].follower_bytes - had, max(ended - first.at_s, 0.001)
        return {
            "written_meanwhile_mb_s": {
                "before": arriving(before),
                "while it starts": arriving(watch.between(started, first.at_s)),
                "while it catches up": arriving(watch.between(first.at_s, ended)),
                "after": arriving(watch.between(ended, ended + CALM_S)),
            },
            "filled_at_mb_s": options.behind / filling_s,
            "copied_mb": copied / MB,
            "copied_mb_s": copied / MB / copying_s,
            "begun_after_s": first.at_s - started,
            "in_sync_after_s": ended - started if in_sync else None,
            "memory_before": peak(before),
            "memory_during": peak(during),
        }

    def _create(self) -> None:
        deadline = time.monotonic() + WITHIN_S
        while len(self._admin.list_topics(timeout=10).brokers) < BROKERS and time.monotonic() < deadline:
            time.sleep(POLL_S)
        new = NewTopic(TOPIC, 1, BROKERS, config={"min.insync.replicas": "2"})
        self._admin.create_topics([new])[TOPIC].result(WITHIN_S)

    def _leader(self) -> int:
        return int(self._admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions[0].leader)

    def _wait_in_sync(self, within_s: float) -> bool:
        """Whether every replica is in sync within that time."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            with contextlib.suppress(KafkaException):
                if len(self._admin.list_topics(TOPIC, timeout=5).topics[TOPIC].partitions[0].isrs) == BROKERS:
                    return True
            time.sleep(POLL_S)
        return False

    def _write(self, size: int) -> None:
        with self._flow(0, size) as process:
            process.wait(WITHIN_S * 4)

    @contextlib.contextmanager
    def _flow(self, rate: float, size: int) -> Iterator[subprocess.Popen[bytes]]:
        """A producer that goes on until the context ends, or ``size`` bytes are written."""
        command = [sys.executable, str(HERE / "flow.py"), self._system.bootstrap, TOPIC, str(rate), str(size)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            self.failed |= process.wait(WITHIN_S * 2) != 0


def say(found: dict[str, object]) -> None:
    rates = ", ".join(f"{when} {rate:.1f}" for when, rate in found["written_meanwhile_mb_s"].items())  # type: ignore
    print(f"arriving, MB/s: {rates} (filled at {found['filled_at_mb_s']:.1f})")
    print(
        f"{found['copied_mb']:.0f} MB copied at {found['copied_mb_s']:.1f} MB/s, begun {found['begun_after_s']:.1f} s "
        f"after the start"
    )
    after = found["in_sync_after_s"]
    print("in sync again after " + ("NEVER" if after is None else f"{after:.1f} s"))
    print("\n| process | MB of its own before, peak while it catches up | resident |\n|---|---|---|")
    before: dict[str, Memory] = found["memory_before"]  # type: ignore[assignment]
    for role, most in found["memory_during"].items():  # type: ignore[attr-defined]
        had = before.get(role)
        own, resident = (f"{had[1] / MB:.0f}", f"{had[0] / MB:.0f}") if had else ("-", "-")
        print(f"| {role} | {own}, {most[1] / MB:.0f} | {resident}, {most[0] / MB:.0f} |")


if __name__ == "__main__":
    sys.exit(main())
