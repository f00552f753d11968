"""The seal on a log that was closed: it says what the log is, so that it can be read, and trusted, without a process
(rule 17).

Whoever opens the log to write takes the seal away first. A log without one was not closed; one whose files are not what
its seal says was written after it, and its seal counts for nothing.

The file ``seal`` holds a line ``<format> <CRC-32 of the rest, hex>`` and a line of JSON.
"""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raykafka.log.files import LOG, offset_name, offset_of_name
from raykafka.process.durable import write_whole

SEAL_FILE = "seal"
_FORMAT = "1"


class LogSeal(NamedTuple):
    """``active_bytes`` is the size of the last of ``segments``; ``note`` belongs to the one who closed the log."""

    topic_id: uuid.UUID
    log_start_offset: int
    log_end_offset: int
    segments: tuple[int, ...]
    active_bytes: int
    note: Mapping[str, Any]


def write_seal(directory: Path, seal: LogSeal) -> None:
    """Put the seal into ``directory``; it is durable when this returns. Raises OSError."""
    values = {**seal._asdict(), "topic_id": str(seal.topic_id), "note": dict(seal.note)}
    text = json.dumps(values).encode()
    write_whole(directory / SEAL_FILE, b"%s %08x\n%s\n" % (_FORMAT.encode(), zlib.crc32(text), text))


def read_seal(directory: Path) -> LogSeal | None:
    """The intact seal of the log in ``directory``; None where there is none, or the log is not what it says."""
    try:
        head, _, text = (directory / SEAL_FILE).read_bytes().rstrip(b"\n").partition(b"\n")
    except FileNotFoundError:
        return None
    if head != b"%s %08x" % (_FORMAT.encode(), zlib.crc32(text)):
        return None
    values = json.loads(text)
    seal = LogSeal(**{**values, "topic_id": uuid.UUID(values["topic_id"]), "segments": tuple(values["segments"])})
    names = os.listdir(directory)
    bases = sorted(base for name in names if name.endswith(LOG) and (base := offset_of_name(name)) is not None)
    if tuple(bases) != seal.segments:
        return None
    size = os.stat(directory / offset_name(bases[-1], LOG)).st_size
    return seal if size == seal.active_bytes else None


def take_seal(directory: Path) -> LogSeal | None:
    """``read_seal``, and remove the seal: it opens the log for one writer only."""
    seal = read_seal(directory)
    (directory / SEAL_FILE).unlink(missing_ok=True)
    return seal
