"""What a power cut takes from a broker's disk: bytes of its logs that were written and never flushed.

``Host.power_off`` ends processes and leaves their files whole, since all hosts share the page cache of one machine
that goes on. ``cut_logs`` takes from a powered-off host what its own page cache would have taken with it. Records of
acks=all are safe from that as long as it befalls one replica of a partition at a time, and the next one only when
this one is in sync again: which partitions are cut is for the caller to choose.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from raykafka.broker.identity import CLEAN_SHUTDOWN
from raykafka.broker.partitions.checkpoints import RECOVERY_POINTS, OffsetCheckpoint
from raykafka.log import read_seal
from raykafka.log.files import INDEX, LOG, SEGMENT_SUFFIXES, SNAPSHOT, TIME_INDEX, offset_name, offset_of_name
from raykafka.log.recovery import segment_offsets
from raykafka.log.segment import walk_headers
from raykafka.types import TopicPartition


class Cut(NamedTuple):
    """Where a log was flushed up to, as far as its broker had noted, and what went: ``lost_bytes`` of the
    ``unflushed_bytes`` behind that."""

    flushed_offset: int
    unflushed_bytes: int
    lost_bytes: int


def cut_logs(data_dir: Path, partitions: Iterable[TopicPartition], rng: random.Random) -> dict[TopicPartition, Cut]:
    """Leave of each of ``partitions`` in a broker's data directory what a power cut might have left: everything up to
    the recovery point, and behind it some number of bytes, which need not be whole batches.

    A log that was flushed and closed, or has nothing unflushed, loses nothing. The mark of a clean stop goes: the next
    life of the broker has to find out by itself (rule 18; its host has to have another boot id). Nobody may have the
    files open.
    """
    (data_dir / CLEAN_SHUTDOWN).unlink(missing_ok=True)
    recovery_points = OffsetCheckpoint(data_dir, RECOVERY_POINTS).read()
    cuts = {}
    for tp in sorted(partitions):
        directory = data_dir / f"{tp.topic}-{tp.partition}"
        if not directory.is_dir():
            continue
        seal = read_seal(directory)
        if seal is None or seal.boot is not None:
            cuts[tp] = _cut_log(directory, recovery_points.get(tp, 0), rng)
    return cuts


def _cut_log(directory: Path, flushed_offset: int, rng: random.Random) -> Cut:
    bases = segment_offsets(os.listdir(directory))
    unflushed = []  # (base offset, first byte that may go, size) of each segment that has such a byte
    for number, base in enumerate(bases):
        if number + 1 == len(bases) or bases[number + 1] > flushed_offset:
            path = directory / offset_name(base, LOG)
            size = path.stat().st_size
            unflushed.append((base, _position_of(path, flushed_offset, size), size))
    total = sum(size - start for _, start, size in unflushed)
    kept = rng.randint(0, total)
    left = kept
    for base, start, size in unflushed:
        length = min(size - start, left)
        left -= length
        if start + length == size:
            continue
        if length == 0 and start == 0 and base != bases[0] and rng.random() < 0.5:
            for suffix in SEGMENT_SUFFIXES:  # not even its name got to the disk
                (directory / offset_name(base, suffix)).unlink(missing_ok=True)
            continue
        _cut_segment(directory, base, start + length, size, rng)
    for path in directory.glob(f"*{SNAPSHOT}"):
        if (offset_of_name(path.name) or 0) > flushed_offset:
            os.truncate(path, rng.randint(0, path.stat().st_size))
    return Cut(flushed_offset, total, total - kept)


def _cut_segment(directory: Path, base: int, end: int, size: int, rng: random.Random) -> None:
    """The file's length may have got to the disk before the bytes at its end: then these are zeros. What is on the
    disk of the indexes of an unflushed segment has nothing to do with what is there of its records."""
    path = directory / offset_name(base, LOG)
    os.truncate(path, end)
    if rng.random() < 0.25:
        os.truncate(path, rng.randint(end, size))
    for suffix in (INDEX, TIME_INDEX):
        index = directory / offset_name(base, suffix)
        if index.exists():
            os.truncate(index, rng.randint(0, index.stat().st_size))


def _position_of(path: Path, offset: int, size: int) -> int:
    """Where the first batch that ends at or behind ``offset`` starts in a segment file; its whole batches' end where
    none does."""
    position = 0
    with path.open("rb") as file:
        for position, header in walk_headers(file.fileno(), 0, size):
            if header.last_offset >= offset:
                return position
            position = position + header.size
    return position
