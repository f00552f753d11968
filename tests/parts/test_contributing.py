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

from kio.schema.describe_client_quotas.v1.request import ComponentData, DescribeClientQuotasRequest
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
for kinds in ((), ("user", "client-id"), ("ip", "ip"), ("host",)):
    asked = tuple(ComponentData(entity_type=kind, match_type=2, match=None) for kind in kinds)
    body = io.BytesIO()
    entity_writer(DescribeClientQuotasRequest)(body, DescribeClientQuotasRequest(components=asked, strict=False))
    context = RequestContext(48, 1, 1, "test", ClientSession("127.0.0.1", "INSIDE"))
    buffers = asyncio.run(dispatch.serve(gate, None, context, memoryview(body.getvalue())))
    answer = decode_response(48, 1, b"".join(buffers))
    print(answer.error_code.name, answer.error_message, answer.entries)
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
    chosen = "DescribeClientQuotas or not test_who_may_do_nothing_is_refused_by_every_api"
    done = run(copy, sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", chosen, *tests)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    refused = re.findall(r"refused_by_every_api\[(DescribeClientQuotas-\d)\] PASSED", done.stdout)
    assert sorted(refused) == ["DescribeClientQuotas-0", "DescribeClientQuotas-1"]


def test_the_example_is_in_order(copy: Path) -> None:
    for check in (("check",), ("format", "--check")):
        done = run(copy, sys.executable, "-m", "ruff", *check, "raykafka/front/api")
        assert done.returncode == 0, done.stdout


def test_the_example_answers(copy: Path) -> None:
    done = run(copy, sys.executable, "-c", ASK)
    assert done.returncode == 0, done.stderr
    *answers, package = done.stdout.splitlines()
    assert answers == [
        "none None ()",
        "none None ()",
        "invalid_request a type of entity is named twice None",
        "unsupported_version a type of entity that has no quotas None",
    ]
    assert Path(package).is_relative_to(copy)


def test_an_example_that_declares_nothing_is_found_out(copy: Path) -> None:
    module = copy / "raykafka" / "front" / "api" / "describe_client_quotas.py"
    code = module.read_text()
    try:
        module.write_text(code.replace("NEEDS = (acl.DESCRIBE_CLUSTER_CONFIGS,)\n", ""))
        done = run(copy, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_gate.py")
        assert done.returncode != 0 and "NEEDS is missing" in done.stdout
    finally:
        module.write_text(code)
