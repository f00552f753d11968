"""The table of docs/rules.md tells the truth: every rule is in it, and the code and tests that it names exist."""

from __future__ import annotations

import re

from tests.lab import REPOSITORY

RULES = (REPOSITORY / "docs" / "rules.md").read_text()
_ROW = re.compile(r"^\| ([\d, ]+) \| (.*) \| (.*)\|$", re.MULTILINE)


def rows() -> dict[int, tuple[list[str], list[str]]]:
    """Rule -> the modules and the tests that are named for it."""
    found: dict[int, tuple[list[str], list[str]]] = {}
    for numbers, code, tests in _ROW.findall(RULES):
        named = re.findall(r"`([^`]+)`", code), re.findall(r"`([^`]+)`", tests)
        found |= {int(number): named for number in numbers.split(", ")}
    return found


def test_every_rule_has_its_code_and_its_tests() -> None:
    numbered = [int(number) for number in re.findall(r"^(\d+)\. ", RULES, re.MULTILINE)]
    assert numbered == sorted(rows())
    not_served = {rule for rule, (code, tests) in rows().items() if not (code and tests)}
    assert not_served == {25}


def test_what_the_table_names_exists() -> None:
    sources = "\n".join(path.read_text() for path in (REPOSITORY / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^(?:async )?def (test_\w+)", sources, re.MULTILINE))
    for code, tests in rows().values():
        assert set(tests) <= there
        assert [name for name in code if not (REPOSITORY / "raykafka" / name).is_file()] == []
