"""The pages that people read hold together: one width, links that lead somewhere, and files and commands that exist."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from raykafka.cli import raykafka

ROOT = Path(__file__).parents[2]
WIDTH = 120
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "tests" / "lab").rglob("*.md")])
PACKAGES = {path.parent.name for path in (ROOT / "raykafka").glob("*/__init__.py")}
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()}

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"^[\w.-]+(/[\w.*-]+)*/?$")
_COMMAND = re.compile(r"(?<![\w/])scripts/([\w.]+)")
_CLI = re.compile(r"(?:`|^ {4}|, )raykafka ([a-z][^`\n]*)", re.MULTILINE)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """The lines that are wrapped, with their numbers: no tables, no code. An indented block after a blank line is code,
    unless it goes on in a list."""
    fenced = code = False
    before = ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        elif line.startswith("    ") and (code or not before.strip()):
            code = True
        else:
            code = code and not line.strip()
            if not fenced and not line.startswith("|"):
                yield number, line
        before = line


def anchors(page: Path) -> set[str]:
    """The names by which links reach a page's headings, as forges make them."""
    headings = _HEADING.findall(page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named_paths(page: Path) -> Iterator[str]:
    """What stands in backticks and is a path in this repository: it begins with one of its folders or packages, or is a
    file of Python or of documentation. Other files are those of a running cluster."""
    for code in _CODE.findall(page.read_text()):
        if _PATH.match(code):
            first = code.split("/")[0]
            if ("/" in code and first in FOLDERS | PACKAGES) or code.endswith((".py", ".md", ".svg")):
                yield code


def exists(name: str, page: Path) -> bool:
    """From the root, from ``raykafka`` or from the page's own folder; a bare file name may be anywhere."""
    if any(list(start.glob(name)) for start in (ROOT, ROOT / "raykafka", page.parent)):
        return True
    return "/" not in name and any(any((ROOT / folder).rglob(name)) for folder in ("raykafka", "tests", "docs"))


@each_page
def test_pages_are_wrapped_at_one_width(page: Path) -> None:
    assert [(number, len(line)) for number, line in prose(page) if len(line) > WIDTH] == []


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if re.match(r"^[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    assert [name for name in named_paths(page) if not exists(name, page)] == []


@each_page
def test_commands_that_are_named_exist(page: Path) -> None:
    for name in _COMMAND.findall(page.read_text()):
        script = ROOT / "scripts" / name.rstrip(".")
        assert script.is_file(), name
        assert script.suffix or os.access(script, os.X_OK), name


@each_page
def test_raykafkas_commands_and_their_options_exist(page: Path) -> None:
    """Of ``raykafka GROUP COMMAND|COMMAND ... --option``; what stands behind two spaces explains it."""
    for text in _CLI.findall(page.read_text()):
        words = re.sub(r"[\[\]]", "", re.split(r"  |,", text)[0]).split()
        assert words[0] in raykafka.commands, text
        commands = [raykafka.commands[words[0]]]
        if isinstance(commands[0], click.Group):
            group = commands[0]
            assert set(words[1].split("|")) <= set(group.commands), text
            commands = [group.commands[name] for name in words[1].split("|")]
        options = {option for command in commands for param in command.params for option in param.opts}
        assert {word for word in words if word.startswith("-")} <= options, text


def test_the_architecture_names_every_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    (tree,) = re.findall(r"^```\nraykafka/\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert {name for name in re.findall(r"^  (\w+)/", tree, re.MULTILINE)} == PACKAGES


def test_two_commands_set_everything_up() -> None:
    readme = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"^Two commands do everything [^\n]*\n\n((?:    [^\n]*\n)+)", readme, re.MULTILINE)
    assert [line.split()[0] for line in block.splitlines()] == ["scripts/quickstart", "scripts/test"]
    assert not re.search(r"pip install|apt(-get)? install|venv .*-m|python -m venv", readme)


def test_the_readme_says_what_it_is_and_is_not_before_it_shows_anything() -> None:
    readme = (ROOT / "README.md").read_text()
    order = [readme.index(text) for text in ("**What works.**", "**What does not.**", "## Quickstart")]
    assert order == sorted(order)


def test_every_page_is_found_from_the_readme() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in _LINK.findall((ROOT / "README.md").read_text())}
    assert {page for page in PAGES if page.name != "README.md"} <= linked
