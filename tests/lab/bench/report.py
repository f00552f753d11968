"""Measurements as a markdown table: median and range of each system, and the ratios of the rounds."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.bench.clients import Measured
from tests.lab.bench.rows import Row
from tests.lab.clusters.systems import RAY


@dataclass
class Sample:
    """One row on one system in one round; ``error`` instead of the rest when the client failed."""

    measured: Measured | None = None
    cpu_s: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    def servers_cpu_per_gb(self) -> float | None:
        """Of all roles but Ray's daemons."""
        return self._per_gb(sum(seconds for role, seconds in self.cpu_s.items() if role != RAY))

    def ray_cpu_per_gb(self) -> float | None:
        return self._per_gb(self.cpu_s.get(RAY, 0.0))

    def role_cpu_per_gb(self, role: str) -> float | None:
        return self._per_gb(self.cpu_s.get(role, 0.0))

    def _per_gb(self, seconds: float) -> float | None:
        return None if self.measured is None else seconds / (self.measured.bytes / 1e9)


Figure = Callable[[Sample], float | None]


def _of(figure: Callable[[Measured], float | None]) -> Figure:
    """The figure of a sample that has been measured; None of any other."""
    return lambda sample: None if sample.measured is None else figure(sample.measured)


_FIGURES: dict[str, list[tuple[str, Figure]]] = {
    "MB/s": [("MB/s", _of(lambda measured: measured.mb_per_s))],
    "k records/s": [("k records/s", _of(lambda measured: measured.records_per_s / 1000))],
    "p50 / p99 ms": [
        ("p50 ms", _of(lambda measured: measured.p50_ms)),
        ("p99 ms", _of(lambda measured: measured.p99_ms)),
    ],
}
Results = dict[str, dict[str, list[Sample]]]  # row's title -> system's name -> one sample for each round


def machine() -> str:
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({cpu}), {memory_gb:.0f} GB, {system}"


def table(chosen: Sequence[Row], results: Results, first: str, second: str) -> str:
    """Ratios are ``first`` to ``second`` within each round: above 1 is better for speed, below 1 for time and CPU."""
    lines = [
        f"| row | figure | {first} | {second} | ratio, median (range) |",
        "|---|---|---|---|---|",
    ]
    for row in chosen:
        samples = results[row.title]
        figures = [*_FIGURES[row.unit], ("servers' CPU s/GB", Sample.servers_cpu_per_gb)]
        for index, (name, figure) in enumerate(figures):
            ours, theirs = ([figure(sample) for sample in samples[system]] for system in (first, second))
            title = row.title if index == 0 else ""
            lines.append(f"| {title} | {name} | {_spread(ours)} | {_spread(theirs)} | {_ratios(ours, theirs)} |")
        ray = _spread([sample.ray_cpu_per_gb() for sample in samples[first]])
        lines.append(f"| | Ray's daemons' CPU s/GB | {ray} | - | - |")
    return "\n".join(lines)


def cpu_table(chosen: Sequence[Row], results: Results, systems: Sequence[str]) -> str:
    """Median CPU seconds per GB of each role."""
    lines = []
    for system in systems:
        roles = sorted({role for samples in results.values() for sample in samples[system] for role in sample.cpu_s})
        lines += [f"| {system} | {' | '.join(roles)} |", "|---|" + "---|" * len(roles)]
        for row in chosen:
            cells = []
            for role in roles:
                cells.append(_spread([sample.role_cpu_per_gb(role) for sample in results[row.title][system]], False))
            lines.append(f"| {row.title} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def errors(results: Results) -> list[str]:
    return [
        f"{title}, {system}, round {number}: {sample.error}"
        for title, by_system in results.items()
        for system, samples in by_system.items()
        for number, sample in enumerate(samples, 1)
        if sample.error
    ]


def _spread(values: Sequence[float | None], with_range: bool = True) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "failed"
    middle = _short(statistics.median(known))
    if not with_range or len(known) == 1:
        return middle
    return f"{middle} ({_short(min(known))}-{_short(max(known))})"


def _ratios(ours: Sequence[float | None], theirs: Sequence[float | None]) -> str:
    ratios = [a / b for a, b in zip(ours, theirs, strict=False) if a is not None and b]
    if not ratios:
        return "-"
    if len(ratios) == 1:
        return f"{ratios[0]:.2f}"
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
