"""Thousands of partitions of which ten are written: what they cost, and how soon the others are there when needed."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.lab.clusters.systems import BROKERS, CONFIG, Deployed, Plain
from tests.lab.cpu import cpu_seconds
from tests.lab.sleepers.cluster import WRITTEN, WRITTEN_PARTITIONS, Cluster
from tests.lab.sleepers.probes import Place, call_ms, scrape, states, write_ms
from tests.lab.sleepers.restarts import Restart, kill, restart
from tests.lab.sleepers.steady import Steady
from tests.lab.sleepers.usage import Usage, usage
from tests.lab.wire import metadata_request

USAGE_OVER_S = 30.0
CALLS = 20
WITH_DATA = 60
IDLE_MS = 5000
CALM_FOR_S, CALM_PERCENT, CALM_WITHIN_S = 0.3, 40.0, 10.0


def main() -> int:
    options = parse()
    config = {**CONFIG, "replica.idle.ms": str(IDLE_MS)}
    system = Plain(config) if options.without_ray else Deployed(config)
    cluster = Cluster(system, options.partitions, options.topics, options.replication)
    figures: dict[str, Any] = {"system": system.name, **{k: v for k, v in vars(options).items() if k != "json"}}
    say(f"{system.name}, {options.partitions:,} partitions, replication factor {options.replication}")
    try:
        system.start()
        measure(cluster, options, figures)
    finally:
        system.stop()
        if options.json is not None:
            options.json.write_text(json.dumps(figures, indent=1))
    say(f"load average now {os.getloadavg()[0]:.1f}")
    return 0


def measure(cluster: Cluster, options: argparse.Namespace, figures: dict[str, Any]) -> None:
    if options.usage_s:
        cluster.wait_quiet()
        figures["empty"] = show_usage("no partition", cluster, options.usage_s)
    figures["create_s"] = cluster.create()
    say(f"created in {figures['create_s']:.2f} s")
    if options.usage_s:
        cluster.wait_quiet()
        figures["created"] = show_usage("all created, none written", cluster, options.usage_s)
        figures["requests"] = requests(cluster)
        with Steady(cluster.system.bootstrap, WRITTEN, WRITTEN_PARTITIONS):
            cluster.wait_awake(WRITTEN_PARTITIONS * options.replication)
            cluster.wait_quiet()
            figures["written"] = show_usage("ten written once a second", cluster, options.usage_s)
    data = cluster.places()[:: max(1, options.partitions // options.with_data)][: options.with_data]
    if options.first_writes or options.kills or options.restarts:
        say(f"writing to {len(data)} partitions, which then fall asleep")
        cluster.write(data)
        cluster.wait_asleep()
    if options.first_writes:
        figures["first_writes_ms"] = first_writes(cluster, data, options.first_writes)
    figures["restarts"] = []
    for number in range(options.kills + options.restarts):
        cluster.wait_quiet()
        active = cluster.controller()
        # every other one hits the active controller's broker
        broker = active if number % 2 == 0 else (active + 1) % BROKERS
        how = kill if number < options.kills else restart
        outcome = how(cluster, broker, set(data), options.timeline)
        figures["restarts"].append(dataclasses.asdict(outcome))
        say_restart(outcome)
        cluster.wait_asleep()
    if options.usage_s and (options.kills or options.restarts):
        figures["after"] = show_usage("after all that", cluster, options.usage_s)


def show_usage(title: str, cluster: Cluster, over_s: float) -> dict[str, Any]:
    found = usage(cluster.system, over_s)
    width = max(map(len, found))
    say(f"{title}:")
    total = Usage(*(sum(values) for values in zip(*map(dataclasses.astuple, found.values()), strict=True)))
    for role, u in [*found.items(), ("all", total)]:
        say(
            f"  {role:{width}} {u.processes:4}  private {u.private_mb:6.0f} MB  resident {u.resident_mb:6.0f} MB"
            f"  {u.cpu_percent:6.1f}% of a core"
        )
    return {role: dataclasses.asdict(u) for role, u in found.items()}


def requests(cluster: Cluster) -> dict[str, Any]:
    """A Metadata of everything, and a scrape: how long each takes, and what it costs the broker."""
    broker = cluster.system.broker(0).pid
    port = cluster.system.metrics_ports[0]
    found: dict[str, Any] = {}

    def timed(name: str, call: Any) -> None:
        call()
        before, took = cpu_seconds([broker])[broker], []
        for _ in range(CALLS):
            took.append(call())
        cpu_ms = (cpu_seconds([broker])[broker] - before) * 1000 / CALLS
        found[name] = {"median_ms": statistics.median(took), "max_ms": max(took), "broker_cpu_ms": cpu_ms}
        say(f"{name}: median {found[name]['median_ms']:.1f} ms, max {max(took):.1f} ms, {cpu_ms:.1f} ms of CPU")

    def timed_scrape() -> float:
        began = time.perf_counter()
        scrape(port)
        return (time.perf_counter() - began) * 1000

    with cluster.wires() as wires:
        timed("Metadata of all topics", lambda: call_ms(wires[0], metadata_request(None)))
        timed("Metadata of one topic", lambda: call_ms(wires[0], metadata_request([WRITTEN])))
    timed("scrape", timed_scrape)
    return found


def first_writes(cluster: Cluster, data: list[Place], count: int) -> dict[str, list[float]]:
    """The first write to a sleeping partition, one after the other; before each, every broker has a spare replica and
    the machine is calm: the processes that the last one left starting have started. Of
    ``count`` writes with each acks, half go to partitions that hold records and have fallen asleep again by their next
    turn, half to such as were never written."""
    held = set(data)
    never = [place for place in cluster.places() if place not in held]
    kinds = {"acks=1": 1, "acks=all": -1} if cluster.replication > 1 else {"acks=1": 1}
    found: dict[str, list[float]] = {}
    turns = {
        (kind, what): itertools.cycle(places[i :: len(kinds)])
        for what, places in (("never written", never), ("written before", data))
        for i, kind in enumerate(kinds)
    }
    with cluster.wires() as wires:
        for _ in range(count // 2):
            for (kind, what), places in turns.items():
                place = next(places)
                cluster.wait_spares()
                wait_calm()
                leader, _ = states(wires[0], [place.topic])[place]
                found.setdefault(f"{kind}, {what}", []).append(write_ms(wires[leader], place, kinds[kind]))
    for kind in kinds:
        found[kind] = [ms for name, took in found.items() if name.startswith(kind) for ms in took]
    for name, took in sorted(found.items()):
        say(f"first write, {name}: {describe(took)}")
    return found


def wait_calm() -> None:
    """Until the machine's processors were mostly idle for a moment; not for ever, where others use them."""
    deadline = time.monotonic() + CALM_WITHIN_S
    while psutil.cpu_percent(CALM_FOR_S) > CALM_PERCENT and time.monotonic() < deadline:
        pass


