"""What is measured: one row of the table each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.lab.bench.clients import Measured, confluent_producer, consumer_perf, producer_perf

BIG_BATCHES = {"batch.size": 1_000_000, "linger.ms": 20}
SMALL_BATCHES = {"batch.size": 16_384, "linger.ms": 0}  # the Java producer's defaults
ONE_BY_ONE_PER_S = 500


@dataclass(frozen=True)
class Row:
    """``run(bootstrap, topic, records)`` measures; ``fill`` puts records into the topic before, unmeasured."""

    title: str
    unit: str  # "MB/s", "k records/s" or "p50 / p99 ms"
    records: int
    run: Callable[[str, str, int], Measured]
    fill: Callable[[str, str, int], Measured] | None = None


def _perf(size: int, per_s: int, props: Mapping[str, object]) -> Callable[[str, str, int], Measured]:
    return lambda bootstrap, topic, records: producer_perf(
        bootstrap, topic, records=records, size=size, per_s=per_s, props=props
    )


def rows(replication: int) -> list[Row]:
    """The rows for topics of that replication factor, with one partition."""
    acks = {"acks": 1 if replication == 1 else "all"}
    big, small = {**acks, **BIG_BATCHES}, {**acks, **SMALL_BATCHES}
    scale = 1.0 if replication == 1 else 0.5
    return [
        Row("1 KB, 1 MB batches", "MB/s", int(1_000_000 * scale), _perf(1000, -1, big)),
        Row("1 KB, 16 KB batches", "MB/s", int(400_000 * scale), _perf(1000, -1, small)),
        Row("100 B, 1 MB batches", "k records/s", int(4_000_000 * scale), _perf(100, -1, big)),
        Row("1 KB, one by one at 500/s", "p50 / p99 ms", 5_000, _perf(1000, ONE_BY_ONE_PER_S, small)),
        Row(
            "consume 1 KB, 1 MB batches",
            "MB/s",
            int(1_000_000 * scale),
            lambda bootstrap, topic, records: consumer_perf(bootstrap, topic, records=records, size=1000),
            fill=_perf(1000, -1, big),
        ),
        Row(
            "confluent-kafka, 1 KB, its defaults",
            "MB/s",
            int(500_000 * scale),
            lambda bootstrap, topic, records: confluent_producer(
                bootstrap, topic, records=records, size=1000, props=dict(acks)
            ),
        ),
    ]
