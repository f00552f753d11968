"""docs/state-machines.md and docs/diagrams show what the rules do today: ``scripts/diagrams`` makes them anew."""

from __future__ import annotations

import pytest

from tests.unit.diagrams import drawn, witnesses
from tests.unit.diagrams.seen import MACHINES, Machine

SEEDS = 300


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_every_step_that_is_drawn_is_seen(machine: Machine) -> None:
    stored = witnesses.read()[machine.name]
    assert set(stored) - witnesses.shown_again(machine, stored) == set()


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_every_step_that_is_seen_is_drawn(machine: Machine) -> None:
    assert set(witnesses.search(machine, range(SEEDS))) - set(witnesses.read()[machine.name]) == set()


@pytest.mark.long
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_many_schedules_show_nothing_else(machine: Machine) -> None:
    assert set(witnesses.search(machine, range(SEEDS, witnesses.SEEDS))) - set(witnesses.read()[machine.name]) == set()


def test_the_files_are_what_is_drawn_now() -> None:
    stored = witnesses.read()
    for path, text in drawn.files((machine, set(stored[machine.name])) for machine in MACHINES).items():
        assert path.read_text() == text, f"{path.name} is stale: scripts/diagrams makes it anew"


def test_every_state_is_reached_and_every_state_is_explained() -> None:
    for machine in MACHINES:
        steps = witnesses.read()[machine.name]
        reached = {step.before for step in steps} | {step.after for step in steps}
        assert reached == set(machine.states)
