"""Reading a log that another process writes (rules 20 and 21): nothing here writes, and nothing is trusted but whole
batches.

The writer says what there is (``update``) and how far may be read (the ``end`` of each call). A reader keeps only
caches: open files, and where recent readers will go on.
"""

from __future__ import annotations

import errno
import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from raykafka.epoch_history import EpochEntry
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, RaykafkaError
from raykafka.log.batch import BatchHeader, Record, iter_records
from raykafka.log.compression import UnreadableRecords
from raykafka.log.epochs import read_entries
from raykafka.log.files import INDEX, LOG, TIME_INDEX, offset_name
from raykafka.log.index import OFFSET_ENTRY, TIME_ENTRY, Entry, Pread, floor_entry
from raykafka.log.segment import walk_headers
from raykafka.types import LogPosition

_OPEN_SEGMENTS = 16
_REMEMBERED_POSITIONS = 256


class WouldBlock(RaykafkaError):
    """The pages asked for are not in memory: read again in a thread, without ``nowait``."""


class StaleRange(RaykafkaError):
    """The log was cut since the range was found: find it again."""


class SegmentFiles:
    """A segment's files, opened for reading when they are needed, closed when nobody refers to them any more."""

    def __init__(self, directory: Path, base_offset: int) -> None:
        self._directory = directory
        self.base_offset = base_offset
        self._fds: list[int] = []
        self.fd = self._open(LOG)
        self.used = True
        self._final_size = -1

    def _open(self, suffix: str) -> int:
        fd = os.open(self._directory / offset_name(self.base_offset, suffix), os.O_RDONLY | os.O_CLOEXEC)
        self._fds.append(fd)
        return fd

    @cached_property
    def index_fd(self) -> int:
        return self._open(INDEX)

    @cached_property
    def time_fd(self) -> int:
        return self._open(TIME_INDEX)

    def size_when_rolled(self) -> int:
        """The size of a segment that is not written any more."""
        if self._final_size < 0:
            self._final_size = os.fstat(self.fd).st_size
        return self._final_size

    def __del__(self) -> None:
        for fd in self._fds:
            os.close(fd)


class FileRange:
    """Whole batches in a file: ``length`` bytes at ``position`` of ``fd``, which stays open as long as the range is
    kept. ``next_offset`` is the offset after their last record, -1 where it was not looked up.
    """

    __slots__ = ("files", "length", "next_offset", "position", "truncations")

    def __init__(
        self, files: SegmentFiles, position: int, length: int, truncations: int, next_offset: int = -1
    ) -> None:
        self.files = files
        self.position = position
        self.length = length
        self.truncations = truncations
        self.next_offset = next_offset

    @property
    def fd(self) -> int:
        return self.files.fd


class FoundOffset(NamedTuple):
    timestamp: int
    offset: int
    leader_epoch: int


class _View(NamedTuple):
    """What the writer last said, with the caches that hold for it. Replaced whole, so that a thread sees one or the
    other.
    """

    segments: tuple[int, ...]
    truncations: int
    files: dict[int, SegmentFiles]
    positions: dict[int, LogPosition]


def _pread_nowait(fd: int, length: int, position: int) -> bytes:
    buffer = bytearray(length)
    got = _preadv_nowait(fd, buffer, position)
    return bytes(buffer[:got]) if got != length else bytes(buffer)


def _preadv_nowait(fd: int, buffer: bytearray | memoryview, position: int) -> int:
    try:
        return os.preadv(fd, [buffer], position, os.RWF_NOWAIT)
    except BlockingIOError:
        raise WouldBlock("a cold page") from None
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # this file system cannot tell
            raise WouldBlock("RWF_NOWAIT is not supported here") from None
        raise


