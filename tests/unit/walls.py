"""Who imports whom in a tree of Python files, held against a table of who may."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = "__init__"
_NAME = re.compile(r"`([\w.]+)`")


class Row(NamedTuple):
    """``names`` are packages, or single modules where only these may be imported, below the root package. A module
    belongs to the row with the longest name that it is, or lies in. ``never``: what neither it nor anything that it
    imports may import."""

    names: tuple[str, ...]
    may_import: frozenset[str]
    never: frozenset[str]


def read_table(text: str, title: str) -> list[Row]:
    """The table below the heading ``title``: names, what they may import, what never, and what for. What the first row
    names, everybody may import."""
    section = text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")][2:]
    found = [tuple(frozenset(_NAME.findall(cell)) for cell in row) for row in cells]
    names = [tuple(_NAME.findall(row[0])) for row in cells]
    ground = frozenset(names[0])
    return [Row(own, sets[1] | ground, sets[2]) for own, sets in zip(names, found, strict=True)]


class Tree:
    """The modules under the directory of a root package, by name below it, and what each of them imports."""

    def __init__(self, directory: Path) -> None:
        self._root = directory.name
        self.files = {self._name(path.relative_to(directory)): path for path in sorted(directory.rglob("*.py"))}
        self.packages = {self._name(path.relative_to(directory)) for path in directory.rglob("__init__.py")} - {ROOT}
        self.inner: dict[str, set[str]] = {}
        self.outer: dict[str, set[str]] = {}
        for name, path in self.files.items():
            imported = set(self._imports(path, name))
            self.inner[name] = {self._below(other) for other in imported if self._is_inner(other)} - {name}
            self.outer[name] = {other.partition(".")[0] for other in imported if not self._is_inner(other)}

    @staticmethod
    def _name(path: Path) -> str:
        parts = path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)

    def _is_inner(self, name: str) -> bool:
        return name == self._root or name.startswith(self._root + ".")

    def _below(self, name: str) -> str:
        return name.removeprefix(self._root).removeprefix(".") or ROOT

    def _imports(self, path: Path, name: str) -> Iterator[str]:
        """Everything that a file imports, anywhere in it: for types only, in functions, by ``import_module``."""
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = [self._root, *(() if name == ROOT else name.split("."))]
                    up = node.level - (path.name == "__init__.py")
                    base = ".".join([*parts[: len(parts) - up], *filter(None, [base])])
                for alias in node.names:
                    whole = f"{base}.{alias.name}"
                    yield whole if self._is_inner(whole) and self._below(whole) in self.files else base
            elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                    yield node.args[0].value

    def circles(self) -> Iterator[list[str]]:
        """Files that import one another; each circle loses an import before the next is looked for."""
        graph = {name: set(others) for name, others in self.inner.items()}
        while True:
            try:
                graphlib.TopologicalSorter(graph).prepare()
            except graphlib.CycleError as error:
                circle = error.args[1][::-1]
                yield circle
                graph[circle[0]].discard(circle[1])
            else:
                return

    def reached(self, name: str) -> Mapping[str, tuple[str, ...]]:
        """What a module imports, itself or through others, with the way there."""
        ways: dict[str, tuple[str, ...]] = {name: (name,)}
        waiting = [name]
        while waiting:
            current = waiting.pop()
            for other in self.inner.get(current, ()):
                if other not in ways:
                    ways[other] = (*ways[current], other)
                    waiting.append(other)
        return ways


def violations(tree: Tree, table: list[Row]) -> list[str]:
    """What in ``tree`` is not as ``table`` says, a line for each."""
    rows = {name: row for row in table for name in row.names}

    def row_of(module: str) -> str | None:
        name = module
        while name not in rows:
            name, dot, _ = name.rpartition(".")
            if not dot:
                return None
        return name

    found = [f"{name} is in the table and not in the tree" for name in rows if name not in tree.files]
    found += [
        f"{row.names[0]} may import {name}, which is not in the table"
        for row in table
        for name in sorted(row.may_import - rows.keys())
    ]
    unlisted = (tree.packages | {name for name in tree.files if "." not in name}) - rows.keys()
    found += [f"{name} is in the tree and not in the table" for name in sorted(unlisted)]
    for module, imported in tree.inner.items():
        own = row_of(module)
        for other in sorted(imported):
            theirs = row_of(other)
            if own is not None and theirs is not None and theirs not in {own, *rows[own].may_import}:
                found.append(f"{module} imports {other}: {own} may not import {theirs}")
    found += ["files import one another: " + " -> ".join(circle) for circle in tree.circles()]
    for module in tree.files:
        own = row_of(module)
        never = rows[own].never if own is not None else set()
        for reached, way in tree.reached(module).items() if never else ():
            for banned in sorted(tree.outer.get(reached, set()) & never):
                found.append(f"{module} may never import {banned}: " + " -> ".join((*way, banned)))
    return found
