"""A broker of many partitions dies or is restarted: who leads them, who decides, and when it is whole again."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tests.lab.background import Background
from tests.lab.clusters.systems import BROKERS, timeline
from tests.lab.cpu import began_at, cpu_seconds, used_s
from tests.lab.failover.load import Load
from tests.lab.many_partitions.cluster import WRITTEN, Cluster
from tests.lab.many_partitions.probes import Place, serves, states, until_read
from tests.lab.waiting import until
from tests.lab.wire import WireConnection

READ_WITHIN_S = 120.0
SERVES_WITHIN_S = 180.0
IN_SYNC_WITHIN_S = 400.0
LED_WITHIN_S = 120.0
DECIDED_WITHIN_S = 120.0
ASK_WITHIN_S = 5.0
WATCH_S = 10.0
STEADY_FOR_S, STEADY_GAP_S, STEADY_WITHIN_S = 3.0, 0.4, 120.0


@dataclass(frozen=True, slots=True)
class Restart:
    """Seconds. From the fault on: ``decided_s`` until the controller, whichever it is, has made a topic for who asks
    the other brokers, ``leaders_s`` until every partition has a leader, ``gap_s`` the longest time between two
    acknowledgements of a partition that is written (it ended at ``gap_ended_s``), ``read_by_others_s`` until the
    others serve what the broker led, ``started_s`` until its next process began. From there on: ``serves_s`` until it
    tells clients of all partitions with their leaders, ``in_sync_s`` until every replica is in sync.
    ``leads_again_s`` is how long it took after that, from the request for it on, until it served again what it led
    before. ``cpu_s`` is what the whole cluster used until all was in sync, ``most_processes`` the most there were."""

    kind: str
    broker: int
    was_controller: bool
    led: int
    decided_s: float
    leaders_s: float
    gap_s: float
    gap_ended_s: float
    read_by_others_s: float
    started_s: float
    serves_s: float
    in_sync_s: float
    leads_again_s: float
    cpu_s: float
    most_processes: int


def kill(cluster: Cluster, broker: int, with_data: set[Place], show_timeline: bool) -> Restart:
    """``kill -9``; it starts again beside what is measured, as soon as it has ended."""
    system = cluster.system

    def started_at() -> float:
        return began_at(system.broker(broker).pid)

    process = system.broker(broker)
    return _restart(
        cluster, "kill -9", broker, with_data, process.kill, lambda: system.heal(broker), started_at, show_timeline
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
    was_controller = cluster.controller() == broker
    with cluster.wire(others[0]) as wire, ThreadPoolExecutor() as beside:
        led = {place for place, (leader, _) in states(wire).items() if leader == broker} & with_data
        with Load(cluster.system.bootstrap, WRITTEN, cluster.written) as load, Census(cluster) as census:
            load.wait_begun()
            _wait_steady(load)
            moment = time.time()
            end()
            beginning = beside.submit(begin)
            decided = beside.submit(_until_decided, [cluster.address(b) for b in others], f"decided-{moment:.0f}")
            read = beside.submit(until_read, [cluster.address(b) for b in others], led, READ_WITHIN_S)
            leaders_s = cluster.wait_led(wire, LED_WITHIN_S) - moment
            serving = beside.submit(_until_serves, cluster, broker, beginning.result)
            in_sync = cluster.wait_in_sync(wire, IN_SYNC_WITHIN_S)
            census.end()
            time.sleep(max(0.0, moment + WATCH_S - time.time()))
            gap = load.longest_gap(moment - 0.5, max(in_sync, moment + WATCH_S), moment)
        if show_timeline:
            for line in timeline(cluster.system, moment, moment + WATCH_S):
                print(line, flush=True)
        asked = time.time()
        cluster.elect_preferred()
        leads_again_s = until_read([cluster.address(broker)], led, READ_WITHIN_S)[1] - asked
        started = started_at()
        return Restart(
            kind,
            broker,
            was_controller,
            len(led),
            decided.result() - moment,
            leaders_s,
            gap.seconds,
            gap.ended_after_s,
            read.result()[1] - moment,
            started - moment,
            serving.result() - started,
            in_sync - started,
            leads_again_s,
            census.cpu_s,
            census.most,
        )


def _wait_steady(load: Load) -> None:
    """Until no write waits."""
    gap = max(STEADY_GAP_S, 3 * load.interval_s)
    until(
        lambda: load.longest_gap(time.time() - STEADY_FOR_S, now := time.time(), now).seconds <= gap,
        f"no write waits longer than {gap:g} s without any fault",
        STEADY_WITHIN_S,
    )


def _until_decided(addresses: list[str], topic: str) -> float:
    """Creates a topic, again and again until that is acknowledged, and deletes it."""
    settings = {"log_level": 0, "reconnect.backoff.max.ms": 200, "socket.timeout.ms": int(ASK_WITHIN_S * 1000)}
    admin = AdminClient({"bootstrap.servers": ",".join(addresses), **settings})

    def created() -> bool:
        try:
            admin.create_topics([NewTopic(topic, 1, 1)], request_timeout=ASK_WITHIN_S)[topic].result(2 * ASK_WITHIN_S)
        except KafkaException as error:
            return bool(error.args[0].name() == "TOPIC_ALREADY_EXISTS")
        return True

    until(created, "the controller decides", DECIDED_WITHIN_S, despite=(TimeoutError,))
    moment = time.time()
    admin.delete_topics([topic])[topic].result(DECIDED_WITHIN_S)
    return moment


def _until_serves(cluster: Cluster, broker: int, has_begun: Callable[[], object]) -> float:
    """Until the next process of a broker tells clients of everything."""
    has_begun()

    def all_known() -> bool:
        with WireConnection(cluster.address(broker), timeout_s=ASK_WITHIN_S) as wire:
            return serves(wire, broker, cluster.partitions)

    until(all_known, f"broker {broker} serves", SERVES_WITHIN_S, despite=(OSError,))
    return time.time()


class Census(Background):
    """As a context, until ``end``: counts processes and their time on the processors, twice a second; one that lives
    for less is missed."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._system = cluster.system
        self._before = cpu_seconds(self._system.pids())
        self._latest = dict(self._before)
        self.most = len(self._before)

    @property
    def cpu_s(self) -> float:
        """Since this was made."""
        return used_s(self._before, self._latest)

    def end(self) -> None:
        """Count what there was until now, and no more."""
        self._over.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._over.wait(0.5):
            self._look()

    def _look(self) -> None:
        now = cpu_seconds(self._system.pids())
        self._latest |= now
        self.most = max(self.most, len(now))
