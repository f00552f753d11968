"""Frames between processes: a number has one meaning over all links, whichever module declares it."""

from __future__ import annotations

import ast
from pathlib import Path

import raykafka
from raykafka.link.messages import FIRST_DATA_KIND

PACKAGE = Path(raykafka.__file__).parent
LINK = PACKAGE / "link"


def declared() -> list[tuple[int, str, Path]]:
    """(number, name, file) of every ``NAME = FrameKind(number)``."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Assign(
                    targets=[ast.Name(name)],
                    value=ast.Call(func=ast.Name("FrameKind"), args=[ast.Constant(int(number))]),
                ):
                    found.append((number, name, path))
    return found


def test_every_frame_kind_has_a_number_of_its_own() -> None:
    kinds = declared()
    numbers = [number for number, _, _ in kinds]
    assert len(numbers) > 20
    assert sorted(numbers) == sorted(set(numbers)), sorted(kinds)
    assert max(numbers) < 256


def test_the_links_own_kinds_are_below_those_of_its_users() -> None:
    for number, name, path in declared():
        assert (number < FIRST_DATA_KIND) == (path.parent == LINK), (name, number)
