"""What one run of a client showed, and with it what the servers took: a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.lab.clusters.systems import RAY

MB = 1e6


class ClientError(Exception):
    """A client failed, lost records or took too long; the message is what it said."""


@dataclass(frozen=True)
class Measured:
    """What one run of a client showed. Latencies are from the client's send to its acknowledgement."""

    records: int
    bytes: int
    seconds: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    client_cpu_s: float | None = None  # of clients that run in the benchmark's own process
    client_late_s: float | None = None  # of clients that keep to a rate: how late they sent, 99th percentile

    @property
    def mb_per_s(self) -> float:
        return self.bytes / MB / self.seconds

    @property
    def records_per_s(self) -> float:
        return self.records / self.seconds


@dataclass
class Sample:
    """One row on one system in one round; ``error`` instead of the rest when the client failed.

    By role: CPU seconds while the client ran, and at its end private (USS) and proportional (PSS) memory in MB.
    """

    measured: Measured | None = None
    cpu_s: dict[str, float] = field(default_factory=dict)
    private_mb: dict[str, float] = field(default_factory=dict)
    proportional_mb: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    def of_servers(self, by_role: Mapping[str, float]) -> float | None:
        """The sum over all roles but Ray's daemons."""
        return None if self.measured is None else sum(value for role, value in by_role.items() if role != RAY)

    def of_ray(self, by_role: Mapping[str, float]) -> float | None:
        """Of Ray's daemons; None for a system without Ray."""
        return None if self.measured is None else by_role.get(RAY)


Results = dict[str, dict[str, list[Sample]]]  # row's title -> system's name -> one sample for each round


def percentile(ordered: list[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of the values, which are in order, do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
