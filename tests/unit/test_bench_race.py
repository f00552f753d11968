"""Systems in a race: all do each row, one right after the other, and a failure is the failing system's alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.bench import race
from tests.lab.bench.measured import ClientError, Measured, Sample
from tests.lab.bench.race import STARTS, Race
from tests.lab.bench.rows import Row, rows
from tests.lab.bench.systems import raykafka_name, systems

ROWS = rows(1, [6])[:3]
FINE, BROKEN = Sample(Measured(1, 1, 1.0)), Sample(error="timed out")


class System:
    bootstrap = ""

    def __init__(self, name: str, starts: bool, said: list[str]) -> None:
        self.name, self._starts, self._said = name, starts, said

    def start(self) -> None:
        self._said.append(f"start {self.name}")
        if not self._starts:
            raise ClientError("no port")

    def stop(self) -> None:
        self._said.append(f"stop {self.name}")

    def pids(self) -> list[int]:
        return []

    def roles(self) -> dict[int, str]:
        return {}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the systems and rows did. A row of a system whose name and number are in ``failing`` fails."""
    did: list[str] = []

    def measure(system: System, row: Row, replication: int, running: list[System]) -> Sample:
        did.append(f"{system.name}: {ROWS.index(row)} of {len(running)}")
        return BROKEN if (system.name, ROWS.index(row)) == ("b", 1) else FINE

    monkeypatch.setattr(race, "warm_up", lambda *_: None)
    monkeypatch.setattr(race, "measure", measure)
    return did


def run(said: list[str], broken: str = "", first: int = 0) -> list[tuple[str, str | None]]:
    def make(name: str) -> Callable[[int], System]:
        return lambda _: System(name, name != broken, said)

    with Race({name: make(name) for name in "abc"}, 1, 1.0) as racing:
        return [(name, sample.error) for _, name, sample in racing.run(ROWS, first)]


def test_each_row_goes_round_and_another_system_begins(said: list[str]) -> None:
    assert [name for name, _ in run(said)] == [*"abc", *"bca", *"cab"]
    assert said[:3] == ["start a", "start b", "start c"]
    assert said[3:6] == ["a: 0 of 3", "b: 0 of 3", "c: 0 of 3"]
    assert sorted(said[-3:]) == ["stop a", "stop b", "stop c"]
    assert [name for name, _ in run(said, first=1)][:3] == [*"bca"]


def test_a_system_is_started_anew_after_a_row_that_failed(said: list[str]) -> None:
    found = run(said)
    assert [name for name, error in found if error] == ["b"]
    at = said.index("b: 1 of 3")
    assert said[at + 1] == "stop b"
    assert said.index("start b", at) < said.index("b: 2 of 3")


def test_a_system_that_does_not_start_fails_in_every_row_and_the_others_go_on(said: list[str]) -> None:
    found = run(said, broken="c")
    assert said.count("start c") == said.count("stop c") == STARTS
    assert [error for name, error in found if name == "c"] == ["the system did not work: no port"] * len(ROWS)
    assert [error for name, error in found if name == "a"] == [None] * len(ROWS)


def test_raykafka_races_once_for_each_number_of_actors() -> None:
    assert list(systems(["raykafka", "kafka-4.3.1"], ["auto", 2])) == [
        "raykafka",
        "raykafka, replica.actors: 2",
        "Kafka 4.3.1",
    ]
    assert raykafka_name("each") == "raykafka, replica.actors: each"
