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

from tests.lab.clusters.actors import add_option
from tests.lab.clusters.systems import Deployed, Plain
from tests.lab.clusters.topic import Topic
from tests.lab.failover.faults import TOPIC, Faults, Outcome
from tests.lab.failover.hosts import CLIENT_SETTINGS, ROLES, HostFaults, Hosts, HostsTopic
from tests.lab.failover.load import SETTINGS, Load

WARM_UP_S = 8.0
CALM_S = 8.0
# of each ten kills, these hit the broker of the active controller
WITH_CONTROLLER = (0, 2, 4, 6, 8)
STOPS = ("broker", "replica actor", "controller")


def main() -> int:
    options = parse()
    system = choose(options)
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
                for _ in range(options.double_kills):
                    note(faults.kill_two_brokers())
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


def choose(options: argparse.Namespace) -> Hosts | Plain | Deployed:
    if options.hosts:
        return Hosts(options.actors)
    return Plain(actors=options.actors) if options.without_ray else Deployed(actors=options.actors)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/failover", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="kills of a leader broker (default 10)")
    parser.add_argument(
        "--double-kills", type=int, default=0, metavar="N", help="kills of two brokers, one after the other (default 0)"
    )
    parser.add_argument("--stops", type=int, default=0, metavar="N", help="rounds of SIGSTOP of each role (default 0)")
    parser.add_argument("--shutdowns", type=int, default=0, metavar="N", help="controlled shutdowns (default 0)")
    parser.add_argument(
        "--hosts", type=int, default=0, metavar="N", help="instead: N link cuts and N power cuts of simulated hosts"
    )
    parser.add_argument("--partitions", type=int, default=12, help="that are written (default 12)")
    add_option(parser)
    parser.add_argument("--without-ray", action="store_true", help="brokers as plain processes: much lighter")
    parser.add_argument("--timeline", action="store_true", help="show what the processes logged during each fault")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write every outcome to this file")
    return parser.parse_args()


def say(o: Outcome) -> None:
    print(
        f"{o.kind}: {o.what}: {o.seconds:.2f} s (partition {o.partition}, over {o.ended_after_s:.2f} s after it),"
        f" {o.errors} errors, in sync after {o.in_sync_after_s:.1f} s{led(o)}",
        flush=True,
    )


def led(o: Outcome) -> str:
    if not o.again_after_s:
        return ""
    middle, last = statistics.median(o.again_after_s), o.again_after_s[-1]
    return f"; {len(o.again_after_s)} partitions that it led: median {middle:.2f} s, the last after {last:.2f} s"


def write_up(outcomes: list[Outcome], path: Path | None) -> None:
    kinds = list(dict.fromkeys(outcome.kind for outcome in outcomes))
    print("\n| fault | n | median gap | worst gap | in sync again, median | errors |\n|---|---|---|---|---|---|")
    for kind in kinds:
        gaps = [outcome.seconds for outcome in outcomes if outcome.kind == kind]
        in_sync = statistics.median(outcome.in_sync_after_s for outcome in outcomes if outcome.kind == kind)
        errors = sum(outcome.errors for outcome in outcomes if outcome.kind == kind)
        figures = f"{statistics.median(gaps):.2f} s | {max(gaps):.2f} s | {in_sync:.1f} s"
        print(f"| {kind} | {len(gaps)} | {figures} | {errors} |")
    print()
    if path is not None:
        path.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=1))


if __name__ == "__main__":
    sys.exit(main())
