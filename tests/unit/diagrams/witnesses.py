"""For each step of a machine the first seed that shows it, so that the whole machine is seen again in a moment."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tests.unit.diagrams.seen import Machine, Step

FILE = Path(__file__).with_name("witnesses.json")

# The step that is seen least often shows once in some 3,000 schedules.
SEEDS = 12_000

Witnesses = dict[Step, int | None]


def search(machine: Machine, seeds: Iterable[int]) -> Witnesses:
    """What the schedules of ``seeds`` show, with the first seed of each; None where no schedule is needed."""
    found: Witnesses = {}
    for seed in (None, *seeds):
        for step in machine.play(seed):
            found.setdefault(step, seed)
    return found


def shown_again(machine: Machine, witnesses: Witnesses) -> set[Step]:
    """What the witnesses show now."""
    return set().union(*(machine.play(seed) for seed in set(witnesses.values())))


def read() -> dict[str, Witnesses]:
    """The stored witnesses by machine."""
    stored = json.loads(FILE.read_text())
    return {name: {Step(*step): seed for *step, seed in rows} for name, rows in stored.items()}


def write(found: dict[str, Witnesses]) -> None:
    """One step a line, in order."""
    machines = []
    for name, witnesses in found.items():
        rows = ",\n".join(f"    {json.dumps([*step, seed])}" for step, seed in sorted(witnesses.items()))
        machines.append(f"  {json.dumps(name)}: [\n{rows}\n  ]")
    FILE.write_text("{\n" + ",\n".join(machines) + "\n}\n")
