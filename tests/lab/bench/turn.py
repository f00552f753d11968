"""One system's turn: it is started, warmed up, does every row, and is stopped."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from confluent_kafka import KafkaException

from tests.lab.bench.clients import consumer_perf, producer_perf
from tests.lab.bench.measured import ClientError, Sample
from tests.lab.bench.memory import held
from tests.lab.bench.rows import BIG_BATCHES, KB, SMALL_BATCHES, Load, Row
from tests.lab.bench.systems import SYSTEMS
from tests.lab.bench.topics import Topics
from tests.lab.bench.writers import Writer, to_each
from tests.lab.clusters.deployed import ClusterError
from tests.lab.clusters.systems import CountedCluster
from tests.lab.cpu import cpu_seconds, used_by_role
from tests.lab.peer.kafka import PeerError

WARM_UP_RECORDS = 400_000
WARM_UP_PARTITIONS = 6
SETTLED_CORES = 0.3  # what idle servers may use, heartbeats and all
SETTLE_TIMEOUT_S = 15.0
STARTS = 2
FAILURES = (PeerError, ClusterError, ClientError, KafkaException, OSError, subprocess.TimeoutExpired)


def turn(name: str, chosen: Sequence[Row], replication: int, scale: float) -> Iterator[tuple[Row, Sample]]:
    """Each row with its sample. After a row that failed the system is started anew for the others: what the failure
    left, such as processes that still start, is not theirs."""
    left = list(chosen)
    while left:
        with started(name, replication, scale) as system:
            while left:
                row = left.pop(0)
                sample = measure(system, row, replication)
                say(f"  {row.title}: {describe(row, sample)}")
                yield row, sample
                if sample.error is not None:
                    break


@contextlib.contextmanager
def started(name: str, replication: int, scale: float) -> Iterator[CountedCluster]:
    """A system that is warm; started once more where it could not be brought to work."""
    for starts_left in reversed(range(STARTS)):
        system = SYSTEMS[name](replication)
        try:
            system.start()
            warm_up(system, replication, scale)
            break
        except FAILURES as error:
            say(f"  {system.name} did not work: {error!r}")
            stop(system)
            if not starts_left:
                raise
        except BaseException:
            stop(system)
            raise
    try:
        yield system
    finally:
        stop(system)


def stop(system: CountedCluster) -> None:
    """A system that a row has worn out may not stop in order; nothing of it is left in any case."""
    try:
        system.stop()
    except FAILURES as error:
        say(f"  {system.name} did not stop in order: {error!r}")


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


def measure(system: CountedCluster, row: Row, replication: int) -> Sample:
    """A failed row's sample holds the error."""
    topics = Topics(system.bootstrap, replication)
    load = Load(system.bootstrap, topics, row.topic, row.partitions, row.records)
    try:
        if not row.new_topic:
            topics.create(row.topic, row.partitions)
            to_each(Writer(system.bootstrap, {"acks": "all"}), row.topic, row.partitions, KB)
            if row.fill is not None:
                row.fill(load)
        settle(system)
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


def settle(system: CountedCluster) -> None:
    """Wait until the processes that this or earlier work started are up and idle, for a while."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    used_cores = 1.0
    while used_cores > SETTLED_CORES and time.monotonic() < deadline:
        before, began = cpu_seconds(system.pids()), time.monotonic()
        time.sleep(1.0)
        after = cpu_seconds(system.pids())
        used = sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())
        used_cores = used / (time.monotonic() - began)


def describe(row: Row, sample: Sample) -> str:
    if sample.error is not None:
        return f"failed: {sample.error}"
    told = ((figure.name, figure.of(sample)) for figure in row.figures)
    return ", ".join(f"{name} {value:.4g}" for name, value in told if value is not None)
