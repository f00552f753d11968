"""The log of one partition, in the hands of its one writer."""

from __future__ import annotations

import os
import random
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from raykafka.errors import KafkaError
from raykafka.log.batch import (
    BASE_OFFSET,
    LEADER_EPOCH,
    LEADER_EPOCH_POSITION,
    MAX_INT32,
    NO_PRODUCER_ID,
    PREFIX_BYTES,
    BatchHeader,
    crc_of,
    iter_batches,
)
from raykafka.log.config import LogConfig
from raykafka.log.epochs import LeaderEpochs
from raykafka.log.files import (
    read_topic_id,
    storage_error,
    sync_directory,
    topic_id_text,
    write_all,
    write_topic_id,
)
from raykafka.log.lock import DirectoryLock
from raykafka.log.producers import ProducerStates
from raykafka.log.recovery import marker_of, rebuild_producers, recover_segments, tidy
from raykafka.log.retention import expired_count
from raykafka.log.segment import Segment
from raykafka.log.validation import check_batches
from raykafka.protocol.error_code import ErrorCode
from raykafka.types import LogPosition

_REMEMBERED_BOUNDARIES = 4096


class AppendInfo(NamedTuple):
    """Where an append went. ``log_append_time_ms`` is -1 unless the topic uses LogAppendTime."""

    base_offset: int
    last_offset: int
    log_append_time_ms: int
    max_timestamp: int
    size_bytes: int


