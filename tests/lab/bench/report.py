"""Samples as a markdown table: median and range of each system, and ratios to the better Kafka, paired by round."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.bench.figures import Figure
from tests.lab.bench.measured import Results, Sample
from tests.lab.bench.rows import Row

OURS, THEIRS = "raykafka", "Kafka"  # how the systems' names begin


@dataclass(frozen=True)
class Spread:
    """Median, least and most of the rounds that have a value."""

    middle: float
    least: float
    most: float

    def __str__(self) -> str:
        if self.least == self.most:
            return short(self.middle)
        return f"{short(self.middle)} ({short(self.least)}-{short(self.most)})"


@dataclass(frozen=True)
class Ratio:
    """Of raykafka (of the first one, where there are several) to the Kafka that is better at this figure (by its
    median), round by round."""

    rival: str
    spread: Spread


def spread(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return Spread(statistics.median(known), min(known), max(known)) if known else None


def values(figure: Figure, samples: Sequence[Sample]) -> list[float | None]:
    """One for each round; None where the row failed or the system lacks the figure."""
    return [figure.of(sample) for sample in samples]


def ratio(figure: Figure, by_system: Mapping[str, Sequence[Sample]]) -> Ratio | None:
    """None without raykafka, without a Kafka, and where no round has both."""
    own = next((name for name in by_system if name.startswith(OURS)), None)
    if own is None:
        return None
    ours = values(figure, by_system[own])
    rivals = {name: values(figure, samples) for name, samples in by_system.items() if name.startswith(THEIRS)}
    medians = {name: found.middle for name, theirs in rivals.items() if (found := spread(theirs)) is not None}
    if not medians:
        return None
    best = max if figure.more_is_better else min
    rival = best(medians, key=medians.__getitem__)
    pairs = zip(ours, rivals[rival], strict=False)
    found = spread([a / b for a, b in pairs if a is not None and b])
    return None if found is None else Ratio(rival, found)


def table(chosen: Sequence[Row], results: Results, names: Sequence[str]) -> str:
    """Ratios above 1 are better for speed, below 1 for time, CPU and memory."""
    rivals = sum(name.startswith(THEIRS) for name in names)
    compared = rivals > 0 and any(name.startswith(OURS) for name in names)
    heads = ["row", "figure", *names, *(["ratio to the better Kafka"] if compared else [])]
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for row in chosen:
        by_system, title = results[row.title], row.title
        for figure in row.figures:
            spreads = [spread(values(figure, by_system[name])) for name in names]
            if all(found is None for found in spreads) and figure is not row.figures[0]:
                continue
            cells = [_cell(found, by_system[name]) for found, name in zip(spreads, names, strict=True)]
            if compared:
                found_ratio = ratio(figure, by_system)
                cells.append("-" if found_ratio is None else f"{_ratio_text(found_ratio, rivals > 1)}")
            lines.append(_line([title, figure.name, *cells]))
            title = ""
    return "\n".join(lines)


def by_role(
    chosen: Sequence[Row], results: Results, names: Sequence[str], of: Callable[[Sample], Mapping[str, float]]
) -> str:
    """Medians for each role of each system: CPU seconds or memory, as ``of`` reads them from a sample."""
    lines: list[str] = []
    for name in names:
        done = {row.title: [s for s in results[row.title][name] if s.measured is not None] for row in chosen}
        roles = sorted({role for samples in done.values() for sample in samples for role in of(sample)})
        lines += [_line([name, *roles]), "|---" * (len(roles) + 1) + "|"]
        for title, samples in done.items():
            found = [spread([of(sample).get(role) for sample in samples]) for role in roles]
            lines.append(_line([title, *("-" if cell is None else short(cell.middle) for cell in found)]))
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


def machine() -> str:
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({cpu}), {memory_gb:.0f} GB, {system}"


def short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _cell(found: Spread | None, samples: Sequence[Sample]) -> str:
    failed = sum(sample.error is not None for sample in samples)
    if found is None:
        return "failed" if failed else "-"
    return f"{found}, {failed} failed" if failed else str(found)


def _ratio_text(found: Ratio, named: bool) -> str:
    middle, least, most = (f"{value:.2f}" for value in (found.spread.middle, found.spread.least, found.spread.most))
    text = middle if least == most else f"{middle} ({least}-{most})"
    return f"{text} to {found.rival}" if named else text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
