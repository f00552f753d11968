"""The benchmark's drawing: a panel for each figure of a kind of row, a bar for each system and number of partitions."""

from __future__ import annotations

from xml.etree import ElementTree

from tests.lab.bench.figures import CPU, MB_PER_S, PRIVATE
from tests.lab.bench.measured import Measured, Results, Sample
from tests.lab.bench.plot import COLOURS, svg
from tests.lab.bench.rows import rows

NAMES = ["raykafka", "Kafka 3.9.2"]
SVG = "{http://www.w3.org/2000/svg}"
ROWS = [row for row in rows(1, [1, 6]) if row.kind == "1 KB, 1 MB batches"]


def sample(seconds: float) -> Sample:
    return Sample(Measured(1000, 1_000_000, seconds), {"broker": seconds}, {"broker": 100.0}, {"broker": 110.0})


def panels(results: Results) -> list[ElementTree.Element]:
    return ElementTree.fromstring(svg(ROWS, results, NAMES)).findall(f"{SVG}g")


def bars(panel: ElementTree.Element, system: str) -> list[float]:
    """Their heights."""
    colour = COLOURS[NAMES.index(system)]
    return [float(rect.attrib["height"]) for rect in panel.findall(f"{SVG}rect") if rect.attrib["fill"] == colour]


def test_bars_are_as_high_as_their_medians() -> None:
    fast, slow = [sample(0.1), sample(0.1), sample(0.5)], [sample(0.2)]
    found = panels({row.title: {NAMES[0]: fast, NAMES[1]: slow} for row in ROWS})
    assert len(found) == len([MB_PER_S, CPU, PRIVATE])
    speed, cpu, _ = found
    assert [round(a / b, 1) for a, b in zip(bars(speed, NAMES[0]), bars(speed, NAMES[1]), strict=True)] == [2.0, 2.0]
    assert [round(a / b, 1) for a, b in zip(bars(cpu, NAMES[0]), bars(cpu, NAMES[1]), strict=True)] == [0.5, 0.5]


def test_a_row_that_failed_has_no_bar() -> None:
    first, second = ROWS
    broken = [Sample(error="timed out")]
    results: Results = {
        first.title: {NAMES[0]: broken, NAMES[1]: [sample(0.2)]},
        second.title: {name: [sample(0.2)] for name in NAMES},
    }
    speed = panels(results)[0]
    assert (len(bars(speed, NAMES[0])), len(bars(speed, NAMES[1]))) == (1, 2)


def test_a_drawing_of_failures_alone_is_a_drawing() -> None:
    assert panels({row.title: {name: [Sample(error="no")] for name in NAMES} for row in ROWS})


def test_words_are_escaped() -> None:
    drawn = svg(ROWS, {row.title: {"a<b": [sample(0.1)]} for row in ROWS}, ["a<b"])
    assert "a&lt;b" in drawn
