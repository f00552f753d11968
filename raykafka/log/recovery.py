"""What a log does before it can be written again: find its segments, cut a torn tail, make indexes and producer state
anew.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from raykafka.log.batch import NO_PRODUCER_ID, BatchHeader, iter_records
from raykafka.log.compression import UnreadableRecords
from raykafka.log.epochs import LeaderEpochs
from raykafka.log.files import DELETED, INDEX, LOG, TIME_INDEX, TRANSACTION_INDEX, offset_of_name
from raykafka.log.producers import ProducerStates
from raykafka.log.segment import Segment, walk_headers

_logger = logging.getLogger(__name__)

_ABORT, _COMMIT = 0, 1


class Recovered(NamedTuple):
    segments: list[Segment]
    log_end_offset: int
    bytes_cut: int


def tidy(directory: Path) -> None:
    """Remove what a stopped process left half done: files marked as deleted, unfinished ones, indexes without a
    segment.
    """
    names = set(os.listdir(directory))
    for name in names:
        orphan = (
            name.endswith((INDEX, TIME_INDEX, TRANSACTION_INDEX))
            and offset_of_name(name) is not None
            and name.partition(".")[0] + LOG not in names
        )
        if orphan or name.endswith((DELETED, ".cleaned", ".tmp")):
            (directory / name).unlink()


def segment_offsets(directory: Path) -> list[int]:
    """The base offsets of the segments in ``directory``, ascending."""
    names = (name for name in os.listdir(directory) if name.endswith(LOG))
    return sorted(offset for name in names if (offset := offset_of_name(name)) is not None)


def recover_segments(
    directory: Path,
    open_segment: Callable[[int], Segment],
    recovery_point: int,
    epochs: LeaderEpochs,
    interval_bytes: int,
) -> Recovered:
    """Open all segments; check every batch from ``recovery_point`` on and cut what is not whole and sound.

    What comes before was flushed and is taken as it is, but for indexes that cannot be right: those are made again.
    Where a batch is broken, everything behind it goes too, later segments included: offsets must not have a hole.
    OSError.
    """
    offsets = segment_offsets(directory)
    segments: list[Segment] = []
    log_end_offset, bytes_cut = 0, 0
    for number, base_offset in enumerate(offsets):
        segment = open_segment(base_offset)
        next_base = offsets[number + 1] if number + 1 < len(offsets) else None
        segments.append(segment)
        if next_base is not None and next_base <= recovery_point and segment.load(next_base):
            log_end_offset = next_base
            continue
        size_before = segment.size
        log_end_offset = base_offset
        for _, header in segment.recover(recovery_point, interval_bytes):
            log_end_offset = header.last_offset + 1
            epochs.assign_if_newer(header.leader_epoch, header.base_offset)
        if segment.size == size_before:
            continue
        bytes_cut = size_before - segment.size
        os.ftruncate(segment.fd, segment.size)
        for later in reversed(offsets[number + 1 :]):
            dropped = open_segment(later)
            bytes_cut += dropped.size
            for path in dropped.mark_deleted():
                path.unlink()
        _logger.warning(
            "%s: cut %d bytes behind offset %d that are no whole, sound batches", directory, bytes_cut, log_end_offset
        )
        break
    return Recovered(segments, log_end_offset, bytes_cut)


def rebuild_producers(
    producers: ProducerStates, segments: list[Segment], log_start_offset: int, end_offset: int
) -> None:
    """Producer state as the batches below ``end_offset`` made it: the newest whole snapshot, and the batches behind
    it. OSError.
    """
    producers.remove_snapshots(above=end_offset)
    for offset in reversed(producers.snapshot_offsets()):
        if producers.load_snapshot(offset):
            break
        _logger.warning("%s is torn, using an older one", producers.snapshot_path(offset))
        producers.snapshot_path(offset).unlink()
    else:
        producers.clear(log_start_offset)
    start = producers.end_offset
    for segment, position, header in _batches_from(segments, start):
        if header.producer_id != NO_PRODUCER_ID and header.base_offset >= start:
            commit = None
            if header.is_control:
                commit = marker_of(os.pread(segment.fd, header.size, position))
            producers.take(header, commit)
    producers.end_offset = end_offset


def _batches_from(segments: list[Segment], offset: int) -> Iterator[tuple[Segment, int, BatchHeader]]:
    for number, segment in enumerate(segments):
        if number + 1 < len(segments) and segments[number + 1].base_offset <= offset:
            continue
        found = segment.position_of(offset)
        if found:
            for position, header in walk_headers(segment.fd, found[0], segment.size):
                yield segment, position, header


def marker_of(control_batch: bytes | memoryview) -> bool | None:
    """Whether a control batch ends its transaction by a commit (True) or an abort (False); None for another kind."""
    try:
        record = next(iter_records(control_batch), None)
    except UnreadableRecords:
        return None
    if record is None or record.key is None or len(record.key) < 4:
        return None
    kind = int.from_bytes(record.key[2:4], "big")
    return {_ABORT: False, _COMMIT: True}.get(kind)
