"""What the replicas' files hold after a run, and whether they are equal below the high watermark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from raykafka.epoch_history import EpochHistory
from raykafka.log.batch import BatchHeader, crc_of, iter_batches, iter_records
from raykafka.log.epochs import read_entries
from tests.lab.chaos.history import unpack_value


class StoredRecord(NamedTuple):
    """``who`` is (writer, number), None when the value is nobody's."""

    offset: int
    who: tuple[str, int] | None
    key: str


class Batch(NamedTuple):
    header: BatchHeader
    data: memoryview


def batches(directory: Path, below: int) -> Iterator[Batch]:
    """The batches of a partition's directory that lie below offset ``below``, in order."""
    for path in sorted(directory.glob("*.log")):
        data = memoryview(path.read_bytes())
        for position, header in iter_batches(data):
            if header.last_offset >= below:
                return
            yield Batch(header, data[position : position + header.size])


def differences(directories: Mapping[int, Path], high_watermark: int) -> list[str]:
    """Where the replicas of one partition (broker -> directory) are not byte for byte the same below the high
    watermark, or a batch's CRC is wrong, or offsets are missing: a line for each replica's first fault."""
    logs = {broker: list(batches(directory, high_watermark)) for broker, directory in sorted(directories.items())}
    found, truth = [], None
    for broker, log in logs.items():
        faults = _faults(directories[broker], log, high_watermark)
        if not faults and truth is None:
            truth = broker
        elif not faults and truth is not None:
            differing = (
                n for n, pair in enumerate(zip(logs[truth], log, strict=False)) if pair[0].data != pair[1].data
            )
            at = next(differing, None)
            if at is not None:
                offset = log[at].header.base_offset
                faults = [f"{directories[broker]}: differs from broker {truth}'s in the batch at offset {offset}"]
            elif len(logs[truth]) != len(log):
                faults = [f"{directories[broker]}: {len(log)} batches, broker {truth} has {len(logs[truth])}"]
        found += faults
    return found


def _faults(directory: Path, log: Sequence[Batch], high_watermark: int) -> list[str]:
    expected = log[0].header.base_offset if log else 0
    for header, data in log:
        if header.base_offset != expected:
            return [f"{directory}: offset {header.base_offset} follows where {expected} comes next"]
        if crc_of(data, 0, header.size) != header.crc:
            return [f"{directory}: the batch at offset {header.base_offset} has a wrong CRC"]
        expected = header.last_offset + 1
    if expected < high_watermark:
        return [f"{directory}: the log ends at {expected}, the high watermark is {high_watermark}"]
    return []


def records(directory: Path, high_watermark: int) -> list[StoredRecord]:
    """Every record below the high watermark."""
    return [
        StoredRecord(record.offset, unpack_value(record.value), (record.key or b"").decode(errors="replace"))
        for _, data in batches(directory, high_watermark)
        for record in iter_records(data)
    ]


def epochs(directory: Path) -> EpochHistory:
    """Which leader epoch began at which offset."""
    return read_entries(directory)
