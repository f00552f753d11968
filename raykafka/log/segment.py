"""One segment of a log: its ``.log`` file and two indexes, in the hands of the writer."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from raykafka.log.batch import BatchHeader, crc_of, read_header
from raykafka.log.batch_layout import CRC_START, HEADER_BYTES, MAGIC, MAX_INT32, PREFIX_BYTES
from raykafka.log.files import (
    DELETED,
    INDEX,
    LOG,
    SEGMENT_SUFFIXES,
    SNAPSHOT,
    TIME_INDEX,
    offset_name,
    storage_error,
)
from raykafka.log.index import OFFSET_ENTRY, TIME_ENTRY, Index

_logger = logging.getLogger(__name__)

_HEADERS_CHUNK_BYTES = 4096
_RECORDS_CHUNK_BYTES = 1 << 20
_MIN_LENGTH = HEADER_BYTES - PREFIX_BYTES


def walk_headers(
    fd: int, position: int, end: int, pread: Callable[[int, int, int], bytes] = os.pread
) -> Iterator[tuple[int, BatchHeader]]:
    """(position, header) of the batches of a segment file from the batch at ``position`` on, up to byte ``end``."""
    while position + HEADER_BYTES <= end:
        chunk_start, chunk = position, pread(fd, min(_HEADERS_CHUNK_BYTES, end - position), position)
        if len(chunk) < HEADER_BYTES:
            return
        while position - chunk_start + HEADER_BYTES <= len(chunk):
            header = read_header(chunk, position - chunk_start)
            if header.length < _MIN_LENGTH or position + header.size > end:
                return
            yield position, header
            position += header.size


def walk_sound(
    fd: int, position: int, end: int, next_offset: int, last_possible: int
) -> Iterator[tuple[int, BatchHeader]]:
    """As ``walk_headers``, but every byte is read and checked: stops before the first batch that is not whole and
    sound.

    ``next_offset`` is the least offset that the first batch may have, ``last_possible`` the greatest that any may
    have.
    """
    while position + HEADER_BYTES <= end:
        chunk_start, chunk = position, memoryview(os.pread(fd, min(_RECORDS_CHUNK_BYTES, end - position), position))
        while position - chunk_start + HEADER_BYTES <= len(chunk):
            at = position - chunk_start
            header = read_header(chunk, at)
            if (
                header.magic != MAGIC
                or header.length < _MIN_LENGTH
                or position + header.size > end
                or header.last_offset_delta < 0
                or header.base_offset < next_offset
                or header.last_offset > last_possible
            ):
                return
            if at + header.size > len(chunk):
                if at == 0:  # larger than a chunk
                    chunk = memoryview(os.pread(fd, header.size, position))
                    if len(chunk) < header.size:
                        return
                else:
                    break
            if crc_of(chunk, at, header.size) != header.crc:
                return
            yield position, header
            next_offset = header.last_offset + 1
            position += header.size
        else:
            if position == chunk_start:
                return


class SegmentState(NamedTuple):
    """What its writer knows of a closed segment, so that it need not be read to be opened. Sizes are bytes of the three
    files; ``bytes_since_entry`` is what was written since the last entry of the offset index."""

    base_offset: int
    size: int
    index_bytes: int
    time_index_bytes: int
    first_timestamp: int | None
    max_timestamp: int
    max_timestamp_offset: int
    bytes_since_entry: int


class Segment:
    """A segment that is written, cut or searched. ``max_timestamp`` is -1 in a segment without timestamps.

    Its files are open for writing from ``wake`` to ``close``, as often as one likes; ``is_open`` says so. A new one has
    no files before it is woken for the first time. What was written and not flushed yet makes it ``unsynced``.
    """

    def __init__(self, directory: Path, base_offset: int, now_ms: int, *, max_age_ms: int, index_bytes: int) -> None:
        """``max_age_ms`` is when a roll is due, ``index_bytes`` how large an index may get."""
        self.directory = directory
        self.base_offset = base_offset
        self.max_age_ms = max_age_ms
        self.created_ms = now_ms
        self.indexes_full = False
        self._index_entries_max = index_bytes // TIME_ENTRY.size
        self.is_open = False
        self.unsynced = False
        self.has_files = False
        self.fd = -1
        self._deleted = self._had_indexes = False
        self._index_lock = threading.Lock()
        stem = f"{directory}/{offset_name(base_offset, '')}"
        self._log_path = stem + LOG
        self.index, self.time_index = Index(stem + INDEX, OFFSET_ENTRY), Index(stem + TIME_INDEX, TIME_ENTRY)
        self.size = 0
        self.first_timestamp: int | None = None
        self.max_timestamp, self.max_timestamp_offset = -1, base_offset
        self._bytes_since_entry = 0

    def path(self, suffix: str) -> Path:
        return self.directory / offset_name(self.base_offset, suffix)

    @property
    def _paths(self) -> tuple[str, str, str]:
        return self._log_path, self.index.path, self.time_index.path

    # open and closed

    def open_existing(self, *, had_indexes: bool) -> None:
        """Open files of which nothing is known; indexes that are missing are made. ``load`` or ``recover`` comes next.
        OSError."""
        self.has_files = True
        self._had_indexes = had_indexes
        self._open_files(os.O_CREAT)
        self.size = os.fstat(self.fd).st_size
        self.take_max_timestamp_from_index()

    def state(self) -> SegmentState:
        """What ``take`` needs, of a segment whose index entries are all written out. OSError."""
        index_bytes, time_index_bytes = 0, 0
        if self.has_files:
            index_bytes, time_index_bytes = (os.stat(path).st_size for path in self._paths[1:])
        return SegmentState(
            self.base_offset,
            self.size,
            index_bytes,
            time_index_bytes,
            self.first_timestamp,
            self.max_timestamp,
            self.max_timestamp_offset,
            self._bytes_since_entry,
        )

    def take(self, state: SegmentState, *, has_files: bool) -> None:
        """Be what ``state`` says, without a look at the files."""
        self.has_files = has_files
        self.size = state.size
        self.first_timestamp = state.first_timestamp
        self.max_timestamp, self.max_timestamp_offset = state.max_timestamp, state.max_timestamp_offset
        self._bytes_since_entry = state.bytes_since_entry

    def wake(self) -> None:
        """Open the files if they are closed, so that ``fd`` can be used; make them where there are none. OSError."""
        if self.is_open:
            return
        if self.has_files:
            self._open_files(0)
            return
        try:
            self._open_files(os.O_CREAT | os.O_TRUNC)
        except OSError:
            for path in self._paths:  # half a segment must not be found after a restart
                with suppress(FileNotFoundError):
                    os.unlink(path)
            raise
        self.has_files = True

    def _open_files(self, flags: int) -> None:
        with self._index_lock, ExitStack() as opened:
            self.fd = os.open(self._log_path, os.O_RDWR | os.O_CLOEXEC | flags, 0o644)
            opened.callback(os.close, self.fd)
            self.index.open(flags)
            opened.callback(self.index.close)
            self.time_index.open(flags)
            opened.pop_all()
            self.is_open = True

    def close(self) -> None:
        """Close the files: for good, or until ``wake``. What is unsynced stays so."""
        with self._index_lock:
            self._close()

    def _close(self) -> None:
        if self.is_open:
            self.is_open = False
            os.close(self.fd)
            self.index.close()
            self.time_index.close()

    def rest(self) -> None:
        """Close the files, and write out held index entries before that; they stay open where there is no room for
        these."""
        try:
            self.write_indexes()
        except OSError:
            return
        self.close()

    # writing

    def takes(self, size: int, last_offset: int, max_timestamp: int, now_ms: int, segment_bytes: int) -> bool:
        """Whether ``size`` bytes more belong here, or a new segment is due: for the size, the age, the indexes, or
        offsets that these can't hold."""
        first = self.first_timestamp
        age_ms = max_timestamp - first if first is not None and first >= 0 else now_ms - self.created_ms
        return (
            self.size + size <= segment_bytes
            and age_ms <= self.max_age_ms
            and not self.indexes_full
            and last_offset - self.base_offset <= MAX_INT32
        )

    def take_max_timestamp_from_index(self) -> None:
        """Start from what the time index knows; ``note`` adds the batches behind its last entry."""
        if self.time_index.last:
            self.max_timestamp = self.time_index.last[0]
            self.max_timestamp_offset = self.base_offset + self.time_index.last[1]
        else:
            self.max_timestamp, self.max_timestamp_offset = -1, self.base_offset

    def note(self, position: int, size: int, last_offset: int, max_timestamp: int, interval_bytes: int) -> None:
        """A batch was written at ``position``: note its timestamp, and add an index entry every ``interval_bytes``."""
        if max_timestamp > self.max_timestamp:
            self.max_timestamp, self.max_timestamp_offset = max_timestamp, last_offset
        if self.first_timestamp is None:
            self.first_timestamp = max_timestamp
        if self._bytes_since_entry > interval_bytes:
            with self._index_lock:
                self._note_time()
                self.index.append(last_offset - self.base_offset, position)
            self.indexes_full = self.index.count >= self._index_entries_max
            if self.index.wants_writing:
                try:
                    self.write_indexes()
                except OSError:
                    # A full disk costs no entry: they are held until there is room. The log itself reports the disk.
                    _logger.warning("%s: no room for index entries, holding them", self.path(INDEX))
            self._bytes_since_entry = 0
        self._bytes_since_entry += size

    def _note_time(self) -> None:
        last = self.time_index.last
        if self.max_timestamp > (last[0] if last else -1):
            self.time_index.append(self.max_timestamp, self.max_timestamp_offset - self.base_offset)

    def write_indexes(self) -> None:
        """Write held index entries; safe beside ``note`` in another thread. OSError.

        The time index goes first: recovery relies on the timestamps of all that the offset index covers.
        """
        with self._index_lock:
            self._write_indexes()

    def _write_indexes(self) -> None:
        if self.is_open:
            self.time_index.write_out()
            self.index.write_out()

    def position_of(self, offset: int) -> tuple[int, BatchHeader] | None:
        """(position, header) of the first batch that ends at or behind ``offset``; None when none does."""
        if not self.size:
            return None
        self.wake()
        with self._index_lock:
            entry = self.index.floor(offset - self.base_offset)
        for position, header in walk_headers(self.fd, entry[1] if entry else 0, self.size):
            if header.last_offset >= offset:
                return position, header
        return None

    def recover(self, trusted_below: int, interval_bytes: int) -> Iterator[tuple[int, BatchHeader]]:
        """Check the batches and make the index entries that lie at or behind ``trusted_below``; yields what it reads.

        After the last one, ``size`` is where the sound batches end; the caller decides about the bytes behind it. An
        index that does not fit the file is made again from the start. OSError.
        """
        self.unsynced = True
        self.size = os.fstat(self.fd).st_size
        self.index.cut_after(trusted_below - 1 - self.base_offset if self._had_indexes else -1)
        start, next_offset = 0, self.base_offset
        if self.index.last:
            entry = self.index.last
            head = next(walk_headers(self.fd, entry[1], self.size), None)
            if head and head[1].magic == MAGIC and head[1].last_offset == self.base_offset + entry[0]:
                start, next_offset = entry[1], head[1].base_offset
            else:
                self.index.cut_after(-1)
        self.time_index.cut_after(self.index.last[0] if self.index.last else -1, column=1)
        self.take_max_timestamp_from_index()
        self._bytes_since_entry = 0
        self.first_timestamp = self._read_first_timestamp()
        end = start
        for position, header in walk_sound(self.fd, start, self.size, next_offset, self.base_offset + MAX_INT32):
            end = position + header.size
            if position == start and self.index.last and self.index.last[1] == start:  # indexed already
                if header.max_timestamp > self.max_timestamp:
                    self.max_timestamp, self.max_timestamp_offset = header.max_timestamp, header.last_offset
                self._bytes_since_entry = header.size
            else:
                self.note(position, header.size, header.last_offset, header.max_timestamp, interval_bytes)
            yield position, header
        self.size = end

    def _read_first_timestamp(self) -> int | None:
        first = next(walk_headers(self.fd, 0, self.size), None)
        return first[1].max_timestamp if first and first[1].magic == MAGIC else None

    def load(self, next_base_offset: int) -> bool:
        """Take a rolled segment as it is, if its indexes can be right: whole entries, inside the file. False:
        ``recover``.
        """
        if not self._had_indexes:
            return False
        for index, column in ((self.index, 0), (self.time_index, 1)):
            if os.fstat(index.fd).st_size != index.size_bytes:
                return False
            if index.last and not 0 <= index.last[column] < next_base_offset - self.base_offset:
                return False
        if self.index.last and self.index.last[1] + CRC_START > self.size:
            return False
        self.first_timestamp = self._read_first_timestamp()
        return True

    def cut(self, position: int) -> None:
        """Cut the file at ``position``, a batch boundary, and the indexes with it. OSError."""
        self.wake()
        os.ftruncate(self.fd, position)
        self.size = position
        self.unsynced = True
        with self._index_lock:
            self.index.cut_after(position - 1, column=1)
            entry = self.index.last
            self.time_index.cut_after(entry[0] if entry else -1, column=1)
        self.indexes_full = False
        self.take_max_timestamp_from_index()
        self._bytes_since_entry = 0
        self.first_timestamp = self._read_first_timestamp()
        for at, header in walk_headers(self.fd, entry[1] if entry else 0, position):
            if entry and at == entry[1]:
                self._bytes_since_entry = header.size
                if header.max_timestamp > self.max_timestamp:
                    self.max_timestamp, self.max_timestamp_offset = header.max_timestamp, header.last_offset
            else:
                self.note(at, header.size, header.last_offset, header.max_timestamp, 1 << 62)

    def seal_indexes(self) -> None:
        """Nothing more will be appended: put the largest timestamp into the time index and write both out. OSError."""
        if not self.time_index.was_opened:
            return  # this was done before the segment was closed, and nothing was appended since
        last = self.time_index.last
        if self.max_timestamp > (last[0] if last else -1):
            self.wake()
            self.unsynced = True
            with self._index_lock:
                self._note_time()
        self.write_indexes()

    def sync(self) -> None:
        """fsync everything written so far; safe beside appends in another thread. A segment that was closed meanwhile
        is opened for it. KafkaError: nothing is lost, but nothing is known to be durable either. OSError: an fsync
        failed, and what it was for may be lost.
        """
        fds: list[int] = []
        try:
            with self._index_lock:
                if not self.unsynced or self._deleted:
                    return
                if self.is_open:
                    try:
                        self._write_indexes()
                    except OSError as error:
                        raise storage_error(f"writing {self.path(INDEX)}", error) from error
                    for fd in (self.fd, self.index.fd, self.time_index.fd):
                        fds.append(os.dup(fd))
                else:
                    for path in self._paths:
                        fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                self.unsynced = False  # what is written from here on sets it again
            for fd in fds:
                os.fsync(fd)
        except BaseException:
            self.unsynced = True
            raise
        finally:
            for fd in fds:
                os.close(fd)

    def modified_ms(self) -> int:
        """When the ``.log`` file was last written."""
        return int(self.path(LOG).stat().st_mtime * 1000)

    def mark_deleted(self) -> list[Path]:
        """Rename the files, so that no reader finds them any more, and close them; the paths to unlink later.
        OSError.
        """
        marked = []
        with self._index_lock:
            self._deleted = True
            for suffix in (*SEGMENT_SUFFIXES, SNAPSHOT):
                path = self.path(suffix)
                if path.exists():
                    target = path.with_name(path.name + DELETED)
                    os.replace(path, target)
                    marked.append(target)
            self._close()
        return marked
