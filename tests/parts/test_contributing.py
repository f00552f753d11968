"""CONTRIBUTING.md's worked example, saved as it says in a copy of this repository, passes the tests that it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "CONTRIBUTING.md"
TESTS = ("test_registry", "test_gate", "test_walls", "test_docs")

# Asks the copy, as a client would whose request has passed the gate.
ASK = """
import asyncio, io
from types import SimpleNamespace

from kio.schema.list_config_resources.v1.request import ListConfigResourcesRequest
from kio.serial import entity_writer

import raykafka
from raykafka.front import api
from raykafka.protocol import dispatch
from raykafka.protocol.context import RequestContext
from raykafka.protocol.gate import Gate
from raykafka.protocol.registry import Registry
from raykafka.protocol.session import ClientSession
from tests.lab.dataplane import decode_response

gate = Gate(Registry(api))
server = SimpleNamespace(image=SimpleNamespace(brokers={0: None}, topics={"flights": None}))
for types in ((), (4,), (2, 16), (5,)):
    body = io.BytesIO()
    entity_writer(ListConfigResourcesRequest)(body, ListConfigResourcesRequest(resource_types=types))
    context = RequestContext(74, 1, 1, "test", ClientSession("127.0.0.1", "INSIDE"))
    buffers = asyncio.run(dispatch.serve(gate, server, context, memoryview(body.getvalue())))
    answer = decode_response(74, 1, b"".join(buffers))
    print(answer.error_code.name, *((r.resource_type, r.resource_name) for r in answer.config_resources))
print(raykafka.__file__)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with the example in it: the one Python block of the page, at the path named above it."""
    page = PAGE.read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (path,) = re.findall(r"saved as \*\*(raykafka/front/api/\w+\.py)\*\*", page)
    folder = tmp_path_factory.mktemp("contributed") / "raykafka"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist")
    shutil.copytree(ROOT, folder, ignore=ignored, symlinks=True)
    there = folder / path
    assert not there.exists(), "the example is served already: choose another"
    there.write_text(code)
    return folder


def run(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)


def test_the_example_passes_the_tests_of_registry_gate_walls_and_documentation(copy: Path) -> None:
    """Of the tests that go over every API in every version, those of the example."""
    tests = [f"tests/unit/{name}.py" for name in TESTS]
    chosen = "ListConfigResources or not test_who_may_do_nothing_is_refused_by_every_api"
    done = run(copy, sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", chosen, *tests)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    refused = re.findall(r"refused_by_every_api\[(ListConfigResources-\d)\] PASSED", done.stdout)
    assert sorted(refused) == ["ListConfigResources-0", "ListConfigResources-1"]


def test_the_example_is_in_order(copy: Path) -> None:
    for check in (("check",), ("format", "--check")):
        done = run(copy, sys.executable, "-m", "ruff", *check, "raykafka/front/api")
        assert done.returncode == 0, done.stdout


def test_the_example_answers(copy: Path) -> None:
    done = run(copy, sys.executable, "-c", ASK)
    assert done.returncode == 0, done.stderr
    *answers, package = done.stdout.splitlines()
    assert answers == [
        "none (2, 'flights') (4, '0') (8, '0')",
        "none (4, '0')",
        "none (2, 'flights')",
        "unsupported_version",
    ]
    assert Path(package).is_relative_to(copy)


def test_an_example_that_declares_nothing_is_found_out(copy: Path) -> None:
    module = copy / "raykafka" / "front" / "api" / "list_config_resources.py"
    code = module.read_text()
    try:
        module.write_text(code.replace("NEEDS = (acl.DESCRIBE_CLUSTER_CONFIGS,)\n", ""))
        done = run(copy, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_gate.py")
        assert done.returncode != 0 and "NEEDS is missing" in done.stdout
    finally:
        module.write_text(code)
