"""Faults at random under load, and the verdict: exit code 0 when everything that was promised holds."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.lab import REPOSITORY
from tests.lab.chaos import evidence, report, scraped
from tests.lab.chaos.archive import Archive
from tests.lab.chaos.history import Fault
from tests.lab.chaos.injector import Injector
from tests.lab.chaos.machine import Machine
from tests.lab.chaos.system import System
from tests.lab.chaos.watch import Watch
from tests.lab.clusters.actors import Actors, add_option
from tests.lab.prometheus import NotInstalled, Prometheus
from tests.lab.zookeeper_history import changes, counts_of

TOPIC = "chaos"
IN_SYNC_WITHIN_S = 180.0
LOAD_ENDS_WITHIN_S = 300.0
BEGUN_WITHIN_S = 90.0
ZOOKEEPER_BACK_WITHIN_S = 5.0
# of a run's minutes, what goes to deploying, settling and checking
AROUND_S = 75.0


def main() -> int:
    options = parse()
    if options.check is not None:
        return show(options.check, [])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # take the cluster down all the same
    for number in range(options.repeat):
        if number:
            options.seed += 1
            print(f"\nRun {number + 1} of {options.repeat}", flush=True)
        if code := run(options):
            return code
    return 0


def run(options: argparse.Namespace) -> int:
    """One run; the exit code. What a run leaves is kept where it failed."""
    print(f"Repeat this run with: {command(options)}", flush=True)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="rk-chaos-"))
    if options.keep is not None:
        folder.rmdir()
        folder = options.keep if options.repeat == 1 else options.keep / f"seed-{options.seed}"
        folder.mkdir(parents=True, exist_ok=True)
    code = 1
    try:
        code = show(folder, do_faults(options, folder, began))
    except (SystemExit, KeyboardInterrupt):
        code = 0  # ended by a person: there is nothing to look at
        raise
    finally:
        print(f"{(time.monotonic() - began) / 60:.1f} minutes; load average now {os.getloadavg()[0]:.1f}.")
        if code:
            print(f"What it left is in {folder}. Repeat it with: {command(options)}", flush=True)
        elif options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    return code


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=60, metavar="N", help="how many faults (default 60)")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="which faults (default: a random one)")
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="so many runs, with the seeds that follow; ends at a failure"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long all of it may take (default 10)")
    parser.add_argument("--partitions", type=int, default=4, help="of the topic (default 4)")
    parser.add_argument("--min-insync-replicas", type=int, default=2, choices=(1, 2), metavar="N")
    parser.add_argument("--hosts", action="store_true", help="over three simulated hosts: links and power fail as well")
    add_option(parser)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave history, files and logs there")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="run nothing: judge what an earlier run left")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.randrange(1_000_000)
    return options


def command(options: argparse.Namespace) -> str:
    words = [f"--faults {options.faults} --seed {options.seed} --minutes {options.minutes:g}"]
    words.append(f"--partitions {options.partitions} --min-insync-replicas {options.min_insync_replicas}")
    words += [f"--actors {options.actors}"] + ["--hosts"] * options.hosts
    return " ".join(["scripts/chaos", *words])


def do_faults(options: argparse.Namespace, folder: Path, began: float) -> list[str]:
    """Deploy, inject, settle, and gather what the verdict needs in ``folder``. What went wrong beside the history is
    returned, a line each."""
    system = choose(options.hosts, options.actors)
    may_lose = options.min_insync_replicas == 1
    with ExitStack() as cleanup:
        cleanup.callback(system.stop)
        system.start()
        cleanup.callback(keep_logs, system, folder)
        watch = Watch(system.bootstrap, TOPIC, len(system.brokers), system.folder)
        watch.create(options.partitions, {"min.insync.replicas": str(options.min_insync_replicas)})
        archive = cleanup.enter_context(Archive(system.zookeepers))
        prometheus = start_prometheus(system, cleanup)
        load = start_load(system, options.partitions, cleanup)
        if not watch.wait_acknowledged(0.0, time.monotonic() + BEGUN_WITHIN_S):
            raise TimeoutError(f"not every partition was written within {BEGUN_WITHIN_S:.0f} s")
        watch.wait_in_sync(IN_SYNC_WITHIN_S)
        scraped_since = time.time()
        injector = Injector(system, watch, random.Random(options.seed), may_lose=may_lose)
        injector.run(options.faults, options.minutes * 60 - AROUND_S - (time.monotonic() - began))
        wrong = settle(system, watch, injector, may_lose)
        (system.folder / "enough").touch()
        load.wait(LOAD_ENDS_WITHIN_S)
        if load.returncode:
            wrong.append(f"the clients ended with {load.returncode}: see load.log")
        if not wrong:
            wrong += watch.wait_in_sync(IN_SYNC_WITHIN_S)
        if prometheus is not None:
            wrong += hold_against(prometheus, archive, system.chroot, scraped_since, zookeeper_away(injector.done))
        evidence.gather(folder, system, archive.places, TOPIC, watch.ends(), injector.done)
    return wrong


def choose(hosts: bool, actors: Actors) -> System:
    if not hosts:
        return Machine(actors)
    from tests.lab.chaos.hosts import Hosts  # what simulates hosts is asked for only where it is wanted

    return Hosts(actors)


def start_prometheus(system: System, cleanup: ExitStack) -> Prometheus | None:
    try:
        prometheus = Prometheus(system.folder / "prometheus", system.metrics_targets)
    except NotInstalled as error:
        print(f"Metrics are not checked: {error}", flush=True)
        return None
    cleanup.enter_context(prometheus)
    prometheus.wait("sum(up)", lambda up: up == len(system.brokers))
    return prometheus


def start_load(system: System, partitions: int, cleanup: ExitStack) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "tests.lab.chaos.load", system.bootstrap, TOPIC, str(partitions), str(system.folder)]
    words += ["--quick"] * system.quick_clients
    log = cleanup.enter_context((system.folder / evidence.LOAD_LOG).open("wb"))
    load = subprocess.Popen(system.client(words), cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    cleanup.callback(load.kill)
    return load


def settle(system: System, watch: Watch, injector: Injector, may_lose: bool) -> list[str]:
    """Undo what is not undone yet and wait until all is well; what is not, in the end."""
    injector.go_on()
    for broker in system.halted():
        injector.bring_back(broker)
    if may_lose:
        injector.give_up_what_is_lost()
    wrong = watch.wait_in_sync(IN_SYNC_WITHIN_S)
    return [f"not well again after {IN_SYNC_WITHIN_S:.0f} s: {line}" for line in wrong]


def zookeeper_away(faults: list[Fault]) -> list[tuple[float, float]]:
    """When ZooKeeper may not have answered: from each fault of it on, and until it has surely come back."""
    return [(fault.began, fault.ended + ZOOKEEPER_BACK_WITHIN_S) for fault in faults if "zookeeper" in fault.kind]


def hold_against(
    prometheus: Prometheus, archive: Archive, chroot: str, since: float, away: list[tuple[float, float]]
) -> list[str]:
    """Prometheus' counters and gauges against ZooKeeper's history, two scrapes after the last change of it."""
    while True:
        truth = counts_of(archive.places, chroot)
        prometheus.wait_scrapes(2)
        wrong = scraped.counters(prometheus, truth)
        if counts_of(archive.places, chroot) == truth:
            break
    moments = scraped.timeline(changes(archive.places), chroot)
    count, untrue = scraped.gauges(prometheus, moments, since, away)
    print(
        f"Prometheus: {truth.elections} elections, {truth.isr_shrinks} ISR shrinks, {truth.isr_expands} expands in"
        f" ZooKeeper's history, {len(wrong)} of its counters differ; {count} samples of gauges, {len(untrue)} of them"
        " not true within two scrapes."
    )
    return [f"metrics: {line}" for line in (*wrong, *untrue)]


def keep_logs(system: System, folder: Path) -> None:
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    system.keep_logs(logs)


def show(folder: Path, wrong: list[str]) -> int:
    verdict = evidence.judge(folder)
    for line in report.lines(verdict):
        print(line)
    for line in wrong:
        print(f"       {line}")
    holds = verdict.holds and not wrong
    print("\nEverything that was promised holds." if holds else "\nNOT everything that was promised holds.")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
