"""What a broker may read of a partition's log while another process writes it (rules 20 and 21).

The writer tells how far its log may be read; the broker reads the segment files itself. Nothing here is trusted across
a truncation, and nothing waits for a disk on the event loop (rule 22).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from raykafka.log import FileRange, LogReader, StaleRange, WouldBlock
from raykafka.partition.view import View

SLICE_CHUNK_BYTES = 1024 * 1024

_T = TypeVar("_T")


class LogView:
    """``view`` is what may be read now, None while nothing may; ``reader`` reads it, None while there are no files.

    All methods run on the broker's event loop; blocking reads run on ``cold_reads``.
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
        """Wake who watches."""
        for woken in tuple(self._watchers):
            woken()

    # what there is

    def show(self, view: View) -> None:
        """Allow to read what ``view`` says."""
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

    def show_nothing(self) -> None:
        """Allow nothing any more. Reads under way end without records."""
        reader, self.reader, self.view = self.reader, None, None
        if reader is not None:
            reader.close()

    # reading

    def locate(
        self, offset: int, max_bytes: int, *, committed: bool, min_one_batch: bool, nowait: bool
    ) -> FileRange | None:
        """Where the batches from ``offset`` on lie that may be read: up to the last stable offset if ``committed``,
        else to the high watermark. None when there are none. Raises KafkaError, and WouldBlock with ``nowait``."""
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
        """The bytes at ``place``, from the page cache at once or else through a thread (rule 22). None when the log was
        truncated or closed meanwhile (rule 21)."""
        reader = self.reader
        if reader is None:
            return None
        try:
            try:
                data = reader.fetch_bytes(place, nowait=True)
            except WouldBlock:
                data = await self.in_thread(lambda: reader.fetch_bytes(place))
        except StaleRange:
            return None
        return data if self.reader is reader else None

    def slice(self, place: FileRange) -> LogSlice:
        """The bytes at ``place``, to be read while they are sent."""
        return LogSlice(self, place)

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Run what may wait for the disk in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._cold_reads, work)

    async def read(self, offset: int, max_bytes: int, *, committed: bool = False) -> memoryview:
        """Whole batches from ``offset`` on that may be read, at least one if there is one; empty if there is none.
        Raises KafkaError."""

        def locate(nowait: bool) -> FileRange | None:
            return self.locate(offset, max_bytes, committed=committed, min_one_batch=True, nowait=nowait)

        try:
            place = locate(True)
        except WouldBlock:
            place = await self.in_thread(lambda: locate(False))
        data = await self.load(place) if place is not None else None
        return data if data is not None else memoryview(b"")


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
