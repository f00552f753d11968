"""A short chaos run on a whole cluster inside Ray: everything that was promised holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import REPOSITORY

FAULTS = 20
SEED = 20


@pytest.mark.timeout(420)
def test_faults_at_random_lose_duplicate_and_reorder_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.lab.chaos", "--faults", str(FAULTS), "--seed", str(SEED)]
    command += ["--minutes", "2.7", "--keep", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    assert done.returncode == 0
    assert "Everything that was promised holds." in done.stdout