class Log:
    """A partition's segments, indexes, leader epochs and producer states on disk.

    One thread owns it; only ``flush`` and ``purge`` may run in another one meanwhile. Errors of the disk are
    KafkaError with KAFKA_STORAGE_ERROR: after a failed write the log is as it was before, after a failed fsync it
    takes no more writes.
    """

    def __init__(self, directory: Path, config: LogConfig, lock: DirectoryLock) -> None:
        self.directory = directory
        self.config = config
        self.epochs = LeaderEpochs(directory)
        self.producers = ProducerStates(directory)
        self.log_start_offset = 0
        self.log_end_offset = 0
        self.recovery_point = 0
        self.recovered_bytes_cut = 0
        self.truncations = 0
        self.segments_version = 0
        self.segments: tuple[int, ...] = ()
        self._lock = lock
        self._segments: list[Segment] = []
        self._active: Segment
        self._boundaries: dict[int, tuple[int, int]] = {}
        self._failure: KafkaError | None = None
        self._unflushed_since_ms: int | None = None
        self._names_changed = True
        self._state_lock = threading.Lock()  # the segment list and recovery point, which ``flush`` shares
        self._marked_deleted: deque[tuple[int, Path]] = deque()

    @staticmethod
    def open(
        directory: Path,
        config: LogConfig,
        *,
        topic_id: uuid.UUID,
        recovery_point: int,
        clean: bool,
        now_ms: int,
        log_start_offset: int = 0,
    ) -> Log:
        """Take the log in ``directory``, or make a new one there.

        ``recovery_point`` is the offset below which everything is known to be flushed, ``clean`` whether the last
        writer closed the log. After an unclean stop, batches are checked from the recovery point on and a torn tail
        is cut (``recovered_bytes_cut``). Raises DirectoryLocked, or KafkaError: INCONSISTENT_TOPIC_ID if the
        directory belongs to another topic, KAFKA_STORAGE_ERROR.
        """
        directory = Path(directory)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = DirectoryLock(directory)
        except OSError as error:
            raise storage_error(f"opening {directory}", error) from error
        try:
            found = read_topic_id(directory)
            if found is None:
                write_topic_id(directory, topic_id)
                sync_directory(directory.parent)
            elif found != topic_id:
                raise KafkaError(
                    ErrorCode.INCONSISTENT_TOPIC_ID,
                    f"{directory} holds topic id {topic_id_text(found)}, not {topic_id_text(topic_id)}",
                )
            log = Log(directory, config, lock)
            log._recover(log_start_offset, recovery_point, clean, now_ms)
        except OSError as error:
            lock.release()
            raise storage_error(f"opening {directory}", error) from error
        except BaseException:
            lock.release()
            raise
        return log

    def _recover(self, log_start_offset: int, recovery_point: int, clean: bool, now_ms: int) -> None:
        tidy(self.directory)
        recovered = recover_segments(
            self.directory,
            lambda base: self._open_segment(base, now_ms),
            # A cleanly closed log is whole; the batches behind the last index entry are read all the same.
            2**62 if clean else recovery_point,
            self.epochs,
            self.config.index_interval_bytes,
        )
        self._segments, end = recovered.segments, recovered.log_end_offset
        self.recovered_bytes_cut = recovered.bytes_cut
        if not self._segments or end < log_start_offset:
            for segment in reversed(self._segments):
                self._mark_deleted(segment, now_ms)
            self._segments = [self._open_segment(log_start_offset, now_ms, create=True)]
            end = log_start_offset
        self._active = self._segments[-1]
        self.log_end_offset = end
        self.log_start_offset = max(log_start_offset, self._segments[0].base_offset)
        self.recovery_point = end if clean else max(min(recovery_point, end), self._segments[0].base_offset)
        self.epochs.forget_beyond(end)
        self.epochs.truncate_from_start(self.log_start_offset)
        rebuild_producers(self.producers, self._segments, self.log_start_offset, end)
        self._keep_needed_snapshots()
        self._segments_changed()

    def _open_segment(self, base_offset: int, now_ms: int, *, create: bool = False) -> Segment:
        config = self.config
        jitter = min(config.segment_jitter_ms, config.segment_ms)
        return Segment(
            self.directory,
            base_offset,
            now_ms,
            create=create,
            max_age_ms=config.segment_ms - (random.randrange(jitter) if jitter > 0 else 0),
            index_bytes=config.segment_index_bytes,
        )

    def _keep_needed_snapshots(self) -> None:
        offsets = self.producers.snapshot_offsets()
        needed = {segment.base_offset for segment in self._segments} | set(offsets[-1:])
        for offset in offsets:
            if offset not in needed:
                self.producers.snapshot_path(offset).unlink()

    def _segments_changed(self) -> None:
        self.segments = tuple(segment.base_offset for segment in self._segments)
        self.segments_version += 1
        self._names_changed = True

    # looking

    @property
    def size_bytes(self) -> int:
        """Bytes of all records."""
        return sum(segment.size for segment in self._segments)

    @property
    def failed(self) -> bool:
        """Whether the disk failed in a way that leaves this log closed to writes until it is opened again."""
        return self._failure is not None

    @property
    def first_unstable_offset(self) -> int | None:
        """Where the oldest transaction that is still open starts."""
        return self.producers.first_unstable_offset

    def position_of(self, offset: int) -> LogPosition:
        """Where the batch that holds ``offset``, or the next one, starts; quick for the log end and recent boundaries.

        An ``offset`` before the first segment has that one's start. Raises OFFSET_OUT_OF_RANGE behind the log end.
        """
        if offset == self.log_end_offset:
            return LogPosition(self._active.base_offset, self._active.size)
        recent = self._boundaries.get(offset)
        if recent is not None:
            return LogPosition(*recent)
        if offset > self.log_end_offset:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE, f"offset {offset} is behind the log end {self.log_end_offset}"
            )
        start = 0
        for number in range(len(self._segments) - 1, -1, -1):
            if self._segments[number].base_offset <= offset:
                start = number
                break
        for segment in self._segments[start:]:
            found = segment.position_of(offset)
            if found:
                return LogPosition(segment.base_offset, found[0])
        return LogPosition(self._active.base_offset, self._active.size)

    # appending

    def append_as_leader(
        self, records: memoryview, leader_epoch: int, now_ms: int, *, from_client: bool = True
    ) -> AppendInfo:
        """Check the batches in ``records``, give them offsets and ``leader_epoch`` in place, and write them.

        ``from_client`` is false for what the broker itself writes: such batches may be control batches. Raises
        DuplicateSequence for a batch that was appended before, KafkaError otherwise; then nothing was appended.
        """
        if self._failure:
            raise self._failure
        if records.readonly:
            records = memoryview(bytearray(records))
        config = self.config
        records, headers = check_batches(records, config, now_ms, from_client=from_client)
        base_offset = offset = self.log_end_offset
        position, max_timestamp, offsets = 0, -1, []
        pending: dict[int, tuple[int, int]] = {}
        for header in headers:
            if header.producer_id != NO_PRODUCER_ID and from_client:
                self.producers.check(header, pending)
            BASE_OFFSET.pack_into(records, position, offset)
            LEADER_EPOCH.pack_into(records, position + LEADER_EPOCH_POSITION, leader_epoch)
            offsets.append(offset)
            offset += header.last_offset_delta + 1
            position += header.length + PREFIX_BYTES
            if header.max_timestamp > max_timestamp:
                max_timestamp = header.max_timestamp
        if leader_epoch > self.epochs.latest_epoch:
            self.epochs.assign(leader_epoch, base_offset)
        self._store(records, headers, offsets, max_timestamp, now_ms)
        return AppendInfo(
            base_offset, offset - 1, now_ms if config.log_append_time else -1, max_timestamp, len(records)
        )

    def append_as_follower(self, records: memoryview, now_ms: int, *, gaps_allowed: bool = False) -> AppendInfo:
        """Write batches as their leader stored them. They must start at the log end and leave no gap, but for
        ``gaps_allowed`` (a compacted log). Raises CORRUPT_MESSAGE, OFFSET_OUT_OF_RANGE, KAFKA_STORAGE_ERROR."""
        if self._failure:
            raise self._failure
        expected = self.log_end_offset
        headers, position, max_timestamp = [], 0, -1
        for at, header in iter_batches(records):
            if header.magic != 2 or crc_of(records, at, header.size) != header.crc:
                raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"the batch at offset {header.base_offset} is not sound")
            if header.base_offset != expected and not (gaps_allowed and header.base_offset > expected):
                raise KafkaError(
                    ErrorCode.OFFSET_OUT_OF_RANGE, f"a batch starts at {header.base_offset} where {expected} comes next"
                )
            headers.append(header)
            expected = header.last_offset + 1
            position = at + header.size
            max_timestamp = max(max_timestamp, header.max_timestamp)
        if position != len(records) or not headers:
            raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"{len(records) - position} bytes are no whole batch")
        for header in headers:
            self.epochs.assign_if_newer(header.leader_epoch, header.base_offset)
        self._store(records, headers, [header.base_offset for header in headers], max_timestamp, now_ms)
        return AppendInfo(headers[0].base_offset, expected - 1, -1, max_timestamp, len(records))

    def _store(
        self, records: memoryview, headers: list[BatchHeader], offsets: list[int], max_timestamp: int, now_ms: int
    ) -> None:
        """Write stamped batches at the log end, and take them into every account."""
        size = len(records)
        last_offset = offsets[-1] + headers[-1].last_offset_delta
        self._roll_if_due(size, last_offset, max_timestamp, now_ms)
        segment = self._active
        position = segment.size
        try:
            write_all(segment.fd, records, position)
        except OSError as error:
            self._cut_back(segment)
            raise storage_error(f"writing {size} bytes to {self.directory}", error) from error
        segment.size = position + size
        interval, boundaries, segment_base = self.config.index_interval_bytes, self._boundaries, segment.base_offset
        for header, offset in zip(headers, offsets, strict=True):
            boundaries[offset] = (segment_base, position)
            batch_size = header.length + PREFIX_BYTES
            segment.note(position, batch_size, offset + header.last_offset_delta, header.max_timestamp, interval)
            if header.producer_id != NO_PRODUCER_ID:
                at = position + size - segment.size
                commit = marker_of(records[at : at + batch_size]) if header.is_control else None
                self.producers.take(header, offset, commit)
            position += batch_size
        if len(boundaries) > _REMEMBERED_BOUNDARIES:
            self._boundaries = dict(list(boundaries.items())[_REMEMBERED_BOUNDARIES // 2 :])
        self.log_end_offset = self.producers.end_offset = last_offset + 1
        if self._unflushed_since_ms is None:
            self._unflushed_since_ms = now_ms

    def _cut_back(self, segment: Segment) -> None:
        """Undo a write that failed half way; a log that cannot even be cut takes no more writes."""
        try:
            os.ftruncate(segment.fd, segment.size)
        except OSError as error:
            self._fail(storage_error(f"cutting {self.directory} back after a failed write", error))

    def _fail(self, failure: KafkaError) -> None:
        self._failure = failure

    def _roll_if_due(self, size: int, last_offset: int, max_timestamp: int, now_ms: int) -> None:
        segment, config = self._active, self.config
        if size > config.segment_bytes:
            raise KafkaError(
                ErrorCode.RECORD_LIST_TOO_LARGE,
                f"{size} bytes are over the topic's segment.bytes {config.segment_bytes}",
            )
        if not segment.size:
            return
        first = segment.first_timestamp
        age_ms = max_timestamp - first if first is not None and first >= 0 else now_ms - segment.created_ms
        if (
            segment.size + size > config.segment_bytes
            or age_ms > segment.max_age_ms
            or segment.indexes_full
            or last_offset - segment.base_offset > MAX_INT32
        ):
            self.roll(now_ms)

    def roll(self, now_ms: int) -> None:
        """End the active segment and begin one at the log end, unless the active one is empty. Raises
        KAFKA_STORAGE_ERROR.
        """
        if not self._active.size:
            return
        try:
            self.producers.write_snapshot(durable=False)
            self._active.seal_indexes()
            segment = self._open_segment(self.log_end_offset, now_ms, create=True)
        except OSError as error:
            raise storage_error(f"rolling {self.directory}", error) from error
        with self._state_lock:
            self._segments.append(segment)
            self._active = segment
            self._segments_changed()

    # durability

    def flush_due(self, now_ms: int) -> bool:
        """Whether ``flush.messages`` or ``flush.ms`` ask for a flush now."""
        if self._unflushed_since_ms is None:
            return False
        unflushed = self.log_end_offset - self.recovery_point
        return unflushed >= self.config.flush_messages or now_ms - self._unflushed_since_ms >= self.config.flush_ms

    def flush(self) -> None:
        """fsync everything up to the log end and move the recovery point there. Safe in another thread beside
        appends.

        Raises KAFKA_STORAGE_ERROR. After a failed fsync nobody knows what the disk holds, so the log takes no more
        writes.
        """
        if self._failure:
            raise self._failure
        with self._state_lock:
            end, truncations = self.log_end_offset, self.truncations
            unflushed = [
                segment
                for segment, next_base in zip(self._segments, [*self.segments[1:], end + 1], strict=True)
                if next_base > self.recovery_point
            ]
            names_changed, self._names_changed = self._names_changed, False
            self._unflushed_since_ms = None
        try:
            for segment in unflushed:
                segment.sync()
            if names_changed:
                self._sync_snapshots()
                sync_directory(self.directory)
        except OSError as error:
            self._fail(storage_error(f"flushing {self.directory}", error))
            raise self._failure from error  # type: ignore[misc]
        with self._state_lock:
            if truncations == self.truncations:
                self.recovery_point = max(self.recovery_point, end)

    def _sync_snapshots(self) -> None:
        for offset in self.producers.snapshot_offsets():
            try:
                fd = os.open(self.producers.snapshot_path(offset), os.O_RDONLY)
            except FileNotFoundError:  # its segment was deleted meanwhile
                continue
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def close(self) -> None:
        """Flush, write the producers' snapshot, and let go of the directory: a clean stop. Raises
        KAFKA_STORAGE_ERROR; the lock is released even then, and the next open must treat the log as not closed
        cleanly.
        """
        try:
            if not self._failure:
                self._active.seal_indexes()
                self.producers.write_snapshot(durable=True)
            self.flush()
            self.purge(None)
        except OSError as error:
            raise storage_error(f"closing {self.directory}", error) from error
        finally:
            for segment in self._segments:
                segment.close()
            self._failure = self._failure or KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.directory} is closed")
            self._lock.release()

    # cutting

    def truncate_to(self, offset: int) -> None:
        """Drop everything from ``offset`` on; a batch that reaches over it goes whole. Raises KAFKA_STORAGE_ERROR,
        and then takes no more writes.
        """
        if offset >= self.log_end_offset:
            return
        if offset < self._segments[0].base_offset:
            self.truncate_fully(offset)
            return
        with self._cutting(), self._state_lock:
            self.truncations += 1
            self._boundaries.clear()
            while self._segments[-1].base_offset > offset:
                self._mark_deleted(self._segments.pop(), 0)
            self._active = active = self._segments[-1]
            found = active.position_of(offset)
            end = offset
            if found:
                end = min(offset, found[1].base_offset)
                active.cut(found[0])
            self._segments_changed()
            self._ends_at(end)
            self.epochs.truncate_from_end(end)
            rebuild_producers(self.producers, self._segments, self.log_start_offset, end)

    def truncate_fully(self, start_offset: int) -> None:
        """Drop all records; the log goes on from ``start_offset``. Raises as ``truncate_to``."""
        with self._cutting(), self._state_lock:
            self.truncations += 1
            self._boundaries.clear()
            while self._segments:
                self._mark_deleted(self._segments.pop(), 0)
            self._active = self._open_segment(start_offset, 0, create=True)
            self._segments = [self._active]
            self._segments_changed()
            self.log_start_offset = start_offset
            self._ends_at(start_offset)
            self.epochs.clear()
            self.producers.remove_snapshots(below=2**63)
            self.producers.clear(start_offset)

    def _ends_at(self, end: int) -> None:
        self.log_end_offset = end
        self.log_start_offset = min(self.log_start_offset, end)
        self.recovery_point = min(self.recovery_point, end)

    def advance_log_start(self, offset: int) -> None:
        """Records below ``offset`` are no longer served; ``expire`` removes the segments that hold only such."""
        if offset > self.log_end_offset:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE, f"the log start cannot pass the log end {self.log_end_offset}"
            )
        if offset > self.log_start_offset:
            self.log_start_offset = offset
            self.epochs.truncate_from_start(offset)

    # retention

    def expire(self, now_ms: int, high_watermark: int) -> int:
        """Take away the segments that retention no longer keeps, and producers too long silent; how many segments.

        Files are renamed at once and unlinked by ``purge`` after ``file.delete.delay.ms``. Nothing at or above the high
        watermark goes. Raises KAFKA_STORAGE_ERROR.
        """
        self.producers.expire(now_ms, self.config.producer_id_expiration_ms)
        count = expired_count(
            self._segments, self.config, now_ms, self.log_start_offset, min(high_watermark, self.log_end_offset)
        )
        if count == 0:
            return 0
        if count == len(self._segments):
            self.roll(now_ms)
        with self._cutting(), self._state_lock:
            self.log_start_offset = max(self.log_start_offset, self._segments[count].base_offset)
            self.epochs.truncate_from_start(self.log_start_offset)
            for segment in self._segments[:count]:
                self._mark_deleted(segment, now_ms)
            del self._segments[:count]
            self._segments_changed()
        first = self._active.base_offset if not self._segments else self._segments[0].base_offset
        self._boundaries = {offset: at for offset, at in self._boundaries.items() if at[0] >= first}
        return count

    def _mark_deleted(self, segment: Segment, now_ms: int) -> None:
        due_ms = now_ms + self.config.file_delete_delay_ms
        self._marked_deleted.extend((due_ms, path) for path in segment.mark_deleted())

    def purge(self, now_ms: int | None) -> int:
        """Unlink deleted segments whose delay is over (all, without a time); how many files wait on. Safe in another
        thread.

        Raises KAFKA_STORAGE_ERROR.
        """
        while self._marked_deleted and (now_ms is None or self._marked_deleted[0][0] <= now_ms):
            _, path = self._marked_deleted.popleft()
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error(f"removing {path}", error) from error
        return len(self._marked_deleted)

    @contextmanager
    def _cutting(self) -> Iterator[None]:
        """A cut that fails half way leaves memory and files apart: the log takes no more writes until it is opened
        again.
        """
        if self._failure:
            raise self._failure
        try:
            yield
        except (OSError, KafkaError) as error:
            failure = error if isinstance(error, KafkaError) else storage_error(f"cutting {self.directory}", error)
            self._fail(failure)
            raise failure from error
