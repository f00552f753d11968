"""Processes start quickly: what they import is what they need."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "raykafka.broker.broker",
        "raykafka.controller.actor",
        "raykafka.coordinator.actor",
        "raykafka.replica_actor.actor",
    ],
)
def test_no_process_imports_what_only_tests_need(module: str) -> None:
    """kio would import hypothesis, which is installed here."""
    look = f"import sys, {module}; print(sorted({{'hypothesis', 'pytest'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


_API_PACKAGES = ["raykafka.broker.api", "raykafka.controller.api", "raykafka.coordinator.api", "raykafka.front.api"]


@pytest.mark.parametrize(
    ("made", "served"),
    [
        ("from raykafka.coordinator.actor import gate; gate()", ["raykafka.coordinator.api"]),
        ("from raykafka.controller.actor import gate; gate()", ["raykafka.controller.api"]),
        ("import raykafka.replica_actor.actor", _API_PACKAGES),
        (
            "from raykafka.broker.broker import Broker; Broker(lambda settings: None)",
            ["raykafka.broker.api", "raykafka.controller.api"],
        ),
    ],
    ids=["coordinator", "controller", "replica", "broker"],
)
def test_a_process_loads_the_apis_that_it_serves_or_forwards_and_no_others(made: str, served: list[str]) -> None:
    look = f"import sys; {made}; print(sorted(name for name in sys.modules if name in {_API_PACKAGES}))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, f"{served}\n"), done.stderr
