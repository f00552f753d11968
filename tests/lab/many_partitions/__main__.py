"""Thousands of partitions of which few are written: what they cost, and how soon all is well again when a broker
ends. raykafka beside Apache Kafka."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab.clusters.actors import add_option
from tests.lab.clusters.peer import Peer
from tests.lab.clusters.systems import BROKERS, RAY, Deployed, Plain, Restartable
from tests.lab.cpu import cpu_seconds
from tests.lab.many_partitions.cluster import WRITTEN, Cluster
from tests.lab.many_partitions.probes import call_ms
from tests.lab.many_partitions.restarts import Restart, kill, restart
from tests.lab.many_partitions.steady import Steady
from tests.lab.many_partitions.usage import Usage, usage
from tests.lab.peer.kafka import VERSIONS
from tests.lab.wire import metadata_request

PARTITIONS = (1000, 2000, 10_000)
WRITTEN_PARTITIONS = 50
WITH_DATA = 60
TOPICS = 20
USAGE_OVER_S = 30.0
CALLS = 20
DESCRIPTORS = 65_536
RAYKAFKA = "raykafka"
KAFKAS = {f"kafka-{version}": version for version in VERSIONS}


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that what was started is ended
    allow_many_descriptors()
    found: list[dict[str, Any]] = []
    for partitions in options.partitions:
        for name in options.system or (RAYKAFKA, *KAFKAS):
            system = make(name, options)
            say(f"{system.name}, {partitions:,} partitions x {BROKERS}, {options.written} of them written")
            figures: dict[str, Any] = {"system": system.name, "partitions": partitions, "written": options.written}
            found.append(figures)
            try:
                system.start()
                measure(Cluster(system, partitions, options.written, TOPICS), options, figures)
            finally:
                system.stop()
                if options.json is not None:
                    options.json.write_text(json.dumps(found, indent=1))
    say(f"load average now {os.getloadavg()[0]:.1f}")
    return 0


def make(name: str, options: argparse.Namespace) -> Restartable:
    if name in KAFKAS:
        return Peer(KAFKAS[name])
    return Plain(actors=options.actors) if options.without_ray else Deployed(actors=options.actors)


def allow_many_descriptors() -> None:
    """For what is started from here: each server holds one for each of its logs at least."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), max(hard, DESCRIPTORS)))


def measure(cluster: Cluster, options: argparse.Namespace, figures: dict[str, Any]) -> None:
    def show(what: str, title: str) -> None:
        if options.usage_s:
            figures[what] = show_usage(title, cluster, options.usage_s)

    cluster.wait_quiet()
    show("empty", "no partition")
    figures["created_s"], figures["created_in_sync_s"] = cluster.create()
    say(f"created in {figures['created_s']:.2f} s, all in sync after {figures['created_in_sync_s']:.2f} s")
    data = cluster.places()[:: max(1, cluster.partitions // WITH_DATA)][:WITH_DATA]
    cluster.write(data)
    cluster.wait_quiet()
    show("idle", "all idle")
    figures["metadata"] = metadata(cluster)
    with Steady(cluster.system.bootstrap, WRITTEN, cluster.written) as steady:
        time.sleep(min(options.usage_s, 3.0))
        show("written", f"{cluster.written} written once a second")
    steady.check()
    figures["restarts"] = []
    for number in range(options.kills + options.restarts):
        cluster.wait_quiet()
        active = cluster.controller()
        # every other one hits the active controller's broker
        broker = active if number % 2 == 0 else next(b for b in range(BROKERS) if b != active)
        how = kill if number < options.kills else restart
        outcome = how(cluster, broker, set(data), options.timeline)
        figures["restarts"].append(dataclasses.asdict(outcome))
        say_restart(outcome)
    if figures["restarts"]:
        cluster.wait_quiet()
        show("after", "after all that")


def show_usage(title: str, cluster: Cluster, over_s: float) -> dict[str, Any]:
    """By role, and in all without Ray's daemons, which are shown apart."""
    found = usage(cluster.system, over_s)
    rays = found.pop(RAY, None)
    servers = Usage(*(sum(values) for values in zip(*map(dataclasses.astuple, found.values()), strict=True)))
    rows = [*found.items(), ("all servers", servers), *([(RAY, rays)] if rays is not None else [])]
    width = max(len(role) for role, _ in rows)
    say(f"{title}:")
    for role, u in rows:
        say(
            f"  {role:{width}} {u.processes:4}  private {u.private_mb:6.0f} MB  resident {u.resident_mb:6.0f} MB"
            f"  {u.descriptors:6} descriptors  {u.cpu_percent:6.1f}% of a core"
        )
    return {role: dataclasses.asdict(u) for role, u in rows}


def metadata(cluster: Cluster) -> dict[str, Any]:
    """A Metadata of everything, and of one topic: how long each takes, and what it costs the servers."""
    found: dict[str, Any] = {}

    def timed(name: str, call: Callable[[], float]) -> None:
        call()
        before = sum(cpu_seconds(pids := cluster.system.pids()).values())
        took = [call() for _ in range(CALLS)]
        cpu_ms = (sum(cpu_seconds(pids).values()) - before) * 1000 / CALLS
        found[name] = {"median_ms": statistics.median(took), "max_ms": max(took), "servers_cpu_ms": cpu_ms}
        say(f"{name}: median {found[name]['median_ms']:.1f} ms, max {max(took):.1f} ms, {cpu_ms:.1f} ms of CPU")

    with cluster.wire(0) as wire:
        timed("Metadata of all topics", lambda: call_ms(wire, metadata_request(None)))
        timed("Metadata of one topic", lambda: call_ms(wire, metadata_request([WRITTEN])))
    return found


def say_restart(o: Restart) -> None:
    role = ", the active controller's" if o.was_controller else ""
    say(f"{o.kind} of broker {o.broker}{role}:")
    say(f"  a topic is made after {o.decided_s:.2f} s, all are led after {o.leaders_s:.2f} s")
    say(
        f"  writes stood {o.gap_s:.2f} s, until {o.gap_ended_s:.2f} s;"
        f" read from others after {o.read_by_others_s:.2f} s"
    )
    say(f"  its next process began after {o.started_s:.2f} s; from there: serves after {o.serves_s:.2f} s,")
    say(f"  all in sync after {o.in_sync_s:.2f} s; leads {o.led} again {o.leads_again_s:.2f} s after it was asked to")
    say(f"  {o.cpu_s:.0f} s of CPU until all was in sync, at most {o.most_processes} processes")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/many_partitions", description=__doc__)
    parser.add_argument(
        "--partitions",
        type=lambda text: [int(word) for word in text.split(",")],
        default=list(PARTITIONS),
        metavar="N[,N...]",
        help=f"how many in all, each with three replicas (default {','.join(map(str, PARTITIONS))})",
    )
    parser.add_argument(
        "--written", type=int, default=WRITTEN_PARTITIONS, metavar="N", help="of them, that are written (default 50)"
    )
    parser.add_argument(
        "--system",
        action="append",
        choices=(RAYKAFKA, *KAFKAS),
        help="only this system; may be repeated (default all)",
    )
    add_option(parser)
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
