"""Systems that run beside each other and do a row in turns: while one is measured, the others idle."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException

from tests.lab.bench.clients import consumer_perf, producer_perf
from tests.lab.bench.measured import ClientError, Sample
from tests.lab.bench.memory import held
from tests.lab.bench.rows import BIG_BATCHES, KB, SMALL_BATCHES, Load, Row
from tests.lab.bench.topics import Topics
from tests.lab.bench.writers import Writer, to_each
from tests.lab.clusters.deployed import ClusterError
from tests.lab.clusters.systems import CountedCluster
from tests.lab.cpu import cpu_seconds, used_by_role, used_s
from tests.lab.peer.kafka import PeerError

WARM_UP_RECORDS = 400_000
WARM_UP_PARTITIONS = 6
SETTLED_CORES = 0.3  # what the idle servers of a system may use, heartbeats and all
SETTLE_TIMEOUT_S = 15.0
STARTS = 2
FAILURES = (PeerError, ClusterError, ClientError, KafkaException, OSError, subprocess.TimeoutExpired)


class Race:
    """As a context: ``systems``, by name, called with the number of brokers, started one after the other when they are
    needed, each warmed up, all stopped at the end."""

    def __init__(self, systems: Mapping[str, Callable[[int], CountedCluster]], replication: int, scale: float) -> None:
        self._systems = systems
        self._replication, self._scale = replication, scale
        self._running: dict[str, CountedCluster] = {}
        self._broken: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._running):
            self._stop(name)

    def run(self, chosen: Sequence[Row], first: int) -> Iterator[tuple[Row, str, Sample]]:
        """Each row on each system, one right after the other. Who begins changes from row to row, and with ``first``,
        the number of the round.

        After a row that failed its system is started anew: what the failure left, such as processes that still start,
        is not the next row's. One that could not be brought to work fails in all that is left.
        """
        names = list(self._systems)
        for name in names:
            self._start(name)
        for number, row in enumerate(chosen, first):
            at = number % len(names)
            for name in names[at:] + names[:at]:
                sample = self._sample(name, row)
                say(f"  {row.title}, {name}: {describe(row, sample)}")
                yield row, name, sample

    def _sample(self, name: str, row: Row) -> Sample:
        self._start(name)
        if name in self._broken:
            return Sample(error=self._broken[name])
        sample = measure(self._running[name], row, self._replication, list(self._running.values()))
        if sample.error is not None:
            self._stop(name)
        return sample

    def _start(self, name: str) -> None:
        """Have it run, warm; started once more where it could not be brought to work."""
        starts_left = STARTS
        while name not in self._running and name not in self._broken:
            system = self._running[name] = self._systems[name](self._replication)
            try:
                system.start()
                warm_up(system, self._replication, self._scale)
            except FAILURES as error:
                say(f"  {name} did not work: {error!r}")
                self._stop(name)
                starts_left -= 1
                if not starts_left:
                    self._broken[name] = f"the system did not work: {error}"

    def _stop(self, name: str) -> None:
        """A system that a row has worn out may not stop in order; nothing of it is left in any case."""
        try:
            self._running.pop(name).stop()
        except FAILURES as error:
            say(f"  {name} did not stop in order: {error!r}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def warm_up(system: CountedCluster, replication: int, scale: float) -> None:
    """Let the servers' just-in-time compilers and caches see the work before it counts."""
    topics, topic = Topics(system.bootstrap, replication), "warm-up"
    topics.create(topic, WARM_UP_PARTITIONS)
    records = int(WARM_UP_RECORDS * scale)
    for size, props in ((KB, BIG_BATCHES), (KB, SMALL_BATCHES), (100, BIG_BATCHES)):
        producer_perf(system.bootstrap, topic, records=records, size=size, per_s=-1, props={"acks": "all", **props})
    consumer_perf(system.bootstrap, topic, records=records, size=KB)
    topics.delete(topic)


def measure(system: CountedCluster, row: Row, replication: int, running: Sequence[CountedCluster]) -> Sample:
    """Once all that are ``running`` idle. A failed row's sample holds the error."""
    topics = Topics(system.bootstrap, replication)
    load = Load(system.bootstrap, topics, row.topic, row.partitions, row.records)
    try:
        if not row.new_topic:
            topics.create(row.topic, row.partitions)
            to_each(Writer(system.bootstrap, {"acks": "all"}), row.topic, row.partitions, KB)
            if row.fill is not None:
                row.fill(load)
        settle(running)
        before = cpu_seconds(system.pids())
        measured = row.run(load)
        after = cpu_seconds(system.pids())
        memory = held(after)
        roles = system.roles()
        after = {pid: seconds for pid, seconds in after.items() if pid in roles}
        private: Counter[str] = Counter()
        proportional: Counter[str] = Counter()
        for pid in memory.keys() & roles.keys():
            private[roles[pid]] += memory[pid].private
            proportional[roles[pid]] += memory[pid].proportional
    except FAILURES as error:
        return Sample(error=str(error) or repr(error))
    try:
        topics.delete(row.topic)
    except FAILURES as error:
        say(f"  {row.topic} could not be deleted: {error!r}")  # what was measured is as good
    return Sample(measured, used_by_role(before, after, roles), in_mb(private), in_mb(proportional))


def in_mb(by_role: Counter[str]) -> dict[str, float]:
    return {role: count / 1e6 for role, count in by_role.items()}


def settle(running: Sequence[CountedCluster]) -> None:
    """Wait until the processes that this or earlier work started are up and idle, for a while."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while time.monotonic() < deadline:
        before, began = [cpu_seconds(system.pids()) for system in running], time.monotonic()
        time.sleep(1.0)
        after, took_s = [cpu_seconds(system.pids()) for system in running], time.monotonic() - began
        if all(used_s(*samples) / took_s <= SETTLED_CORES for samples in zip(before, after, strict=True)):
            return


def describe(row: Row, sample: Sample) -> str:
    if sample.error is not None:
        return f"failed: {sample.error}"
    told = ((figure.name, figure.of(sample)) for figure in row.figures)
    return ", ".join(f"{name} {value:.4g}" for name, value in told if value is not None)
