"""Tests import the lab, the lab imports neither tests nor scripts, and no test is imported by anybody."""

from __future__ import annotations

from tests.lab import REPOSITORY
from tests.unit.walls import Tree

TREE = Tree(REPOSITORY / "tests")


def _is_lab(module: str) -> bool:
    return module == "lab" or module.startswith("lab.")


def test_the_lab_imports_no_tests() -> None:
    lab = {module: imported for module, imported in TREE.inner.items() if _is_lab(module)}
    assert lab
    assert [(m, other) for m, imported in lab.items() for other in sorted(imported) if not _is_lab(other)] == []


def test_no_test_and_no_fixture_file_is_imported() -> None:
    collected = {module for module in TREE.files if module.rpartition(".")[2].startswith(("test_", "conftest"))}
    assert collected
    assert [(m, other) for m, imported in TREE.inner.items() for other in sorted(imported & collected)] == []


def test_nothing_here_imports_a_script() -> None:
    assert [module for module, imported in TREE.outer.items() if "scripts" in imported] == []


def test_files_of_tests_import_one_another_in_one_direction() -> None:
    assert list(TREE.circles()) == []
