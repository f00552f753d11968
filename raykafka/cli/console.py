"""The terminal of a command: its own lines go there; what libraries and Ray's processes print goes to a log file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table


def print_table(table: Table) -> None:
    """Print to standard output; unfolded and whole where that is not a terminal."""
    Console(highlight=False, soft_wrap=True).print(table)


@contextmanager
def quiet_terminal(log_path: Path) -> Iterator[Console]:
    """A console on the real standard output, while file descriptors 1 and 2 lead to ``log_path``."""
    log_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    try:
        with os.fdopen(os.dup(kept[0]), "w") as terminal:
            yield Console(file=terminal, highlight=False, soft_wrap=True)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, target in zip(kept, (1, 2), strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
