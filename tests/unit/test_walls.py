"""The table of who may import whom, in docs/architecture.md, is what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.walls import Tree, read_table, violations

REPOSITORY = Path(__file__).parents[2]
TITLE = "Who may import whom"


def test_the_code_keeps_to_the_table_of_the_architecture() -> None:
    table = read_table((REPOSITORY / "docs" / "architecture.md").read_text(), TITLE)
    assert violations(Tree(REPOSITORY / "raykafka"), table) == []


TABLE = """
## Who may import whom

| package | may import | never | what it is for |
|---|---|---|---|
| `errors` | | `ray` | the ground |
| `log` | `process` | `ray`, `asyncio`, `socket` | the log |
| `log.reader` | `log` | | one module |
| `process` | | | processes |
| `front` | `log`, `log.reader` | | clients |
| `__init__` | `front` | | all |

## Something else

| `errors` | `front` |
"""
FILES = {
    "__init__.py": "from raykafka.front import listener\n",
    "errors.py": "",
    "log/__init__.py": "",
    "log/log.py": "from raykafka.process import durable\nfrom raykafka.errors import LogError\n",
    "log/reader.py": "from .log import Log\n",
    "process/__init__.py": "",
    "process/durable.py": "import os\n",
    "process/tasks.py": "import asyncio\n",
    "front/__init__.py": "",
    "front/listener.py": "import asyncio\nfrom raykafka.log.reader import LogReader\n",
    "front/session.py": "",
}


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ({}, []),
        ({"front/session.py": "from raykafka.process import tasks\n"}, ["front may not import process"]),
        (
            {"log/log.py": "if TYPE_CHECKING:\n    from raykafka.front import session\n"},
            ["log may not import front"],
        ),
        ({"log/log.py": "def later():\n    import raykafka.front.session\n"}, ["log may not import front"]),
        ({"log/log.py": "def later():\n    from ..front import session\n"}, ["log may not import front"]),
        (
            {"log/log.py": "import importlib\nx = importlib.import_module('raykafka.front.session')\n"},
            ["log may not import front"],
        ),
        ({"process/tasks.py": "import raykafka\n"}, ["process may not import __init__"]),
        (
            {"log/log.py": "from raykafka.log import reader\n"},
            ["log may not import log.reader", "files import one another"],
        ),
        (
            {
                "front/session.py": "from raykafka.front import listener\n",
                "front/listener.py": "def later():\n    from raykafka.front.session import Session\n",
            },
            ["files import one another: front.listener -> front.session -> front.listener"],
        ),
        ({"log/segment.py": "import socket\n"}, ["log.segment may never import socket"]),
        ({"log/segment.py": "def later():\n    from asyncio import sleep\n"}, ["log.segment may never import asyncio"]),
        ({"errors.py": "import ray.util\n"}, ["errors may never import ray", "log.log may never import ray"]),
        (
            {"log/log.py": "from raykafka.process.tasks import TaskSet\n"},
            ["log.log may never import asyncio: log.log -> process.tasks -> asyncio"],
        ),
        ({"link/__init__.py": ""}, ["link is in the tree and not in the table"]),
        ({"front/api/__init__.py": ""}, ["front.api is in the tree and not in the table"]),
        ({"types.py": ""}, ["types is in the tree and not in the table"]),
        ({"log/reader.py": None}, ["log.reader is in the table and not in the tree"]),
    ],
    ids=[
        *("nothing", "package", "types only", "in a function", "relative", "by name", "root", "module", "circle"),
        *("socket", "asyncio", "ray", "through others", "new package", "new inner package", "new module", "gone"),
    ],
)
def test_each_kind_of_violation_is_found(planted: dict[str, str | None], said: list[str], tmp_path: Path) -> None:
    root = tmp_path / "raykafka"
    for name, text in {**FILES, **planted}.items():
        if text is not None:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    found = violations(Tree(root), read_table(TABLE, TITLE))
    assert bool(found) == bool(said)
    for line in said:
        assert any(line in violation for violation in found), found
