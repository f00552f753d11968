"""raykafka against Apache Kafka: one system at a time, in turns, with the same clients."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tests.lab.bench.clients import ClientError, Measured, confluent_producer, consumer_perf, producer_perf
from tests.lab.bench.report import Results, Sample, cpu_table, errors, machine, table
from tests.lab.bench.rows import BIG_BATCHES, SMALL_BATCHES, Row, rows
from tests.lab.bench.systems import SYSTEMS
from tests.lab.clusters.deployed import ClusterError
from tests.lab.clusters.systems import CountedCluster
from tests.lab.cpu import cpu_seconds, used_by_role
from tests.lab.peer.kafka import PeerError

QUICK_SCALE = 0.1
WARM_UP_RECORDS = 400_000
SETTLED_CORES = 0.3  # what idle servers may use, heartbeats and all
SETTLE_TIMEOUT_S = 15.0


def main() -> int:
    options = parse()
    chosen = [row for row in rows(options.replication) if options.only in row.title]
    if not chosen:
        print(f"no row holds {options.only!r}", file=sys.stderr)
        return 2
    scale = QUICK_SCALE if options.quick else 1.0
    rounds = 1 if options.quick else options.rounds
    names = list(SYSTEMS) if options.system is None else [options.system]
    results: Results = {row.title: {SYSTEMS[name].name: [] for name in names} for row in chosen}
    started = time.monotonic()
    try:
        for number in range(1, rounds + 1):
            for name in names:
                say(f"round {number} of {rounds}: {SYSTEMS[name].name}")
                for title, sample in turn(name, chosen, options.replication, scale).items():
                    results[title][SYSTEMS[name].name].append(sample)
    finally:
        write_up(options, chosen, results, (time.monotonic() - started) / 60)
    return 1 if errors(results) else 0


def turn(name: str, chosen: list[Row], replication: int, scale: float) -> dict[str, Sample]:
    """Every row on one system, from its start to its stop; once more where it could not be brought to work."""
    for tries_left in (1, 0):
        system = SYSTEMS[name](replication)
        samples = {}
        try:
            system.start()
            warm_up(system, replication, scale)
            for row in chosen:
                samples[row.title] = measure(system, row, replication, scale)
                say(f"  {row.title}: {describe(samples[row.title])}")
            return samples
        except (PeerError, ClusterError, ClientError, KafkaException, TimeoutError) as error:
            say(f"  {system.name} did not work: {error!r}")
            if not tries_left:
                raise
        finally:
            system.stop()
    raise AssertionError("a turn ends with its samples or with an error")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one round with a tenth of the records: a try, not a result"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each system has its turn (default 3)")
    parser.add_argument(
        "--replication",
        type=int,
        choices=(1, 3),
        default=1,
        help="replication factor, and number of brokers (default 1)",
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only the rows whose title holds this text")
    parser.add_argument("--system", choices=sorted(SYSTEMS), help="only this system")
    parser.add_argument("--json", type=Path, help="also write every measurement to this file")
    return parser.parse_args()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def topic_for(system: CountedCluster, name: str, replication: int) -> Callable[[], None]:
    """Create a topic of one partition; returns what deletes it again."""
    admin = AdminClient({"bootstrap.servers": system.bootstrap, "log_level": 4})
    config = {"min.insync.replicas": str(min(replication, 2))}
    admin.create_topics([NewTopic(name, 1, replication, config=config)])[name].result(60)

    def delete() -> None:
        admin.delete_topics([name])[name].result(60)

    return delete


def warm_up(system: CountedCluster, replication: int, scale: float) -> None:
    """Let the servers' just-in-time compilers and caches see the work before it counts."""
    delete = topic_for(system, "warm-up", replication)
    for size, props in ((1000, BIG_BATCHES), (1000, SMALL_BATCHES), (100, BIG_BATCHES)):
        records = int(WARM_UP_RECORDS * scale)
        producer_perf(system.bootstrap, "warm-up", records=records, size=size, per_s=-1, props={"acks": "all", **props})
    consumer_perf(system.bootstrap, "warm-up", records=WARM_UP_RECORDS // 10, size=1000)
    delete()


def settle(system: CountedCluster, topic: str) -> None:
    """Write a first record, and wait until the processes that this or earlier work started are up and idle."""
    confluent_producer(system.bootstrap, topic, records=1, size=100, props={})
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    used_cores = 1.0
    while used_cores > SETTLED_CORES and time.monotonic() < deadline:
        before = cpu_seconds(system.pids())
        time.sleep(1.0)
        after = cpu_seconds(system.pids())
        used_cores = sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def measure(system: CountedCluster, row: Row, replication: int, scale: float) -> Sample:
    topic = "".join(letter if letter.isalnum() else "-" for letter in row.title)
    records = int(row.records * scale)
    delete = topic_for(system, topic, replication)
    try:
        if row.fill is not None:
            row.fill(system.bootstrap, topic, records)
        settle(system, topic)
        before = cpu_seconds(system.pids())
        measured: Measured = row.run(system.bootstrap, topic, records)
        after = cpu_seconds(system.pids())
        roles = system.roles()
        after = {pid: seconds for pid, seconds in after.items() if pid in roles}
        return Sample(measured, used_by_role(before, after, roles))
    except ClientError as error:
        return Sample(error=str(error))
    finally:
        delete()


def describe(sample: Sample) -> str:
    if sample.measured is None:
        return f"failed: {sample.error}"
    m = sample.measured
    latency = "" if m.p50_ms is None else f", p50 {m.p50_ms:.0f} ms, p99 {m.p99_ms:.0f} ms"
    cpu = ", ".join(f"{role} {seconds:.1f} s" for role, seconds in sorted(sample.cpu_s.items()))
    return f"{m.mb_per_s:.0f} MB/s, {m.records_per_s / 1000:.1f} k records/s{latency}; CPU: {cpu}"


def write_up(options: argparse.Namespace, chosen: list[Row], results: Results, minutes: float) -> None:
    names = list(next(iter(results.values())))
    rounds = max(len(samples) for samples in results[chosen[0].title].values())
    print(f"\nReplication factor {options.replication}, one partition, {rounds} round(s), {minutes:.0f} minutes.")
    print(f"{machine()}.\n")
    if len(names) > 1:
        print(table(chosen, results, *names))
    print("\nMedian CPU seconds per GB, by role:\n")
    print(cpu_table(chosen, results, names))
    for line in errors(results):
        print(f"FAILED: {line}")
    if options.json:
        plain = {
            title: {name: [dataclasses.asdict(sample) for sample in samples] for name, samples in by_system.items()}
            for title, by_system in results.items()
        }
        options.json.write_text(json.dumps(plain, indent=1))


if __name__ == "__main__":
    sys.exit(main())
