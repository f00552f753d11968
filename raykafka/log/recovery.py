"""What a log does before it can be written again: find its segments, cut a torn tail, make indexes and producer state
anew.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log.batch import BatchHeader, iter_records
from raykafka.log.batch_layout import NO_PRODUCER_ID
from raykafka.log.compression import UnreadableRecords
from raykafka.log.config import LogConfig
from raykafka.log.epochs import LeaderEpochs
from raykafka.log.files import (
    DELETED,
    INDEX,
    LOG,
    SEGMENT_SUFFIXES,
    TIME_INDEX,
    TRANSACTION_INDEX,
    offset_name,
    offset_of_name,
)
from raykafka.log.producers import ProducerStates, snapshots_among
from raykafka.log.recovery_bound import RecoveryBound
from raykafka.log.seal import SEAL_FILE, indexes_that_do_not_fit, read_seal
from raykafka.log.segment import Segment, walk_headers
from raykafka.log.segments import Segments

_logger = logging.getLogger(__name__)

_ABORT, _COMMIT = 0, 1


class Recovered(NamedTuple):
    """What a log was found to be. ``bytes_cut``: of a torn tail; ``note``: what the last writer left in the seal, None
    without an intact one."""

    log_start_offset: int
    log_end_offset: int
    recovery_point: int
    bytes_cut: int
    note: Mapping[str, Any] | None


class RecoveredSegments(NamedTuple):
    """Where the sound batches end, and how many bytes behind them were cut."""

    log_end_offset: int
    bytes_cut: int


def recover(
    directory: Path,
    config: LogConfig,
    segments: Segments,
    epochs: LeaderEpochs,
    producers: ProducerStates,
    bound: RecoveryBound,
    *,
    log_start_offset: int,
    recovery_point: int,
    now_ms: int,
) -> Recovered:
    """Take a log's seal away and bring its files, and what is kept of them in memory, to one and the same log end.

    ``recovery_point`` is the offset below which the caller knows everything to be flushed; nothing starts below
    ``log_start_offset``. Raises OSError, ValueError for a file of unknown form, KafkaError.
    """
    names = set(os.listdir(directory))
    seal = read_seal(directory, names)
    if SEAL_FILE in names:
        os.unlink(f"{directory}/{SEAL_FILE}")  # it opens the log for one writer only
    told, recovery_point = recovery_point, bound.limit(recovery_point)
    if seal is not None:
        recovery_point = seal.recovery_point
    tidy(directory, names)
    wrong = set() if seal is None else indexes_that_do_not_fit(seal, directory, names)
    bytes_cut = 0
    if seal is not None and not wrong:
        segments.take(seal.states, names, config, now_ms)
        end = seal.log_end_offset
    else:
        # A closed log is whole; the batches behind the last index entry are read all the same.
        trusted_below = 2**62 if seal is not None else recovery_point
        end, bytes_cut = recover_segments(segments, directory, names - wrong, config, epochs, trusted_below, now_ms)
    if not segments or end < log_start_offset:
        segments.drop_behind(-1, now_ms)
        # the first segment of a log gets its files with its first record; a start behind 0 is known by its name
        segments.begin(log_start_offset, config, now_ms, with_files=log_start_offset > 0)
        end = log_start_offset
    first = segments[0].base_offset
    log_start_offset = max(log_start_offset, first)
    recovery_point = max(min(recovery_point, end), first)
    if seal is not None and seal.boot is not None:
        segments.taken_unflushed(recovery_point)
    bound.lower(told, recovery_point)
    epochs.forget_beyond(end)
    epochs.truncate_from_start(log_start_offset)
    snapshots = snapshots_among(names)
    if seal is not None and seal.log_end_offset == end and not seal.producers:
        producers.clear(end)
    elif snapshots or end > log_start_offset:
        rebuild_producers(producers, segments, log_start_offset, end)
    else:
        producers.clear(end)
    if len(snapshots) > 1:
        producers.keep_snapshots(segments.bases)
    segments.rest(active=True, unsynced=True)
    note = seal.note if seal is not None and seal.log_end_offset == end else None
    return Recovered(log_start_offset, end, recovery_point, bytes_cut, note)


def tidy(directory: Path, names: Collection[str]) -> None:
    """Remove what a stopped process left half done: files marked as deleted, unfinished ones, indexes without a
    segment.
    """
    for name in names:
        orphan = (
            name.endswith((INDEX, TIME_INDEX, TRANSACTION_INDEX))
            and offset_of_name(name) is not None
            and name.partition(".")[0] + LOG not in names
        )
        if orphan or name.endswith((DELETED, ".cleaned", ".tmp")):
            (directory / name).unlink()


def segment_offsets(names: Iterable[str]) -> list[int]:
    """The base offsets of the segments among the files of a log, ascending."""
    logs = (name for name in names if name.endswith(LOG))
    return sorted(offset for name in logs if (offset := offset_of_name(name)) is not None)


def recover_segments(
    segments: Segments,
    directory: Path,
    names: Collection[str],
    config: LogConfig,
    epochs: LeaderEpochs,
    recovery_point: int,
    now_ms: int,
) -> RecoveredSegments:
    """Open all segments; check every batch from ``recovery_point`` on and cut what is not whole and sound.

    What comes before was flushed and is taken as it is, but for indexes that cannot be right: those are made again.
    Where an unflushed batch is broken, everything behind it goes too, later segments included: a log has no hole. Nor
    may one arise where a power cut took the end of a segment and left the next one; only compaction makes such gaps. A
    broken batch amid flushed ones is a broken disk, and no reason to drop the good ones behind it: KAFKA_STORAGE_ERROR.
    OSError.
    """
    offsets = segment_offsets(names)
    log_end_offset, bytes_cut = 0, 0
    for number, base_offset in enumerate(offsets):
        if number and base_offset < log_end_offset and not (directory / offset_name(base_offset, LOG)).stat().st_size:
            for suffix in SEGMENT_SUFFIXES:  # begun, but the roll failed
                (directory / offset_name(base_offset, suffix)).unlink(missing_ok=True)
            continue
        segment = segments.open_existing(base_offset, names, config, now_ms)
        next_base = offsets[number + 1] if number + 1 < len(offsets) else None
        if next_base is not None and next_base <= recovery_point and segment.load(next_base):
            log_end_offset = next_base
            continue
        size_before = segment.size
        log_end_offset = base_offset
        for _, header in segment.recover(recovery_point, config.index_interval_bytes):
            log_end_offset = header.last_offset + 1
            epochs.assign_if_newer(header.leader_epoch, header.base_offset)
        unflushed_gap = next_base is not None and max(log_end_offset, recovery_point) < next_base
        if segment.size == size_before and (config.compact or not unflushed_gap):
            if next_base is not None:
                segment.seal_indexes()
            continue
        later = offsets[number + 1 :]
        bytes_later = sum((directory / offset_name(offset, LOG)).stat().st_size for offset in later)
        if bytes_later and log_end_offset < recovery_point:
            raise KafkaError(
                ErrorCode.KAFKA_STORAGE_ERROR,
                f"{directory}: the batch at byte {segment.size} of segment {base_offset} is broken though it was "
                f"flushed, and {bytes_later} bytes of later segments follow; copy the partition from another replica",
            )
        os.ftruncate(segment.fd, segment.size)
        for offset in reversed(later):
            for suffix in SEGMENT_SUFFIXES:
                (directory / offset_name(offset, suffix)).unlink(missing_ok=True)
        bytes_cut = size_before - segment.size + bytes_later
        _logger.warning(
            "%s: cut %d bytes behind offset %d, where no sound batch follows", directory, bytes_cut, log_end_offset
        )
        break
    return RecoveredSegments(log_end_offset, bytes_cut)


def rebuild_producers(producers: ProducerStates, segments: Segments, log_start_offset: int, end_offset: int) -> None:
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
    if start == end_offset:
        return
    for segment, position, header in _batches_from(segments, start):
        if header.producer_id != NO_PRODUCER_ID and header.base_offset >= start:
            commit = None
            if header.is_control:
                commit = marker_of(os.pread(segment.fd, header.size, position))
            producers.take(header, header.base_offset, commit)
    producers.end_offset = end_offset


def _batches_from(segments: Segments, offset: int) -> Iterator[tuple[Segment, int, BatchHeader]]:
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
