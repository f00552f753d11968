"""The log of one partition, in the hands of its one writer."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log.batch import BatchHeader
from raykafka.log.batch_layout import (
    BASE_OFFSET,
    LEADER_EPOCH,
    LEADER_EPOCH_POSITION,
    NO_PRODUCER_ID,
    PREFIX_BYTES,
)
from raykafka.log.compression import MOST_BYTES
from raykafka.log.config import LogConfig
from raykafka.log.epochs import BEGIN_WITH, LeaderEpochs
from raykafka.log.files import claim, storage_error, write_all
from raykafka.log.lock import DirectoryLock, boot_id
from raykafka.log.producers import ProducerStates
from raykafka.log.recovery import Recovered, marker_of, rebuild_producers, recover
from raykafka.log.recovery_bound import RecoveryBound
from raykafka.log.retention import expired_count
from raykafka.log.seal import LogSeal, write_seal
from raykafka.log.segment import Segment
from raykafka.log.segments import Segments
from raykafka.log.validation import Checked, check_batches, check_stored_batches
from raykafka.types import LogPosition

_REMEMBERED_BOUNDARIES = 4096
_new_tuple = tuple.__new__  # as AppendInfo(...), without its Python call
_NO_NOTE: Mapping[str, Any] = MappingProxyType({})


class AppendInfo(NamedTuple):
    """Where an append went. ``log_append_time_ms`` is -1 unless the topic uses LogAppendTime; ``records`` are the
    batches as they are in the log."""

    base_offset: int
    last_offset: int
    log_append_time_ms: int
    max_timestamp: int
    size_bytes: int
    records: memoryview


class Log:
    """A partition's segments, indexes, leader epochs and producer states on disk, kept in step.

    One thread owns it; only ``flush`` and ``purge`` may run in another one meanwhile. Errors of the disk are
    KafkaError with KAFKA_STORAGE_ERROR: after a failed write the log is as it was before, after a failed fsync it
    takes no more writes.
    """

    def __init__(
        self,
        directory: Path,
        config: LogConfig,
        lock: DirectoryLock,
        topic_id: uuid.UUID,
        segments: Segments,
        epochs: LeaderEpochs,
        producers: ProducerStates,
        bound: RecoveryBound,
        recovered: Recovered,
    ) -> None:
        self.directory = directory
        self.config = config
        self.note = recovered.note
        self.epochs = epochs
        self.producers = producers
        self.log_start_offset = recovered.log_start_offset
        self.log_end_offset = recovered.log_end_offset
        self.recovery_point = recovered.recovery_point
        self.recovered_bytes_cut = recovered.bytes_cut
        self.truncations = 0
        self._topic_id = topic_id
        self._lock = lock
        self._segments = segments
        self._bound = bound
        self._boundaries: dict[int, tuple[int, int]] = {}
        self._failure: KafkaError | None = None
        self._unflushed_since_ms: int | None = None
        self._end_at_rest = -1
        self._sync_lock = threading.Lock()
        self._recovery_lock = threading.Lock()  # the recovery point, which ``flush`` moves from another thread

    @staticmethod
    def open(
        directory: Path,
        config: LogConfig,
        *,
        topic_id: uuid.UUID,
        recovery_point: int,
        now_ms: int,
        log_start_offset: int = 0,
        in_first_epoch: bool = False,
    ) -> Log:
        """Take the log in ``directory``, or make a new one there: ``in_first_epoch``, if the partition has had no
        leader epoch but 0, which is then on disk before it begins.

        A log that its last writer closed has an intact seal: it is taken away, and what ``close`` was given is
        ``note``. Without one, batches are checked from ``recovery_point`` on, the offset below which everything is
        known to be flushed, a torn tail is cut (``recovered_bytes_cut``), and ``note`` is None. Raises DirectoryLocked,
        or KafkaError: INCONSISTENT_TOPIC_ID if the directory belongs to another topic, KAFKA_STORAGE_ERROR.
        """
        directory = Path(directory)
        try:
            try:
                lock = DirectoryLock(directory)
            except FileNotFoundError:
                directory.mkdir(parents=True, exist_ok=True)
                lock = DirectoryLock(directory)
        except OSError as error:
            raise storage_error(f"opening {directory}", error) from error
        with ExitStack() as on_failure:
            on_failure.callback(lock.release)
            try:
                begin_with = BEGIN_WITH if in_first_epoch and not log_start_offset else {}
                is_new = claim(directory, topic_id, begin_with)
                segments, bound = Segments(directory), RecoveryBound(directory)
                on_failure.callback(segments.close)
                epochs, producers = (
                    LeaderEpochs(directory, ahead=is_new and bool(begin_with)),
                    ProducerStates(directory),
                )
                recovered = recover(
                    directory,
                    config,
                    segments,
                    epochs,
                    producers,
                    bound,
                    log_start_offset=log_start_offset,
                    recovery_point=recovery_point,
                    now_ms=now_ms,
                )
            except ValueError as error:
                raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(error)) from error
            except OSError as error:
                raise storage_error(f"opening {directory}", error) from error
            on_failure.pop_all()
        return Log(directory, config, lock, topic_id, segments, epochs, producers, bound, recovered)

    # looking

    @property
    def segments(self) -> tuple[int, ...]:
        """The base offsets of all segments, ascending. The same object until they change."""
        return self._segments.bases

    @property
    def segments_version(self) -> int:
        """Counts the changes of ``segments``."""
        return self._segments.version

    @property
    def size_bytes(self) -> int:
        """Bytes of all records."""
        return self._segments.size_bytes

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
        active = self._segments.active
        if offset == self.log_end_offset:
            return LogPosition(active.base_offset, active.size)
        recent = self._boundaries.get(offset)
        if recent is not None:
            return LogPosition(*recent)
        if offset > self.log_end_offset:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE, f"offset {offset} is behind the log end {self.log_end_offset}"
            )
        found = self._segments.find(offset)
        return found[0] if found else LogPosition(active.base_offset, active.size)

    # appending

    def check(
        self, records: memoryview, now_ms: int, *, from_client: bool = True, most_bytes: int = MOST_BYTES
    ) -> Checked:
        """What ``append_as_leader`` takes of the batches in ``records``, which may be changed. ``from_client`` is false
        for what the broker itself writes: such batches may be control batches. Raises KafkaError, and TooManyBytes as
        ``check_batches`` says. Safe in another thread."""
        if records.readonly:
            records = memoryview(bytearray(records))
        return check_batches(records, self.config, now_ms, from_client=from_client, most_bytes=most_bytes)

    def append_as_leader(
        self,
        records: memoryview,
        leader_epoch: int,
        now_ms: int,
        *,
        from_client: bool = True,
        checked: Checked | None = None,
    ) -> AppendInfo:
        """Check the batches in ``records``, unless that is done, give them offsets and ``leader_epoch`` in place, and
        write them. Raises DuplicateSequence for a batch that was appended before, KafkaError otherwise; then nothing
        was appended.
        """
        if self._failure:
            raise self._failure
        records, headers, append_time_ms = checked or self.check(records, now_ms, from_client=from_client)
        base_offset = offset = self.log_end_offset
        position, max_timestamp = 0, -1
        pending: dict[int, tuple[int, int]] = {}
        for header in headers:
            if header.producer_id != NO_PRODUCER_ID and from_client:
                self.producers.check(header, pending)
            BASE_OFFSET.pack_into(records, position, offset)
            LEADER_EPOCH.pack_into(records, position + LEADER_EPOCH_POSITION, leader_epoch)
            offset += header.last_offset_delta + 1
            position += header.length + PREFIX_BYTES
            if header.max_timestamp > max_timestamp:
                max_timestamp = header.max_timestamp
        if leader_epoch > self.epochs.latest_epoch:
            self.epochs.assign(leader_epoch, base_offset)
        self._store(records, headers, base_offset, offset, max_timestamp, now_ms)
        return _new_tuple(AppendInfo, (base_offset, offset - 1, append_time_ms, max_timestamp, position, records))

    def append_as_follower(self, records: memoryview, now_ms: int, *, gaps_allowed: bool = False) -> AppendInfo:
        """Write batches as their leader stored them. They must start at the log end and leave no gap, but for
        ``gaps_allowed`` (a compacted log). Raises CORRUPT_MESSAGE, OFFSET_OUT_OF_RANGE, KAFKA_STORAGE_ERROR."""
        if self._failure:
            raise self._failure
        headers = check_stored_batches(records, self.log_end_offset, gaps_allowed=gaps_allowed)
        max_timestamp, epochs = -1, self.epochs
        for header in headers:
            if header.leader_epoch > epochs.latest_epoch:
                epochs.assign(header.leader_epoch, header.base_offset)
            if header.max_timestamp > max_timestamp:
                max_timestamp = header.max_timestamp
        last_offset = headers[-1].last_offset
        self._store(records, headers, None, last_offset + 1, max_timestamp, now_ms)
        return AppendInfo(headers[0].base_offset, last_offset, -1, max_timestamp, len(records), records)

    def _store(
        self,
        records: memoryview,
        headers: list[BatchHeader],
        base_offset: int | None,
        end_offset: int,
        max_timestamp: int,
        now_ms: int,
    ) -> None:
        """Write batches at the log end; keep indexes, producer states and offsets in step. They have their own offsets,
        or go on from ``base_offset`` without a gap, up to ``end_offset``."""
        size = len(records)
        self._roll_if_due(size, end_offset - 1, max_timestamp, now_ms)
        segment = self._segments.active
        position = segment.size
        if not segment.is_open:
            self._segments.wake_active()
        try:
            write_all(segment.fd, records, position)
        except OSError as error:
            self._cut_back(segment)
            raise storage_error(f"writing {size} bytes to {self.directory}", error) from error
        segment.unsynced = True
        segment.size = position + size
        interval, boundaries, segment_base = self.config.index_interval_bytes, self._boundaries, segment.base_offset
        next_offset, start = base_offset, position
        for header in headers:
            offset = header.base_offset if next_offset is None else next_offset
            boundaries[offset] = (segment_base, position)
            batch_size = header.length + PREFIX_BYTES
            last_offset = offset + header.last_offset_delta
            segment.note(position, batch_size, last_offset, header.max_timestamp, interval)
            if header.producer_id != NO_PRODUCER_ID:
                at = position - start
                commit = marker_of(records[at : at + batch_size]) if header.is_control else None
                self.producers.take(header, offset, commit)
            position += batch_size
            if next_offset is not None:
                next_offset = last_offset + 1
        if len(boundaries) > _REMEMBERED_BOUNDARIES:
            self._boundaries = dict(list(boundaries.items())[_REMEMBERED_BOUNDARIES // 2 :])
        self.log_end_offset = self.producers.end_offset = end_offset
        if self._unflushed_since_ms is None:
            self._unflushed_since_ms = now_ms

    def _cut_back(self, segment: Segment) -> None:
        """Undo a write that failed half way; a log that cannot even be cut takes no more writes."""
        try:
            os.ftruncate(segment.fd, segment.size)
        except OSError as error:
            self._failure = storage_error(f"cutting {self.directory} back after a failed write", error)

    def _roll_if_due(self, size: int, last_offset: int, max_timestamp: int, now_ms: int) -> None:
        segment, config = self._segments.active, self.config
        if size > config.segment_bytes:
            raise KafkaError(
                ErrorCode.RECORD_LIST_TOO_LARGE,
                f"{size} bytes are over the topic's segment.bytes {config.segment_bytes}",
            )
        if not segment.size:
            segment.created_ms = now_ms
        elif not segment.takes(size, last_offset, max_timestamp, now_ms, config.segment_bytes):
            self.roll(now_ms)

    def roll(self, now_ms: int) -> None:
        """End the active segment and begin one at the log end, unless the active one is empty. Raises
        KAFKA_STORAGE_ERROR.
        """
        active = self._segments.active
        if not active.size:
            return
        try:
            self.producers.write_snapshot()
            active.seal_indexes()
            self._segments.begin(self.log_end_offset, self.config, now_ms)
        except OSError as error:
            raise storage_error(f"rolling {self.directory}", error) from error
        self._segments.rest()

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
        with self._recovery_lock:
            end, truncations, start = self.log_end_offset, self.truncations, self.recovery_point
            self._unflushed_since_ms = None
        self._sync()
        if start == end:
            return
        with self._recovery_lock:
            if truncations == self.truncations:
                self.recovery_point = max(self.recovery_point, end)
                self._bound.flushed(self.recovery_point)

    def _sync(self, *, names: bool = True) -> None:
        with self._sync_lock:  # what one has begun to sync is unknown to be durable to the other, too
            if self._failure:
                raise self._failure
            try:
                self.producers.sync_snapshots()
                if self._segments.unsynced:
                    self._segments.sync(names=names)
            except OSError as error:
                failure = storage_error(f"flushing {self.directory}", error)
                self._failure = failure
                raise failure from error

    def rest(self) -> bool:
        """Close the files of segments that are flushed; the active one's, if nothing was appended since the last call.
        To be called at intervals: a log that idles holds its lock alone. They are opened again when they are needed.

        Whether files of an idle log stay open for what is not flushed: ``flush`` then, and call again.
        """
        idle, self._end_at_rest = self._end_at_rest == self.log_end_offset, self.log_end_offset
        self._segments.rest(active=idle)
        return idle and not self._failure and any(segment.is_open for segment in self._segments)

    def close(self, note: Mapping[str, Any] | None = _NO_NOTE, *, flush: bool = True) -> None:
        """Flush, write the producers' snapshot and the seal with ``note`` (None: no seal), and release the directory.
        Raises KAFKA_STORAGE_ERROR; the lock is released even then, and the log is not sealed.

        Without ``flush`` nothing is synced, so that it does not wait for the disk. The recovery point stays where it
        is, and the seal is for this boot of the machine.
        """
        try:
            if self._failure:
                raise self._failure
            self._segments.active.seal_indexes()
            if self.producers.needs_snapshot:
                self.producers.write_snapshot()
            if flush:
                self._sync(names=note is None)  # the seal syncs the names
            self.purge(None)
            if note is not None:
                start, end = self.log_start_offset, self.log_end_offset
                flushed_to, boot = (end, None) if flush else (self.recovery_point, boot_id())
                states = tuple(segment.state() for segment in self._segments)
                seal = LogSeal(self._topic_id, start, end, flushed_to, boot, len(self.producers), states, note)
                write_seal(self.directory, seal)
            if flush:
                self.recovery_point = self.log_end_offset
                self._bound.flushed(self.recovery_point)
        except OSError as error:
            raise storage_error(f"closing {self.directory}", error) from error
        finally:
            self._segments.close()
            self._failure = self._failure or KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.directory} is closed")
            self._lock.release()

    # cutting

    def truncate_to(self, offset: int) -> None:
        """Drop everything from ``offset`` on; a batch that reaches over it goes whole. Raises KAFKA_STORAGE_ERROR,
        and then takes no more writes.
        """
        if offset >= self.log_end_offset:
            return
        segments = self._segments
        if offset < segments[0].base_offset:
            self.truncate_fully(offset)
            return
        with self._cutting():
            segments.drop_behind(offset, 0)
            found = segments.active.position_of(offset)
            end = offset
            if found:
                end = min(offset, found[1].base_offset)
                segments.active.cut(found[0])
            self._ends_at(end)
            self.epochs.truncate_from_end(end)
            rebuild_producers(self.producers, segments, self.log_start_offset, end)

    def truncate_fully(self, start_offset: int) -> None:
        """Drop all records; the log goes on from ``start_offset``. Raises as ``truncate_to``."""
        with self._cutting():
            self._segments.drop_behind(-1, 0)
            self._segments.begin(start_offset, self.config, 0)
            self.log_start_offset = start_offset
            self._ends_at(start_offset)
            self.epochs.truncate_fully(start_offset)
            self.producers.remove_snapshots(below=2**63)
            self.producers.clear(start_offset)

    def _ends_at(self, end: int) -> None:
        self._boundaries.clear()
        with self._recovery_lock:
            self.truncations += 1
            self.log_end_offset = end
            self.log_start_offset = min(self.log_start_offset, end)
            told, self.recovery_point = self.recovery_point, min(self.recovery_point, end)
        self._bound.lower(told, end)

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

    def expire(self, now_ms: int, high_watermark: int, *, by_retention: bool = True) -> int:
        """Remove the segments that retention no longer keeps, and producers silent for too long. Returns how many
        segments. Without ``by_retention`` only segments wholly below the log start go: a follower's retention is its
        leader's.

        Files are renamed at once and unlinked by ``purge`` after ``file.delete.delay.ms``. Nothing at or above the high
        watermark goes. Raises KAFKA_STORAGE_ERROR."""
        self.producers.expire(now_ms, self.config.producer_id_expiration_ms)
        segments = self._segments
        config = self.config if by_retention else replace(self.config, delete=False)
        count = expired_count(segments, config, now_ms, self.log_start_offset, self.log_end_offset, high_watermark)
        if count == 0:
            return 0
        if count == len(segments):
            try:
                self.roll(now_ms)
            except KafkaError:
                # no room for a new segment: there is some once the others are gone
                count -= 1
                if not count:
                    raise
        with self._cutting():
            first = segments[count].base_offset
            self.log_start_offset = max(self.log_start_offset, first)
            self.epochs.truncate_from_start(self.log_start_offset)
            segments.drop_first(count, now_ms + self.config.file_delete_delay_ms)
        self._boundaries = {offset: at for offset, at in self._boundaries.items() if at[0] >= first}
        return count

    def purge(self, now_ms: int | None) -> int:
        """Unlink deleted segments whose delay is over (all, without a time). Returns how many files are left. Safe in
        another thread. Raises KAFKA_STORAGE_ERROR.
        """
        return self._segments.purge(now_ms)

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
            self._failure = failure
            raise failure from error
