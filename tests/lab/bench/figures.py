"""The figures that a row is told in: how each is read from a sample, and which direction is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.bench.measured import Measured, Sample


@dataclass(frozen=True)
class Figure:
    """``of`` returns None where a sample lacks the figure."""

    name: str
    of: Callable[[Sample], float | None]
    more_is_better: bool = False


def _client(of: Callable[[Measured], float | None]) -> Callable[[Sample], float | None]:
    return lambda sample: None if sample.measured is None else of(sample.measured)


MB_PER_S = Figure("MB/s", _client(lambda measured: measured.mb_per_s), more_is_better=True)
THOUSANDS_PER_S = Figure("k records/s", _client(lambda measured: measured.records_per_s / 1000), more_is_better=True)
P50 = Figure("p50 ms", _client(lambda measured: measured.p50_ms))
P99 = Figure("p99 ms", _client(lambda measured: measured.p99_ms))
LAST_ACKNOWLEDGED = Figure("last acknowledged after, s", _client(lambda measured: measured.seconds))
CPU = Figure("servers' CPU, s", lambda sample: sample.of_servers(sample.cpu_s))
PRIVATE = Figure("servers' private memory, MB", lambda sample: sample.of_servers(sample.private_mb))
RAY_CPU = Figure("Ray's daemons' CPU, s", lambda sample: sample.of_ray(sample.cpu_s))
RAY_PRIVATE = Figure("Ray's daemons' private memory, MB", lambda sample: sample.of_ray(sample.private_mb))
EVERY_ROW = (CPU, PRIVATE, RAY_CPU, RAY_PRIVATE)
