"""A broker dies or is restarted while thousands of partitions sleep: who leads them, and when they are read again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.clusters.systems import BROKERS, timeline
from tests.lab.cpu import began_at, cpu_seconds
from tests.lab.failover.load import Load
from tests.lab.sleepers.cluster import WRITTEN, WRITTEN_PARTITIONS, Cluster
from tests.lab.sleepers.probes import Place, states, until_read
from tests.lab.wire import WireConnection

READ_WITHIN_S = 120.0
IN_SYNC_WITHIN_S = 180.0
LED_WITHIN_S = 60.0
WATCH_S = 0.1
GAP_WITHIN_S = 10.0
STEADY_FOR_S, STEADY_GAP_S, STEADY_WITHIN_S = 3.0, 0.2, 120.0


@dataclass(frozen=True, slots=True)
class Restart:
    """Seconds. From the fault on: ``leaders_s`` until every partition has a leader, ``gap_s`` the longest time between
    two acknowledgements of a partition that is written (it ended at ``gap_ended_s``), ``read_by_others_s`` until the
    others serve what the broker led; -1 where nobody else has it. From the start of its next process on:
    ``sleepers_in_sync_s`` and ``in_sync_s`` until every replica of sleeping partitions, and of all, is in sync;
    ``first_read_s`` and ``all_read_s`` until it serves the sleeping partitions that it led before, which with replicas
    is after an election. ``cpu_s`` is what the whole cluster used until all was in sync, and ``most_processes`` the
    most there were."""

    kind: str
    broker: int
    was_controller: bool
    led: int
    leaders_s: float
    gap_s: float
    gap_ended_s: float
    read_by_others_s: float
    sleepers_in_sync_s: float
    in_sync_s: float
    first_read_s: float
    all_read_s: float
    cpu_s: float
    most_processes: int


def kill(cluster: Cluster, broker: int, with_data: set[Place], show_timeline: bool) -> Restart:
    system = cluster.system
    return _restart(
        cluster,
        "kill -9",
        broker,
        with_data,
        lambda: system.broker(broker).kill(),
        lambda: system.heal(broker),
        lambda: began_at(system.broker(broker).pid),
        show_timeline,
    )


def restart(cluster: Cluster, broker: int, with_data: set[Place], show_timeline: bool) -> Restart:
    """In order. The start counts from the moment at which it is asked for."""
    system, asked = cluster.system, [0.0]

    def bring_back() -> None:
        asked[0] = time.time()
        system.bring_back(broker)

    return _restart(
        cluster,
        "controlled restart",
        broker,
        with_data,
        lambda: system.shut_down(broker),
        bring_back,
        lambda: asked[0],
        show_timeline,
    )


def _restart(
    cluster: Cluster,
    kind: str,
    broker: int,
    with_data: set[Place],
    end: Callable[[], object],
    begin: Callable[[], object],
    started_at: Callable[[], float],
    show_timeline: bool,
) -> Restart:
    others = [b for b in range(BROKERS) if b != broker]
    alone = cluster.replication == 1
    was_controller = cluster.controller() == broker
    with WireConnection(cluster.address(others[0])) as wire:
        led = {place for place, (leader, _) in states(wire).items() if leader == broker} & with_data
        written = Load(cluster.system.bootstrap, WRITTEN, WRITTEN_PARTITIONS)
        with written:
            written.wait_begun()
            _wait_steady(cluster, written)
            census = _Census(cluster)
            moment = time.time()
            end()
            beginning = threading.Thread(target=begin)
            beginning.start()
            others_read = leaders = -1.0
            if not alone:
                leaders = _until_led(wire, cluster.partitions) - moment
                others_read = until_read([cluster.address(b) for b in others], led, READ_WITHIN_S)[1] - moment
            beginning.join()
            first = last = 0.0
            if alone:
                first, last = until_read([cluster.address(broker)], led, READ_WITHIN_S)
            sleepers = _until_in_sync(cluster, wire, list(cluster.sleeping))
            if not alone and sleepers:
                cluster.elect_preferred()
                first, last = until_read([cluster.address(broker)], led, READ_WITHIN_S)
            in_sync = _until_in_sync(cluster, wire, None)
            cpu_s, most = census.end()
            time.sleep(max(0.0, moment + GAP_WITHIN_S - time.time()))
            gap = written.longest_gap(moment - 0.5, moment + GAP_WITHIN_S, moment)
            if show_timeline:
                for line in timeline(cluster.system, moment, moment + GAP_WITHIN_S):
                    print(line, flush=True)
    begun = started_at()
    return Restart(
        kind,
        broker,
        was_controller,
        len(led),
        leaders,
        gap.seconds,
        gap.ended_after_s,
        others_read,
        sleepers - begun if sleepers else -1.0,
        in_sync - begun if in_sync else -1.0,
        first - begun if first else -1.0,
        last - begun if last else -1.0,
        cpu_s,
        most,
    )


def _wait_steady(cluster: Cluster, written: Load) -> None:
    """Until every replica of what is written is awake, the next ones have a spare, and no write waits."""
    cluster.wait_awake(WRITTEN_PARTITIONS * cluster.replication)
    cluster.wait_spares()
    deadline = time.monotonic() + STEADY_WITHIN_S
    while written.longest_gap(time.time() - STEADY_FOR_S, now := time.time(), now).seconds > STEADY_GAP_S:
        if time.monotonic() > deadline:
            raise TimeoutError(f"some write waits longer than {STEADY_GAP_S} s without any fault")
        time.sleep(WATCH_S)


def _until_led(wire: WireConnection, partitions: int) -> float:
    deadline = time.monotonic() + LED_WITHIN_S
    while True:
        asked = time.time()
        found = states(wire)
        if len(found) >= partitions and all(leader >= 0 for leader, _ in found.values()):
            return asked
        if time.monotonic() > deadline:
            raise TimeoutError("not every partition has a leader again")
        time.sleep(WATCH_S)


def _until_in_sync(cluster: Cluster, wire: WireConnection, topics: list[str] | None) -> float:
    """When all partitions of ``topics``, None for all, were in sync; 0.0 where that takes too long."""
    deadline = time.monotonic() + IN_SYNC_WITHIN_S
    while True:
        asked = time.time()
        found = states(wire, topics)
        count = sum(leader >= 0 and isr == cluster.replication for leader, isr in found.values())
        if count == len(found):
            return asked
        if time.monotonic() > deadline:
            print(f"  {count} of {len(found)} partitions are in sync after {IN_SYNC_WITHIN_S:.0f} s", flush=True)
            return 0.0
        time.sleep(2 * WATCH_S)


class _Census:
    """Counts processes and their time on the processors, twice a second; one that lives for less is missed."""

    def __init__(self, cluster: Cluster) -> None:
        self._system = cluster.system
        self._before = cpu_seconds(self._system.pids())
        self._latest = dict(self._before)
        self._most = len(self._before)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.5):
            self._look()

    def _look(self) -> None:
        now = cpu_seconds(self._system.pids())
        self._latest |= now
        self._most = max(self._most, len(now))

    def end(self) -> tuple[float, int]:
        """CPU seconds since this was made, and the most processes that ran at a time."""
        self._over.set()
        self._thread.join()
        self._look()
        return sum(s - self._before.get(pid, 0.0) for pid, s in self._latest.items()), self._most