class LogReader:
    """Reads one partition's log. Any thread may call; ``update`` only one at a time.

    Methods take ``nowait``: then WouldBlock is raised rather than wait for the disk. A segment whose files are gone
    (retention passed over it meanwhile) is OFFSET_OUT_OF_RANGE; other errors of the disk are KAFKA_STORAGE_ERROR.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = Path(directory)
        self._view = _View((), -1, {}, {})

    @property
    def truncations(self) -> int:
        return self._view.truncations

    def update(self, segments: tuple[int, ...] | None, truncations: int) -> None:
        """The writer's segments (None: as before) and how often it has cut its log."""
        old = self._view
        if truncations != old.truncations:
            self._view = _View(old.segments if segments is None else segments, truncations, {}, {})
        elif segments is not None and segments != old.segments:
            kept = set(segments)
            files = {base: files for base, files in old.files.items() if base in kept}
            positions = {offset: at for offset, at in old.positions.items() if at.segment in kept}
            self._view = _View(segments, truncations, files, positions)

    def close(self) -> None:
        """Close the files. Ranges that were handed out stay readable."""
        self._view = _View((), -1, {}, {})

    def rest(self) -> None:
        """Close the files that no read has used since the last call, so that a log that nobody reads holds none. To be
        called at intervals, by whoever calls ``update``. Ranges that were handed out stay readable.
        """
        view = self._view
        if view.files:
            used = {base: files for base, files in view.files.copy().items() if files.used}
            for files in used.values():
                files.used = False
            self._view = view._replace(files=used)

    # ranges of records

    def read(
        self,
        offset: int,
        max_bytes: int,
        end: LogPosition,
        *,
        min_one_batch: bool = True,
        end_offset: int = -1,
        nowait: bool = False,
    ) -> FileRange | None:
        """Whole batches from the one that covers ``offset`` on, in one segment, below ``end``: at most ``max_bytes``,
        or one larger batch with ``min_one_batch``. None: nothing there.

        ``end_offset``, when the caller knows which offset ``end`` stands for, lets readers at the end of the log go
        on without a search. Raises OFFSET_OUT_OF_RANGE below the first segment.
        """
        view = self._view
        pread = _pread_nowait if nowait else os.pread
        try:
            at = view.positions.get(offset) or self._locate(view, offset, end, pread)
            if at is None:
                return None
            at, limit = self._skip_to_data(view, at, end)
            position, available = at.position, limit - at.position
            if available <= 0:
                return None
            files = self._files(view, at.segment)
            if available <= max_bytes:
                length = available
                if at.segment != end.segment:
                    number = bisect_right(view.segments, at.segment)
                    next_offset = view.segments[number] if number < len(view.segments) else -1
                else:
                    next_offset = end_offset
                    if end_offset >= 0:
                        _remember(view, end_offset, end)
            else:
                length, next_offset = self._whole_batches(view, files, position, limit, max_bytes, min_one_batch, pread)
                if not length:
                    return None
            return FileRange(files, position, length, view.truncations, next_offset)
        except OSError as error:
            raise _storage_error(self._directory, error) from error

    def fetch_bytes(self, range_: FileRange, nowait: bool = False) -> memoryview:
        """The bytes of a range. Raises WouldBlock (with ``nowait``), StaleRange, KAFKA_STORAGE_ERROR."""
        buffer = bytearray(range_.length)
        view, done = memoryview(buffer), 0
        try:
            while done < range_.length:
                if nowait:
                    got = _preadv_nowait(range_.fd, view[done:], range_.position + done)
                else:
                    got = os.preadv(range_.fd, [view[done:]], range_.position + done)
                if got == 0:
                    raise StaleRange("the file ends before the range")
                done += got
        except OSError as error:
            raise _storage_error(self._directory, error) from error
        if range_.truncations != self._view.truncations:
            raise StaleRange("the log was cut while it was read")
        return view

    def _locate(self, view: _View, offset: int, end: LogPosition, pread: Pread) -> LogPosition | None:
        number = bisect_right(view.segments, offset) - 1
        if number < 0:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, f"offset {offset} is before the first segment")
        for base in view.segments[number:]:
            if base > end.segment or (base == end.segment and not end.position):
                break  # a log that was never written has no files
            files = self._files(view, base)
            start = _index_floor(files.index_fd, OFFSET_ENTRY, offset - base, pread)
            limit = end.position if base == end.segment else files.size_when_rolled()
            for position, header in walk_headers(files.fd, start[1] if start else 0, limit, pread):
                if header.last_offset >= offset:
                    return LogPosition(base, position)
        return None

    def _skip_to_data(self, view: _View, at: LogPosition, end: LogPosition) -> tuple[LogPosition, int]:
        """``at``, or the start of a later segment if ``at`` is the end of its own; and where that segment's data
        ends.
        """
        while at.segment < end.segment:
            limit = self._files(view, at.segment).size_when_rolled()
            number = bisect_right(view.segments, at.segment)
            if at.position < limit or number == len(view.segments):
                return at, limit
            at = LogPosition(view.segments[number], 0)
        return at, end.position if at.segment == end.segment else at.position

    def _whole_batches(
        self,
        view: _View,
        files: SegmentFiles,
        position: int,
        limit: int,
        max_bytes: int,
        min_one_batch: bool,
        pread: Pread,
    ) -> tuple[int, int]:
        """Bytes of the whole batches at ``position`` within ``max_bytes`` and the offset behind them, which it
        remembers."""
        start, stop = position, position + max_bytes
        entry = _index_floor(files.index_fd, OFFSET_ENTRY, stop, pread, column=1)
        if entry and entry[1] > position:
            position = entry[1]
        next_offset = -1
        for at, header in walk_headers(files.fd, position, limit, pread):
            if at + header.size > stop:
                if at > start:
                    next_offset = header.base_offset
                elif min_one_batch:
                    at, next_offset = at + header.size, header.last_offset + 1
                position = at
                break
            position, next_offset = at + header.size, header.last_offset + 1
        if next_offset >= 0:
            _remember(view, next_offset, LogPosition(files.base_offset, position))
        return position - start, next_offset

    def _files(self, view: _View, base: int) -> SegmentFiles:
        files = view.files.get(base)
        if files is None:
            files = SegmentFiles(self._directory, base)
            if len(view.files) >= _OPEN_SEGMENTS:
                view.files.pop(next(iter(view.files)), None)
            view.files[base] = files
        files.used = True
        return files

    # offsets by time and epoch

    def offset_for_timestamp(
        self, timestamp_ms: int, end: LogPosition, log_start: int, *, nowait: bool = False
    ) -> FoundOffset | None:
        """The first record at or behind ``log_start``, below ``end``, whose timestamp is at least ``timestamp_ms``."""
        view, pread = self._view, _pread_nowait if nowait else os.pread
        try:
            for files, limit in self._segments_from(view, log_start, end):
                if files.base_offset < end.segment:
                    last = _last_time(files.time_fd, pread)
                    if last and last[0] < timestamp_ms:
                        continue
                start = self._start_for_time(files, timestamp_ms, log_start, pread)
                for position, header in walk_headers(files.fd, start, limit, pread):
                    if header.max_timestamp >= timestamp_ms and header.last_offset >= log_start:
                        found = _first_record(files.fd, position, header, timestamp_ms, log_start, pread)
                        if found:
                            return found
        except OSError as error:
            raise _storage_error(self._directory, error) from error
        return None

    def offset_of_max_timestamp(self, end: LogPosition, log_start: int, *, nowait: bool = False) -> FoundOffset | None:
        """The first of the records with the largest timestamp at or behind ``log_start`` and below ``end``."""
        view, pread = self._view, _pread_nowait if nowait else os.pread
        best: tuple[int, SegmentFiles, int] | None = None
        try:
            for files, limit in self._segments_from(view, log_start, end):
                if files.base_offset < log_start:
                    largest = _largest_timestamp_from(log_start, files, limit, pread)
                else:
                    largest = _largest_timestamp(files, limit, files.base_offset < end.segment, pread)
                if largest >= 0 and (best is None or largest > best[0]):
                    best = (largest, files, limit)
            if best is None:
                return None
            largest, files, limit = best
            start = self._start_for_time(files, largest, log_start, pread)
            for position, header in walk_headers(files.fd, start, limit, pread):
                if header.max_timestamp >= largest and header.last_offset >= log_start:
                    found = _first_record(files.fd, position, header, largest, log_start, pread)
                    if found:
                        return found
        except OSError as error:
            raise _storage_error(self._directory, error) from error
        return None

    def _segments_from(self, view: _View, offset: int, end: LogPosition) -> Iterator[tuple[SegmentFiles, int]]:
        """(files, where their data ends) of the segments that may hold ``offset`` or a later one below ``end``."""
        for base in view.segments[max(bisect_right(view.segments, offset) - 1, 0) :]:
            if base < end.segment or (base == end.segment and end.position):
                files = self._files(view, base)
                yield files, end.position if base == end.segment else files.size_when_rolled()

    def _start_for_time(self, files: SegmentFiles, timestamp_ms: int, log_start: int, pread: Pread) -> int:
        """A byte position at or before the first batch that has ``timestamp_ms`` or a later one."""
        entry = _index_floor(files.time_fd, TIME_ENTRY, timestamp_ms, pread)
        relative = max(entry[1] if entry else 0, log_start - files.base_offset)
        start = _index_floor(files.index_fd, OFFSET_ENTRY, relative, pread)
        return start[1] if start else 0

    def epoch_end_offset(self, epoch: int, log_end_offset: int) -> EpochEntry:
        """The largest epoch <= ``epoch`` and the offset behind its last record, from the epoch file; (-1, -1):
        unknown.
        """
        return read_entries(self._directory).end_offset_for(epoch, log_end_offset)