def describe(took: list[float]) -> str:
    return (
        f"p50 {statistics.median(took):.1f} ms, p99 {percentile(took, 99):.1f} ms, max {max(took):.1f} ms"
        f" of {len(took)}"
    )


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that ``percent`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def say_restart(o: Restart) -> None:
    role = ", the active controller's" if o.was_controller else ""
    say(
        f"{o.kind} of broker {o.broker}{role}: all led after {o.leaders_s:.2f} s, writes stood {o.gap_s:.2f} s until "
        f"{o.gap_ended_s:.2f} s after it, read from others after {o.read_by_others_s:.2f} s; after its start: "
        f"sleepers in sync {o.sleepers_in_sync_s:.2f} s, all {o.in_sync_s:.2f} s, first read {o.first_read_s:.2f} s, "
        f"all {o.led} read {o.all_read_s:.2f} s; {o.cpu_s:.0f} s of CPU, at most {o.most_processes} processes"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/sleepers", description=__doc__)
    parser.add_argument("--partitions", type=int, default=2000)
    parser.add_argument("--topics", type=int, default=20, help="over how many topics they are spread (default 20)")
    parser.add_argument("--replication", type=int, default=3, choices=(1, 3))
    parser.add_argument("--with-data", type=int, default=WITH_DATA, metavar="N", help="sleepers that hold records")
    parser.add_argument("--first-writes", type=int, default=100, metavar="N", help="of each kind (default 100)")
    parser.add_argument("--kills", type=int, default=2, metavar="N", help="kill -9 of a broker (default 2)")
    parser.add_argument("--restarts", type=int, default=2, metavar="N", help="controlled restarts (default 2)")
    parser.add_argument("--usage-s", type=float, default=USAGE_OVER_S, help="how long CPU is measured (0: not at all)")
    parser.add_argument("--without-ray", action="store_true", help="brokers as plain processes: much lighter")
    parser.add_argument("--timeline", action="store_true", help="show what the processes logged after each end")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    return parser.parse_args()


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
