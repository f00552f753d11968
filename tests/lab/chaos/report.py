"""A verdict in words and tables."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator

from tests.lab.chaos.checker import Gap, Verdict, Violation

SHOWN = 10


def lines(verdict: Verdict) -> Iterator[str]:
    """What was found, most important last."""
    yield from _gaps(verdict.gaps)
    yield ""
    yield (
        f"Sent {verdict.sent:,}, acknowledged {verdict.acknowledged:,}, given up {verdict.given_up:,}; stored "
        f"{verdict.stored:,}; read {verdict.read:,} times. Leader elections {verdict.elections}, "
        f"unclean {verdict.unclean_elections}."
    )
    yield (
        f"Allowed, and seen: {verdict.repeated} repeated records of writers without idempotence; "
        f"{sum(map(len, verdict.allowed_losses.values()))} acknowledged records lost to elections"
        + "".join(f"; {len(lost)} of writer {name}" for name, lost in sorted(verdict.allowed_losses.items()))
        + f"; {len(verdict.allowed_changes)} times a reader or writer met what an unclean election had lost."
    )
    for name, lost in sorted(verdict.allowed_losses.items()):
        yield from _some(f"allowed loss of {name}", lost)
    yield ""
    for violation in Violation:
        found = verdict.violations.get(violation, [])
        yield f"{len(found):6} {violation}"
        yield from _some(violation, found)


def _some(title: str, found: list[str]) -> Iterator[str]:
    for line in found[:SHOWN]:
        yield f"         {title}: {line}"
    if len(found) > SHOWN:
        yield f"         and {len(found) - SHOWN} more"


def _gaps(gaps: list[Gap]) -> Iterator[str]:
    """How long writes stood still, by kind of fault."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for gap in gaps:
        by_kind[gap.fault.kind].append(gap.seconds)
    yield "| fault | n | writes stood still, median | worst |"
    yield "|---|---|---|---|"
    for kind, seconds in sorted(by_kind.items()):
        yield f"| {kind} | {len(seconds)} | {statistics.median(seconds):.2f} s | {max(seconds):.2f} s |"
