"""The terminal of a command: its own lines go there; what libraries and Ray's processes print goes to a log file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table

_WIDTH_OF_NO_TERMINAL = 250


def console_on(file: TextIO) -> Console:
    """A console that neither folds nor cuts what is no terminal's."""
    return Console(file=file, highlight=False, soft_wrap=True, width=None if file.isatty() else _WIDTH_OF_NO_TERMINAL)


def count(number: int, what: str) -> str:
    """Such as "1 topic" and "2 topics"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def print_table(table: Table) -> None:
    """Print to standard output."""
    console_on(sys.stdout).print(table)


@contextmanager
def quiet_terminal(log_path: Path) -> Iterator[Console]:
    """A console on the real standard output, while file descriptors 1 and 2 lead to a new ``log_path``.

    Where its folder does not exist or can't be written, what would be logged is dropped.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:
        log = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    try:
        with os.fdopen(os.dup(kept[0]), "w") as terminal:
            yield console_on(terminal)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, target in zip(kept, (1, 2), strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
