"""The upper bound of a log's recovery point after a truncation, until a flush has reached that point again.

The broker's file of recovery points is some seconds old. A log that was cut below what that file says, written on, and
then lost with the page cache would be trusted up to there, though nothing behind the cut was flushed. So a cut leaves a
file of its own before anything is written behind it: ``recovery-bound`` holds a format number and an offset.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from raykafka.log.files import read_file
from raykafka.process.durable import write_whole

BOUND_FILE = "recovery-bound"
_FORMAT = "0"


class RecoveryBound:
    """The bound of one log. Methods raise OSError, and ValueError for a file that is none."""

    def __init__(self, directory: Path) -> None:
        self._path = f"{directory}/{BOUND_FILE}"
        self._until: int | None = None

    def limit(self, told: int) -> int:
        """The recovery point to go by, where the broker's file says ``told``: no higher than the bound."""
        content = read_file(self._path)
        if content is None:
            return told
        version, offset = content.decode().split()
        if version != _FORMAT:
            raise ValueError(f"{self._path} has the unknown format {version}")
        self._until = told
        return min(told, int(offset))

    def lower(self, told: int, flushed_to: int) -> None:
        """The log is flushed up to ``flushed_to`` only, and the broker's file may say ``told``: write the bound."""
        if flushed_to < told:
            write_whole(Path(self._path), f"{_FORMAT}\n{flushed_to}\n".encode())
            self._until = max(told, self._until or 0)

    def flushed(self, recovery_point: int) -> None:
        """The log is flushed up to ``recovery_point``: remove a bound that this reaches. If the file can't be removed,
        the next recovery takes longer."""
        if self._until is not None and recovery_point >= self._until:
            self._until = None
            with suppress(OSError):
                os.unlink(self._path)
