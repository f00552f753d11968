"""What is measured: one row of the table each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.lab.bench.clients import consumer_perf, kcat_consume, producer_perf
from tests.lab.bench.connections import many_connections
from tests.lab.bench.figures import (
    EVERY_ROW,
    LAST_ACKNOWLEDGED,
    MB_PER_S,
    P50,
    P99,
    THOUSANDS_PER_S,
    Figure,
)
from tests.lab.bench.measured import Measured
from tests.lab.bench.topics import Topics
from tests.lab.bench.writers import as_fast_as_it_goes, each_once_a_second, first_writes

BIG_BATCHES = {"batch.size": 1_000_000, "linger.ms": 20}
SMALL_BATCHES = {"batch.size": 16_384, "linger.ms": 0}  # the Java producer's defaults
NEW_TOPICS = (50, 200)
CONNECTIONS, PER_CONNECTION_S, CONNECTIONS_PARTITIONS = 500, 20, 6
STEADY_PARTITIONS = 1000
PACED_S = 20
KB = 1000


@dataclass(frozen=True)
class Load:
    """What a client gets: where it writes or reads, and how much. A topic that the row creates itself is not there."""

    bootstrap: str
    topics: Topics
    topic: str
    partitions: int
    records: int


Client = Callable[[Load], Measured]


@dataclass(frozen=True)
class Row:
    """``run`` measures; ``fill`` puts records into the topic before, unmeasured.

    ``kind`` is what is done, whatever the number of partitions. With ``new_topic`` the client creates the topic.
    """

    kind: str
    partitions: int
    figures: tuple[Figure, ...]
    records: int
    run: Client
    fill: Client | None = None
    new_topic: bool = False

    @property
    def title(self) -> str:
        return f"{self.kind}; {counted(self.partitions)}"

    @property
    def topic(self) -> str:
        return "".join(letter if letter.isalnum() else "-" for letter in self.title)


def counted(partitions: int) -> str:
    return f"{partitions:,} partition{'s' if partitions > 1 else ''}"


def rows(replication: int, partitions: Sequence[int], scale: float = 1.0) -> list[Row]:
    """The rows for topics of that replication factor: those of each number of ``partitions``, then those that have a
    number of their own, the heaviest last. ``scale`` is the share of the records."""
    acks = {"acks": 1 if replication == 1 else "all"}
    size_scale = scale if replication == 1 else scale / 2
    found: list[Row] = []
    for count in partitions:
        found += _at(count, acks, size_scale, scale)
    found += [_first_writes(count, acks) for count in NEW_TOPICS]
    return [*found, _connections(scale), _steady(replication, acks, scale)]


def _at(partitions: int, acks: Mapping[str, object], size_scale: float, scale: float) -> list[Row]:
    big, small = {**acks, **BIG_BATCHES}, {**acks, **SMALL_BATCHES}
    million = int(1_000_000 * size_scale)

    def row(kind: str, figures: tuple[Figure, ...], records: float, run: Client, fill: Client | None = None) -> Row:
        return Row(kind, partitions, (*figures, *EVERY_ROW), int(records), run, fill)

    def consume(tool: Callable[..., Measured]) -> Client:
        return lambda load: tool(load.bootstrap, load.topic, records=load.records, size=KB)

    def by_librdkafka(load: Load) -> Measured:
        return as_fast_as_it_goes(load.bootstrap, load.topic, records=load.records, size=KB, props=acks)

    latency = (P50, P99)
    return [
        row("1 KB, 1 MB batches", (MB_PER_S,), million, _perf(KB, -1, big)),
        row("1 KB, 16 KB batches", (MB_PER_S,), 0.4 * million, _perf(KB, -1, small)),
        row("100 B, 1 MB batches", (THOUSANDS_PER_S,), 4 * million, _perf(100, -1, big)),
        row("1 KB, one by one at 500/s", latency, 500 * PACED_S * scale, _perf(KB, 500, small)),
        row("1 KB, one by one at 2,000/s", latency, 2000 * PACED_S * scale, _perf(KB, 2000, small)),
        row("consume 1 KB, consumer-perf", (MB_PER_S,), million, consume(consumer_perf), _perf(KB, -1, big)),
        row("consume 1 KB, kcat", (MB_PER_S,), million, consume(kcat_consume), _perf(KB, -1, big)),
        row("confluent-kafka, 1 KB, its defaults", (MB_PER_S,), 0.5 * million, by_librdkafka),
    ]


def _perf(size: int, per_s: int, props: Mapping[str, object]) -> Client:
    return lambda load: producer_perf(
        load.bootstrap, load.topic, records=load.records, size=size, per_s=per_s, props=props
    )


def _first_writes(partitions: int, acks: Mapping[str, object]) -> Row:
    def run(load: Load) -> Measured:
        return first_writes(load.bootstrap, load.topic, load.topics, partitions=load.partitions, size=KB, props=acks)

    figures = (LAST_ACKNOWLEDGED, *EVERY_ROW)
    return Row("new topic, a record to each at once", partitions, figures, partitions, run, new_topic=True)


def _connections(scale: float) -> Row:
    def run(load: Load) -> Measured:
        return many_connections(
            load.topics.leaders(load.topic),
            load.topic,
            connections=CONNECTIONS,
            per_s=PER_CONNECTION_S,
            records=load.records,
            size=KB,
            acks=1,
        )

    kind = f"{CONNECTIONS} connections, {PER_CONNECTION_S} records/s each, acks=1"
    records = int(CONNECTIONS * PER_CONNECTION_S * max(PACED_S * scale, 3))
    return Row(kind, CONNECTIONS_PARTITIONS, (P50, P99, *EVERY_ROW), records, run)


def _steady(replication: int, acks: Mapping[str, object], scale: float) -> Row:
    def run(load: Load) -> Measured:
        return each_once_a_second(
            load.bootstrap, load.topic, partitions=load.partitions, records=load.records, size=KB, props=acks
        )

    kind = f"each x {replication} written once a second"
    records = STEADY_PARTITIONS * int(max(PACED_S * scale, 3))
    return Row(kind, STEADY_PARTITIONS, (*EVERY_ROW, P50, P99), records, run)
