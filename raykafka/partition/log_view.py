"""Reads the segment files of a log that another process writes, as far as that process allows (rules 20, 21).

Nothing here is trusted across a truncation, and nothing waits for a disk on the event loop (rule 22).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from raykafka.log import EpochEntry, FileRange, FoundOffset, LogReader, StaleRange, WouldBlock
from raykafka.log.epochs import read_entries
from raykafka.partition.view import View
from raykafka.types import LogPosition

SLICE_CHUNK_BYTES = 1024 * 1024

_T = TypeVar("_T")


class LogView:
    """``access.LogAccess`` by the files in ``directory``. ``view`` is what may be read now, None while nothing may;
    ``reader`` reads it, None while there are no files.

    All methods run on one event loop; blocking reads run on ``cold_reads``.
    """

    def __init__(self, directory: Path, cold_reads: ThreadPoolExecutor) -> None:
        self.directory = directory
        self.view: View | None = None
        self.reader: LogReader | None = None
        self._cold_reads = cold_reads
        self._segments: tuple[int, ...] = ()
        self._watchers: set[Callable[[], None]] = set()

    def watch(self, woken: Callable[[], None]) -> None:
        """Call ``woken`` after every change of what may be read or who leads, until ``unwatch``."""
        self._watchers.add(woken)

    def unwatch(self, woken: Callable[[], None]) -> None:
        self._watchers.discard(woken)

    def changed(self) -> None:
        """Wakes the fetches that wait for this partition."""
        for woken in tuple(self._watchers):
            woken()

    # what there is

    def show(self, view: View) -> None:
        """Allow to read what ``view`` says, and wake the fetches that wait for it."""
        before, reader = self.view, self.reader
        if view.segments is not None:
            self._segments = view.segments
        if reader is None:
            reader = self.reader = LogReader(self.directory)
            reader.update(self._segments, view.truncations)
        elif view.segments is not None or before is None or before.truncations != view.truncations:
            reader.update(self._segments, view.truncations)
        self.view = view
        if (
            before is None
            or view.high_watermark != before.high_watermark
            or view.last_stable_offset != before.last_stable_offset
            or view.leader_epoch != before.leader_epoch
            or view.log_start_offset != before.log_start_offset
        ):
            self.changed()

    def rest(self) -> None:
        """Close the files that no read has used since the last call. To be called at intervals."""
        if self.reader is not None:
            self.reader.rest()

    def show_nothing(self) -> None:
        """Allow nothing any more. Reads under way end without records."""
        reader, self.reader, self.view, self._segments = self.reader, None, None, ()
        if reader is not None:
            reader.close()

    # reading records

    async def locate(
        self, offset: int, max_bytes: int, *, committed: bool = False, min_one_batch: bool = True
    ) -> FileRange | None:
        try:
            return self._find(offset, max_bytes, committed, min_one_batch, nowait=True)
        except WouldBlock:
            return await self._in_thread(lambda: self._find(offset, max_bytes, committed, min_one_batch, nowait=False))

    def _find(
        self, offset: int, max_bytes: int, committed: bool, min_one_batch: bool, *, nowait: bool
    ) -> FileRange | None:
        view, reader = self.view, self.reader
        if view is None or reader is None:
            return None
        if committed:
            end_offset, end = view.last_stable_offset, view.last_stable_position
        else:
            end_offset, end = view.high_watermark, view.high_watermark_position
        if offset >= end_offset:
            return None
        return reader.read(offset, max_bytes, end, min_one_batch=min_one_batch, end_offset=end_offset, nowait=nowait)

    async def load(self, place: FileRange) -> memoryview | None:
        """From the page cache at once, or else through a thread (rule 22)."""
        reader = self.reader
        if reader is None:
            return None
        try:
            try:
                data = reader.fetch_bytes(place, nowait=True)
            except WouldBlock:
                data = await self._in_thread(lambda: reader.fetch_bytes(place))
        except StaleRange:
            return None
        return data if self.reader is reader else None

    def slice(self, place: FileRange) -> LogSlice:
        return LogSlice(self, place)

    async def read(self, offset: int, max_bytes: int, *, committed: bool = False) -> memoryview:
        place = await self.locate(offset, max_bytes, committed=committed)
        data = await self.load(place) if place is not None else None
        return data if data is not None else memoryview(b"")

    # finding offsets

    async def offset_for_timestamp(self, timestamp_ms: int, end: LogPosition, log_start: int) -> FoundOffset | None:
        reader = self.reader
        if reader is None:
            return None
        return await self._in_thread(lambda: reader.offset_for_timestamp(timestamp_ms, end, log_start))

    async def offset_of_max_timestamp(self, end: LogPosition, log_start: int) -> FoundOffset | None:
        reader = self.reader
        if reader is None:
            return None
        return await self._in_thread(lambda: reader.offset_of_max_timestamp(end, log_start))

    async def end_of_epoch(self, leader_epoch: int, log_end: int) -> EpochEntry | None:
        reader = self.reader
        if reader is None:
            return None
        return await self._in_thread(lambda: reader.epoch_end_offset(leader_epoch, log_end))

    async def epoch_at(self, offset: int) -> int | None:
        if self.reader is None:
            return None
        history = await self._in_thread(lambda: read_entries(self.directory))
        return history.epoch_at(offset)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        """Run what may wait for the disk in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._cold_reads, work)


class LogSlice:
    """Records that are read a chunk at a time, as their reader takes them."""

    def __init__(self, log: LogView, place: FileRange) -> None:
        self._log = log
        self._place = place

    def __len__(self) -> int:
        return self._place.length

    async def chunks(self) -> AsyncIterator[memoryview]:
        """Raises StaleRange when the log was cut meanwhile, KafkaError when the disk fails."""
        place = self._place
        for start in range(0, place.length, SLICE_CHUNK_BYTES):
            length = min(SLICE_CHUNK_BYTES, place.length - start)
            data = await self._log.load(FileRange(place.files, place.position + start, length, place.truncations))
            if data is None:
                raise StaleRange(f"{self._log.directory.name} was cut or closed while it was sent")
            yield data
