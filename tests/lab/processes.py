"""Which process writes a directory, and whether a process still runs."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil


def holder(directory: Path) -> psutil.Process:
    """The process whose pid is in the lock of ``directory``, which a broker or a replica holds. Raises OSError,
    IndexError or ValueError where nobody has written one, and psutil.NoSuchProcess where its writer has ended."""
    return psutil.Process(int((directory / ".lock").read_text().split()[0]))


def running_holder(directory: Path) -> psutil.Process | None:
    """``holder`` where there is one that runs."""
    with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
        process = holder(directory)
        return process if runs(process) else None
    return None


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended; a zombie has."""
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
