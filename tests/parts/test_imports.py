"""Processes start quickly: what they import is what they need."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["raykafka.broker.broker", "raykafka.controller.actor", "raykafka.coordinator.actor"]
)
def test_no_process_imports_what_only_tests_need(module: str) -> None:
    """kio would import hypothesis, which is installed here."""
    look = f"import sys, {module}; print(sorted({{'hypothesis', 'pytest'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
