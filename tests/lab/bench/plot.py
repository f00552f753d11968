"""Samples as a drawing: a panel for each figure of a kind of row, a group of bars for each number of partitions."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tests.lab.bench.figures import RAY_CPU, RAY_PRIVATE, Figure
from tests.lab.bench.measured import Results
from tests.lab.bench.report import Spread, short, spread, values
from tests.lab.bench.rows import Row, counted

COLOURS = ("#0b6e99", "#d9822b", "#6a8f3c", "#8250a8")
COLUMNS, WIDTH, HEIGHT, GAP = 3, 330, 190, 30
LEFT, TOP, BOTTOM = 12, 40, 24  # of a panel, around its bars
HEAD = 40


def svg(chosen: Sequence[Row], results: Results, names: Sequence[str]) -> str:
    """Bars are medians, the lines on them reach from the least to the most of the rounds. A missing bar failed."""
    panels = _panels(chosen)
    rows_of_panels = -(-len(panels) // COLUMNS)
    width, height = COLUMNS * (WIDTH + GAP) + GAP, HEAD + rows_of_panels * (HEIGHT + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for index, name in enumerate(names):
        x = GAP + index * 150
        parts.append(f'<rect x="{x}" y="14" width="12" height="12" fill="{_colour(index)}"/>')
        parts.append(_text(x + 18, 24, name))
    for index, (figure, rows) in enumerate(panels):
        x = GAP + index % COLUMNS * (WIDTH + GAP)
        y = HEAD + index // COLUMNS * (HEIGHT + GAP)
        parts.append(f'<g transform="translate({x} {y})">')
        parts += _panel(figure, rows, results, names)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panels(chosen: Sequence[Row]) -> list[tuple[Figure, list[Row]]]:
    """A panel's rows differ in their number of partitions alone. Ray's daemons are left to the table."""
    kinds: dict[str, list[Row]] = {}
    for row in chosen:
        kinds.setdefault(row.kind, []).append(row)
    return [
        (figure, rows) for rows in kinds.values() for figure in rows[0].figures if figure not in (RAY_CPU, RAY_PRIVATE)
    ]


def _panel(figure: Figure, rows: Sequence[Row], results: Results, names: Sequence[str]) -> list[str]:
    better = "more is better" if figure.more_is_better else "less is better"
    parts = [_text(0, 12, rows[0].kind, weight="bold"), _text(0, 27, f"{figure.name} ({better})")]
    found = [[spread(values(figure, results[row.title][name])) for name in names] for row in rows]
    most = max((bar.most for group in found for bar in group if bar is not None), default=0.0) or 1.0
    room, base = HEIGHT - TOP - BOTTOM, HEIGHT - BOTTOM
    group_width = (WIDTH - LEFT) / len(rows)
    bar_width = min(44.0, group_width * 0.8 / len(names))
    parts.append(f'<line x1="{LEFT}" y1="{base}" x2="{WIDTH}" y2="{base}" stroke="#888"/>')
    for index, (row, group) in enumerate(zip(rows, found, strict=True)):
        middle = LEFT + group_width * (index + 0.5)
        parts.append(_text(middle, base + 14, counted(row.partitions), anchor="middle"))
        for place, bar in enumerate(group):
            if bar is not None:
                x = middle + (place - len(names) / 2) * bar_width
                parts += _bar(bar, x, bar_width, base, room * 0.88 / most, _colour(place))
    return parts


def _bar(bar: Spread, x: float, width: float, base: float, scale: float, colour: str) -> list[str]:
    top, least, most = (base - value * scale for value in (bar.middle, bar.least, bar.most))
    centre = x + width / 2
    return [
        f'<rect x="{x:.1f}" y="{top:.1f}" width="{width - 2:.1f}" height="{base - top:.1f}" fill="{colour}"/>',
        f'<line x1="{centre:.1f}" y1="{least:.1f}" x2="{centre:.1f}" y2="{most:.1f}" stroke="#222"/>',
        _text(centre, most - 3, short(bar.middle), anchor="middle", size=9),
    ]


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", size: int = 11) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}"'
    return f"<text {where}>{escape(text)}</text>"


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]
