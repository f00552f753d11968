"""The segments of one log, in order, the active one last; and the files of those that are deleted after a delay."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from raykafka.log.batch import BatchHeader
from raykafka.log.config import LogConfig
from raykafka.log.files import INDEX, LOG, TIME_INDEX, offset_name, storage_error
from raykafka.log.segment import Segment, SegmentState
from raykafka.process.durable import sync_directory
from raykafka.types import LogPosition


class Segments:
    """At least one segment once the log is open. One thread changes them; ``sync`` and ``purge`` may run in another.

    Methods raise OSError unless they say otherwise.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._list: list[Segment] = []
        self._lock = threading.Lock()  # the list, for ``sync``
        self._marked_deleted: deque[tuple[int, Path]] = deque()
        self._names_changed = False
        self.bases: tuple[int, ...] = ()
        self.version = 0
        self.active: Segment

    def __len__(self) -> int:
        return len(self._list)

    def __getitem__(self, number: int) -> Segment:
        return self._list[number]

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._list)

    @property
    def size_bytes(self) -> int:
        """Bytes of all records."""
        return sum(segment.size for segment in self._list)

    def take(self, states: Iterable[SegmentState], names: Collection[str], config: LogConfig, now_ms: int) -> None:
        """Be the segments that were closed as ``states``, without opening a file. ``names``: of all files there are."""
        taken = []
        for state in states:
            segment = self._new(state.base_offset, config, now_ms)
            segment.take(state, has_files=offset_name(state.base_offset, LOG) in names)
            taken.append(segment)
        self._changed(taken)
        self._names_changed = False

    def open_existing(self, base_offset: int, names: Collection[str], config: LogConfig, now_ms: int) -> Segment:
        """Append the segment of that base offset, whose ``.log`` file exists. Indexes that are not among ``names`` are
        made anew."""
        segment = self._new(base_offset, config, now_ms)
        segment.open_existing(
            had_indexes=all(offset_name(base_offset, suffix) in names for suffix in (INDEX, TIME_INDEX))
        )
        self._changed([*self._list, segment])
        return segment

    def begin(self, base_offset: int, config: LogConfig, now_ms: int, *, with_files: bool = True) -> None:
        """Append a new, empty, active segment. Without files, ``wake_active`` makes them."""
        segment = self._new(base_offset, config, now_ms)
        if with_files:
            segment.wake()
        self._changed([*self._list, segment])

    def wake_active(self) -> None:
        """Open the files of the active segment; make them where there are none. Raises KAFKA_STORAGE_ERROR."""
        if not self.active.has_files:
            self._names_changed = True
        try:
            self.active.wake()
        except OSError as error:
            raise storage_error(f"opening the active segment in {self._directory}", error) from error

    def _new(self, base_offset: int, config: LogConfig, now_ms: int) -> Segment:
        jitter_ms = min(config.segment_jitter_ms, config.segment_ms)
        return Segment(
            self._directory,
            base_offset,
            now_ms,
            max_age_ms=config.segment_ms - (random.randrange(jitter_ms) if jitter_ms > 0 else 0),
            index_bytes=config.segment_index_bytes,
        )

    def _changed(self, segments: list[Segment]) -> None:
        with self._lock:
            self._list = segments
            self._names_changed = True
        if segments:
            self.active = segments[-1]
        self.bases = tuple(segment.base_offset for segment in segments)
        self.version += 1

    # looking

    def find(self, offset: int) -> tuple[LogPosition, BatchHeader] | None:
        """The first batch that ends at or behind ``offset``."""
        start = 0
        for number in range(len(self._list) - 1, -1, -1):
            if self._list[number].base_offset <= offset:
                start = number
                break
        for segment in self._list[start:]:
            found = segment.position_of(offset)
            if found:
                return LogPosition(segment.base_offset, found[0]), found[1]
        return None

    # durability

    @property
    def unsynced(self) -> bool:
        """Whether ``sync`` has something to make durable."""
        return self._names_changed or any(segment.unsynced for segment in self._list)

    def taken_unflushed(self, recovery_point: int) -> None:
        """The log was closed while it was flushed up to ``recovery_point`` only, and new names perhaps were not."""
        self._names_changed = True
        for segment, next_base in zip_longest(self._list, self.bases[1:]):
            segment.unsynced = segment.has_files and (next_base is None or next_base > recovery_point)

    def sync(self, *, names: bool = True) -> None:
        """fsync what was written, and the names of new files unless the caller does so before anything is done by it.
        Safe beside appends. KafkaError: as ``Segment.sync``.
        """
        with self._lock:
            segments, names_changed = self._list, self._names_changed
            self._names_changed = False
        try:
            for segment in segments:
                if segment.unsynced:
                    segment.sync()
            if names_changed and names:
                sync_directory(self._directory)
        except BaseException:
            self._names_changed = True
            raise

    def rest(self, *, active: bool = False, unsynced: bool = False) -> None:
        """Close the files of the segments that are flushed, but for the active one's without ``active``, so that a long
        log needs few open ones; with ``unsynced`` those of the others, too, which ``sync`` opens again."""
        for segment in self._list:
            if segment.is_open and (unsynced or not segment.unsynced) and (active or segment is not self.active):
                segment.rest()

    def close(self) -> None:
        """Close all files, whatever they hold."""
        for segment in self._list:
            segment.close()

    # taking away

    def drop_first(self, count: int, due_ms: int) -> None:
        """Drop the oldest ``count``; their files are renamed now, and unlinked by ``purge`` from ``due_ms`` on."""
        self._drop(self._list[:count], self._list[count:], due_ms)

    def drop_behind(self, offset: int, due_ms: int) -> None:
        """As ``drop_first``, for the segments that start behind ``offset``; the newest goes first."""
        kept = [segment for segment in self._list if segment.base_offset <= offset]
        self._drop(self._list[: len(kept) - 1 if kept else None : -1], kept, due_ms)

    def _drop(self, dropped: list[Segment], kept: list[Segment], due_ms: int) -> None:
        for segment in dropped:
            self._marked_deleted.extend((due_ms, path) for path in segment.mark_deleted())
        self._changed(kept)

    def purge(self, now_ms: int | None) -> int:
        """Unlink the dropped segments' files that are due (all, without a time). Returns how many
        are left. Raises KAFKA_STORAGE_ERROR.
        """
        while self._marked_deleted and (now_ms is None or self._marked_deleted[0][0] <= now_ms):
            _, path = self._marked_deleted.popleft()
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error(f"removing {path}", error) from error
        return len(self._marked_deleted)
