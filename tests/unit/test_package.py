"""What the package says of itself holds: its licence and its types are there."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_named_licence_lies_beside_the_code() -> None:
    project = PROJECT["project"]
    assert project["license"] == "Apache-2.0"
    texts = [(ROOT / name).read_text() for name in project["license-files"]]
    assert [("Apache License" in text, "Version 2.0, January 2004" in text) for text in texts] == [(True, True)]


def test_type_checkers_of_users_find_the_types() -> None:
    """PEP 561: the marker lies in the one package that the wheel takes whole."""
    (package,) = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert (ROOT / package / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]
