"""A state machine as an SVG and as a table, and the page that holds them.

The SVG has a lane for each state, from left to right, and an arrow for each pair of states between which there is a
step, named after the events that take it. Nothing is placed by hand and nothing overlaps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from html import escape
from pathlib import Path

from tests.unit.diagrams.seen import Machine, Step

DOCS = Path(__file__).parents[3] / "docs"
PAGE = DOCS / "state-machines.md"

_LANE = 156
_BOX = (142, 30)
_MARGIN = 20
_ROW = 32
_LETTER = 6.4  # the width of a letter of 11 px, at most
_STYLE = """\
text { font: 11px ui-monospace, monospace; fill: #222 }
.state { font-weight: bold; text-anchor: middle }
.event { text-anchor: middle }
.box { fill: #eef3fb; stroke: #4a6fa5; rx: 6 }
.lane { stroke: #c9d3e3; stroke-dasharray: 2 4 }
.step { stroke: #4a6fa5; stroke-width: 1.4; marker-end: url(#head) }
.start { fill: #4a6fa5 }
.behind { fill: #fff }
#head path { fill: #4a6fa5 }"""


def changes(steps: Iterable[Step]) -> dict[tuple[str, str], list[str]]:
    """(before, after) -> the events that lead from one to the other, in alphabetical order."""
    found = defaultdict(set)
    for before, event, after in steps:
        if before != after:
            found[before, after].add(event)
    return {pair: sorted(events) for pair, events in found.items()}


def svg(machine: Machine, steps: Iterable[Step]) -> str:
    states = list(machine.states)
    order = {state: index for index, state in enumerate(states)}
    rows = sorted(changes(steps).items(), key=lambda row: (order[row[0][0]], order[row[0][1]]))
    width = 2 * _MARGIN + _LANE * len(states)
    height = 2 * _MARGIN + _BOX[1] + _ROW * (len(rows) + 1)

    def x(state: str) -> float:
        return _MARGIN + _LANE * (order[state] + 0.5)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<title>{escape(machine.title)}: its states, and the events that change them</title>",
        f"<style>{_STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for state in states:
        top = _MARGIN
        out += [
            f'<line class="lane" x1="{x(state):g}" x2="{x(state):g}" y1="{top + _BOX[1]}" y2="{height - _MARGIN}"/>',
            f'<rect class="box" x="{x(state) - _BOX[0] / 2:g}" y="{top}" width="{_BOX[0]}" height="{_BOX[1]}"/>',
            f'<text class="state" x="{x(state):g}" y="{top + 19}">{escape(state)}</text>',
        ]
    for index, ((before, after), events) in enumerate(rows):
        y = _MARGIN + _BOX[1] + _ROW * (index + 1)
        label = ", ".join(events)
        wide = _LETTER * len(label) + 4
        middle = min(max((x(before) + x(after)) / 2, wide / 2 + 2), width - wide / 2 - 2)
        out += [
            f'<circle class="start" cx="{x(before):g}" cy="{y}" r="3"/>',
            f'<line class="step" x1="{x(before):g}" x2="{x(after):g}" y1="{y}" y2="{y}"/>',
            f'<rect class="behind" x="{middle - wide / 2:g}" y="{y - 17}" width="{wide:g}" height="14"/>',
            f'<text class="event" x="{middle:g}" y="{y - 6}">{escape(label)}</text>',
        ]
    return "\n".join([*out, "</svg>", ""])


def table(machine: Machine, steps: Iterable[Step]) -> str:
    """One row for each state and event that changes it. An event that led to several states has them all: which one
    depends on more than the state's name."""
    steps = list(steps)
    lines = ["| state | event | becomes |", "|---|---|---|"]
    for state in machine.states:
        by_event = defaultdict(list)
        for after in machine.states:
            for event in changes(steps).get((state, after), []):
                by_event[event].append(after)
        kept = sorted({s.event for s in steps if s.before == s.after == state})
        label = f"**{state}**"
        for event, afters in sorted(by_event.items()):
            more = " or stays" if event in kept else ""
            lines.append(f"| {label} | {event} | {', '.join(afters)}{more} |")
            label = ""
        unmoved = [event for event in kept if event not in by_event]
        if unmoved or not by_event:
            lines.append(f"| {label} | {', '.join(unmoved) or 'none'} | stays |")
    return "\n".join(lines)


def _wrapped(text: str, width: int = 120) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + 1 + len(word) > width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def page(seen: Iterable[tuple[Machine, set[Step]]]) -> str:
    parts = [
        "# State machines, as they were seen",
        _wrapped(
            "Made by `scripts/diagrams`; do not edit. Random schedules drive the pure rules, and what state each event "
            "found and left is noted: this is what the code does, and not what somebody meant it to do. A test makes "
            "this page again and compares."
        ),
    ]
    for machine, steps in seen:
        meanings = [f"| {state} | {meaning} |" for state, meaning in machine.states.items()]
        events = [f"| {event} | {meaning} |" for event, meaning in sorted(machine.events.items())]
        parts += [
            f"## {machine.title}",
            f"The rules are in `{machine.source}`.",
            f"![{machine.title}: states and the events that change them](diagrams/{machine.name}.svg)",
            "\n".join(["| state | meaning |", "|---|---|", *meanings]),
            table(machine, steps),
            "\n".join(["| event | meaning |", "|---|---|", *events]),
        ]
    return "\n\n".join(parts) + "\n"


def files(seen: Iterable[tuple[Machine, set[Step]]]) -> dict[Path, str]:
    """Every file that shows the machines, with what belongs into it."""
    seen = list(seen)
    drawn = {DOCS / "diagrams" / f"{machine.name}.svg": svg(machine, steps) for machine, steps in seen}
    return {PAGE: page(seen), **drawn}