def _remember(view: _View, offset: int, at: LogPosition) -> None:
    positions = view.positions
    if len(positions) >= _REMEMBERED_POSITIONS:
        positions.pop(next(iter(positions)), None)
    positions[offset] = at


def _index_floor(fd: int, layout: struct.Struct, key: int, pread: Pread, column: int = 0) -> Entry | None:
    found = floor_entry(fd, layout, os.fstat(fd).st_size // layout.size, key, column, pread)
    return found[1] if found else None


def _last_time(fd: int, pread: Pread) -> Entry | None:
    return _index_floor(fd, TIME_ENTRY, 2**63 - 1, pread)


def _largest_timestamp(files: SegmentFiles, limit: int, rolled: bool, pread: Pread) -> int:
    """The largest timestamp in the first ``limit`` bytes of a segment, -1 without one."""
    last = _last_time(files.time_fd, pread) if rolled else None
    if last:
        return last[0]
    # what the offset index covers, the time index knows; the rest is read
    entry = _index_floor(files.index_fd, OFFSET_ENTRY, limit - 1, pread, column=1)
    known = _index_floor(files.time_fd, TIME_ENTRY, entry[0], pread, column=1) if entry else None
    rest = (header.max_timestamp for _, header in walk_headers(files.fd, entry[1] if entry else 0, limit, pread))
    return max(rest, default=-1) if known is None else max(known[0], *rest)


def _largest_timestamp_from(log_start: int, files: SegmentFiles, limit: int, pread: Pread) -> int:
    """The largest timestamp at or behind ``log_start`` in a segment that starts before it. No index knows that."""
    entry = _index_floor(files.index_fd, OFFSET_ENTRY, log_start - files.base_offset, pread)
    largest = -1
    for position, header in walk_headers(files.fd, entry[1] if entry else 0, limit, pread):
        if header.base_offset >= log_start:
            largest = max(largest, header.max_timestamp)
        elif header.last_offset >= log_start:
            records = _records_of(files.fd, position, header, pread)
            largest = max(record.timestamp for record in records if record.offset >= log_start)
    return largest


def _records_of(fd: int, position: int, header: BatchHeader, pread: Pread) -> list[Record]:
    try:
        return list(iter_records(pread(fd, header.size, position)))
    except UnreadableRecords as error:
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE, f"the batch at offset {header.base_offset} cannot be read: {error}"
        ) from error


def _first_record(
    fd: int, position: int, header: BatchHeader, timestamp_ms: int, log_start: int, pread: Pread
) -> FoundOffset | None:
    for record in _records_of(fd, position, header, pread):
        if record.timestamp >= timestamp_ms and record.offset >= log_start:
            return FoundOffset(record.timestamp, record.offset, header.leader_epoch)
    return None


def _storage_error(directory: Path, error: OSError) -> KafkaError:
    if isinstance(error, FileNotFoundError):
        return KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, f"a segment of {directory} was deleted meanwhile")
    return KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"reading {directory}: {error.strerror or error}")
