"""The seal on a log that was closed: it says what the log is, so that it can be trusted, and opened without being read.

Whoever opens the log to write takes the seal away first. A log without one was not closed; one whose files are not what
its seal says was written after it, and its seal counts for nothing. A log that was closed without being flushed has a
seal for the boot in which that was: what is only in the page cache goes with it.

The file ``seal`` holds a line ``<format> <CRC-32 of the rest, hex>`` and a line of JSON.
"""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raykafka.log.files import INDEX, LOG, TIME_INDEX, offset_name, offset_of_name, read_file, write_all
from raykafka.log.lock import boot_id
from raykafka.log.segment import SegmentState
from raykafka.process.durable import sync_directory

SEAL_FILE = "seal"
_FORMAT = "2"


class LogSeal(NamedTuple):
    """``recovery_point``: up to where the log was flushed. ``boot``: the id of the boot that the seal is for, None
    where all of the log is flushed. ``producers``: how many it knows; their snapshot is at the log end. ``note``
    belongs to the one who closed the log."""

    topic_id: uuid.UUID
    log_start_offset: int
    log_end_offset: int
    recovery_point: int
    boot: str | None
    producers: int
    states: tuple[SegmentState, ...]
    note: Mapping[str, Any]

    @property
    def segments(self) -> tuple[int, ...]:
        """The base offsets of all segments, ascending."""
        return tuple(state.base_offset for state in self.states)


def write_seal(directory: Path, seal: LogSeal) -> None:
    """Put the seal into ``directory``. One that is not for this boot only is durable when this returns, and so are all
    names in the directory. Raises OSError.

    One that is torn by a crash counts for nothing.
    """
    values = {**seal._asdict(), "topic_id": str(seal.topic_id), "note": dict(seal.note)}
    text = json.dumps(values).encode()
    fd = os.open(f"{directory}/{SEAL_FILE}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        write_all(fd, b"%s %08x\n%s\n" % (_FORMAT.encode(), zlib.crc32(text), text), 0)
        if seal.boot is None:
            os.fsync(fd)
    finally:
        os.close(fd)
    if seal.boot is None:
        sync_directory(directory)


def read_seal(directory: Path, names: Collection[str] | None = None) -> LogSeal | None:
    """The intact seal of the log in ``directory``; None where there is none, or the log is not what it says, or the
    machine was booted since. ``names``: of the files there, if they are known."""
    content = read_file(f"{directory}/{SEAL_FILE}")
    if content is None:
        return None
    head, _, text = content.rstrip(b"\n").partition(b"\n")
    if head != b"%s %08x" % (_FORMAT.encode(), zlib.crc32(text)):
        return None
    values = json.loads(text)
    values["topic_id"] = uuid.UUID(values["topic_id"])
    values["states"] = tuple(SegmentState(*state) for state in values["states"])
    seal = LogSeal(**values)
    if seal.boot is not None and seal.boot != boot_id():
        return None
    return seal if _is_of(seal, directory, os.listdir(directory) if names is None else names) else None


def _is_of(seal: LogSeal, directory: Path, names: Collection[str]) -> bool:
    """Whether the ``.log`` files are those of the seal, and of its sizes. A log that was never written has none."""
    expected = {offset_name(state.base_offset, LOG): state.size for state in seal.states}
    found = {name for name in names if name.endswith(LOG) and offset_of_name(name) is not None}
    if not found:
        return len(expected) == 1 and not seal.states[0].size
    return found == expected.keys() and all(
        os.stat(f"{directory}/{name}").st_size == size for name, size in expected.items()
    )


def indexes_that_do_not_fit(seal: LogSeal, directory: Path, names: Collection[str]) -> set[str]:
    """The names of the segments' indexes that have not the sizes that the seal says, or are missing. OSError."""
    wrong = set()
    for state in seal.states:
        for suffix, size in ((INDEX, state.index_bytes), (TIME_INDEX, state.time_index_bytes)):
            name = offset_name(state.base_offset, suffix)
            if (os.stat(f"{directory}/{name}").st_size if name in names else 0) != size:
                wrong.add(name)
    return wrong
