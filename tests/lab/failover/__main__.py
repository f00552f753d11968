"""Faults under load, one after the other, each from a healthy cluster; a table of how long writes stood still."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import statistics
import sys
import time
from pathlib import Path

from tests.lab.clusters.systems import Deployed, Plain
from tests.lab.clusters.topic import Topic
from tests.lab.failover.faults import TOPIC, Faults, Outcome
from tests.lab.failover.hosts import CLIENT_SETTINGS, ROLES, HostFaults, Hosts, HostsTopic
from tests.lab.failover.load import SETTINGS, Load

WARM_UP_S = 8.0
CALM_S = 8.0
# of each ten kills, these hit the broker of the active controller
WITH_CONTROLLER = (0, 2, 4, 6, 8)
STOPS = ("broker", "leader replica", "follower replica", "controller")


def main() -> int:
    options = parse()
    system = Hosts() if options.hosts else Plain() if options.without_ray else Deployed()
    client = CLIENT_SETTINGS if options.hosts else SETTINGS
    rng = random.Random(options.seed)
    outcomes: list[Outcome] = []
    print(f"{system.name}, {options.partitions} partitions, seed {options.seed}", flush=True)
    try:
        system.start()
        count = options.partitions
        topic = HostsTopic(system, TOPIC, count) if isinstance(system, Hosts) else Topic(system, TOPIC, count)
        topic.create()
        with Load(system.bootstrap, TOPIC, options.partitions, client) as load:
            load.wait_begun()
            topic.wait_in_sync()
            time.sleep(WARM_UP_S)

            def note(outcome: Outcome) -> None:
                outcomes.append(outcome)
                say(outcome)

            if isinstance(system, Hosts):
                of_hosts = HostFaults(system, topic, load, rng, options.timeline)
                note(of_hosts.calm(CALM_S))
                for number in range(options.hosts):
                    note(of_hosts.cut(ROLES[number % len(ROLES)]))
                    note(of_hosts.power_off(ROLES[number % len(ROLES)]))
            else:
                faults = Faults(system, topic, load, rng, options.timeline)
                note(faults.calm(CALM_S))
                for number in range(options.kills):
                    note(faults.kill_broker(number % 10 in WITH_CONTROLLER))
                for _ in range(options.stops):
                    for role in STOPS:
                        note(faults.stop(role))
                for _ in range(options.shutdowns):
                    for outcome in faults.shut_down():
                        note(outcome)
    finally:
        system.stop()
        write_up(outcomes, options.json)
    print(f"Acknowledged {load.acknowledged():,} records; load average now {os.getloadavg()[0]:.1f}.")
    for error in load.errors[:10]:
        print(f"producer: {error}")
    return 1 if load.errors else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/failover", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="kills of a leader broker (default 10)")
    parser.add_argument("--stops", type=int, default=0, metavar="N", help="rounds of SIGSTOP of each role (default 0)")
    parser.add_argument("--shutdowns", type=int, default=0, metavar="N", help="controlled shutdowns (default 0)")
    parser.add_argument(
        "--hosts", type=int, default=0, metavar="N", help="instead: N link cuts and N power cuts of simulated hosts"
    )
    parser.add_argument("--partitions", type=int, default=12)
    parser.add_argument("--without-ray", action="store_true", help="brokers as plain processes: much lighter")
    parser.add_argument("--timeline", action="store_true", help="show what the processes logged during each fault")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write every outcome to this file")
    return parser.parse_args()


def say(o: Outcome) -> None:
    print(
        f"{o.kind}: {o.what}: {o.seconds:.2f} s (partition {o.partition}, over {o.ended_after_s:.2f} s after it),"
        f" {o.errors} errors, in sync after {o.in_sync_after_s:.1f} s",
        flush=True,
    )


def write_up(outcomes: list[Outcome], path: Path | None) -> None:
    kinds = list(dict.fromkeys(outcome.kind for outcome in outcomes))
    print("\n| fault | n | median gap | worst gap | errors |\n|---|---|---|---|---|")
    for kind in kinds:
        gaps = [outcome.seconds for outcome in outcomes if outcome.kind == kind]
        errors = sum(outcome.errors for outcome in outcomes if outcome.kind == kind)
        print(f"| {kind} | {len(gaps)} | {statistics.median(gaps):.2f} s | {max(gaps):.2f} s | {errors} |")
    print()
    if path is not None:
        path.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=1))


if __name__ == "__main__":
    sys.exit(main())
