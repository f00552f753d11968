"""What a log remembers of idempotent producers: their epochs, last batches and open transactions (KIP-98, KIP-360).

Snapshots are Kafka's ``<offset>.snapshot`` files: the state after every batch below that offset. Kafka writes an entry
for each producer, which holds its last batch; here is one for each batch that is remembered, the last one last, so
that Kafka reads what it would have written. A producer may have five batches in flight: whichever of them is sent again
to a log that was opened meanwhile, it must be known.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from crc32c import crc32c

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log.batch import BatchHeader, advance_sequence
from raykafka.log.batch_layout import MAX_INT32, NO_PRODUCER_EPOCH, NO_SEQUENCE
from raykafka.log.files import SNAPSHOT, offset_name, offset_of_name, write_all

REMEMBERED_BATCHES = 5  # as many as a producer may have in flight
_NO_OFFSET = -1
_SNAPSHOT_VERSION = 1
_SNAPSHOT_HEAD = struct.Struct(">hI")
_COUNT = struct.Struct(">i")
_ENTRY = struct.Struct(">qhiqiqiq")


class DuplicateSequence(KafkaError):
    """A batch that this log already holds: to be answered as a success, at the place where the first one went."""

    def __init__(self, base_offset: int, timestamp: int) -> None:
        super().__init__(ErrorCode.DUPLICATE_SEQUENCE_NUMBER, "the batch was appended before")
        self.base_offset = base_offset
        self.timestamp = timestamp


class RememberedBatch(NamedTuple):
    first_sequence: int
    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp: int


_NO_BATCH = RememberedBatch(NO_SEQUENCE, NO_SEQUENCE, _NO_OFFSET, 0, -1)


class Producer:
    """One producer id as its batches left it."""

    __slots__ = ("batches", "coordinator_epoch", "epoch", "last_timestamp", "transaction_start")

    def __init__(self, epoch: int = NO_PRODUCER_EPOCH) -> None:
        self.epoch = epoch
        self.batches: deque[RememberedBatch] = deque(maxlen=REMEMBERED_BATCHES)
        self.last_timestamp = -1
        self.coordinator_epoch = -1
        self.transaction_start = _NO_OFFSET

    @property
    def last_sequence(self) -> int:
        """The sequence number of its last record."""
        return self.batches[-1].last_sequence if self.batches else NO_SEQUENCE


def _entries(producer_id: int, producer: Producer) -> Iterator[bytes]:
    """The snapshot's entries of one producer. Kafka goes by the timestamp of the last one to forget a producer."""
    batches = producer.batches or (_NO_BATCH,)
    for number, batch in enumerate(batches, 1):
        yield _ENTRY.pack(
            producer_id,
            producer.epoch,
            batch.last_sequence,
            batch.last_offset,
            batch.offset_delta,
            producer.last_timestamp if number == len(batches) else batch.timestamp,
            producer.coordinator_epoch,
            producer.transaction_start,
        )


def _expected_after(sequence: int) -> int:
    return sequence + 1 if sequence < MAX_INT32 else 0


def snapshots_among(names: Iterable[str]) -> list[int]:
    """The offsets of the snapshots among the files of a log, ascending."""
    snapshots = (name for name in names if name.endswith(SNAPSHOT))
    return sorted(offset for name in snapshots if (offset := offset_of_name(name)) is not None)


class ProducerStates:
    """The producers of one log. ``end_offset`` is the offset up to which batches have been taken in."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._producers: dict[int, Producer] = {}
        self._open: dict[int, int] = {}  # producer id -> first offset of its open transaction
        self.end_offset = 0
        self._snapshot_at = -1  # the state is that of this snapshot, if its offset is ``end_offset``
        self._unsynced: deque[Path] = deque()

    def __len__(self) -> int:
        return len(self._producers)

    def get(self, producer_id: int) -> Producer | None:
        """What is known of a producer id, None if nothing is."""
        return self._producers.get(producer_id)

    @property
    def first_unstable_offset(self) -> int | None:
        """Where the oldest open transaction starts."""
        return min(self._open.values()) if self._open else None

    def check(self, header: BatchHeader, pending: dict[int, tuple[int, int]]) -> None:
        """Check that a client's batch is the next one of its producer. ``pending`` holds (epoch, last sequence) by
        producer id of earlier batches of the same append, and is given this one's.

        Raises DuplicateSequence, or KafkaError with INVALID_PRODUCER_EPOCH or OUT_OF_ORDER_SEQUENCE_NUMBER."""
        producer_id, epoch, sequence = header.producer_id, header.producer_epoch, header.base_sequence
        producer = self._producers.get(producer_id)
        last_sequence = header.last_sequence
        if producer is not None or producer_id in pending:
            if producer_id in pending:
                known_epoch, known_sequence = pending[producer_id]
            else:
                assert producer is not None
                known_epoch, known_sequence = producer.epoch, producer.last_sequence
                if epoch == known_epoch:
                    for batch in producer.batches:
                        if batch.first_sequence == sequence and batch.last_sequence == last_sequence:
                            raise DuplicateSequence(batch.last_offset - batch.offset_delta, batch.timestamp)
            if epoch < known_epoch:
                raise KafkaError(
                    ErrorCode.INVALID_PRODUCER_EPOCH,
                    f"producer {producer_id} has epoch {known_epoch} here, the batch is of epoch {epoch}",
                )
            if epoch > known_epoch:
                if sequence != 0 and known_epoch != NO_PRODUCER_EPOCH:
                    raise KafkaError(
                        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                        f"the new epoch {epoch} of producer {producer_id} starts with sequence {sequence} and not 0",
                    )
            elif sequence != _expected_after(known_sequence):
                raise KafkaError(
                    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                    f"producer {producer_id} sent sequence {sequence}, {_expected_after(known_sequence)} comes next",
                )
        pending[producer_id] = (epoch, last_sequence)

    def take(self, header: BatchHeader, base_offset: int, commit: bool | None = None) -> None:
        """Take in a batch that the log now holds at ``base_offset``. ``commit`` is what a transaction's marker says."""
        producer_id = header.producer_id
        producer = self._producers.get(producer_id)
        if producer is None:
            producer = self._producers[producer_id] = Producer(header.producer_epoch)
        elif producer.epoch != header.producer_epoch:
            producer.epoch = header.producer_epoch
            producer.batches.clear()
        producer.last_timestamp = header.max_timestamp
        if header.is_control:
            if commit is not None:
                producer.transaction_start = _NO_OFFSET
                self._open.pop(producer_id, None)
            return
        delta, sequence = header.last_offset_delta, header.base_sequence
        last_sequence = advance_sequence(sequence, delta)
        producer.batches.append(
            RememberedBatch(sequence, last_sequence, base_offset + delta, delta, header.max_timestamp)
        )
        if header.is_transactional and producer.transaction_start == _NO_OFFSET:
            producer.transaction_start = self._open[producer_id] = base_offset

    def expire(self, now_ms: int, expiration_ms: int) -> int:
        """Forget the producers without an open transaction whose last record is that old. Returns how many."""
        expired = [
            producer_id
            for producer_id, producer in self._producers.items()
            if producer.transaction_start == _NO_OFFSET and now_ms - producer.last_timestamp >= expiration_ms
        ]
        for producer_id in expired:
            del self._producers[producer_id]
        return len(expired)

    def clear(self, end_offset: int) -> None:
        self._producers.clear()
        self._open.clear()
        self.end_offset = end_offset
        self._snapshot_at = -1

    # snapshots

    def snapshot_path(self, offset: int) -> Path:
        """The snapshot file that holds the state at ``offset``."""
        return self._directory / offset_name(offset, SNAPSHOT)

    def snapshot_offsets(self) -> list[int]:
        """The offsets of the snapshot files there are, ascending."""
        return snapshots_among(os.listdir(self._directory))

    @property
    def needs_snapshot(self) -> bool:
        """Whether there are producers, and no snapshot that knows them."""
        return bool(self._producers) and self._snapshot_at != self.end_offset

    def write_snapshot(self) -> None:
        """Write the state as it is at ``end_offset``. OSError. A snapshot that is torn by a crash before
        ``sync_snapshots`` is seen and passed over when it is read.
        """
        entries = [entry for known in self._producers.items() for entry in _entries(*known)]
        body = _COUNT.pack(len(entries)) + b"".join(entries)
        path = self.snapshot_path(self.end_offset)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            write_all(fd, _SNAPSHOT_HEAD.pack(_SNAPSHOT_VERSION, crc32c(body)) + body, 0)
        finally:
            os.close(fd)
        self._unsynced.append(path)
        self._snapshot_at = self.end_offset

    def sync_snapshots(self) -> None:
        """fsync what ``write_snapshot`` wrote. Safe in another thread. OSError."""
        while self._unsynced:
            try:
                fd = os.open(self._unsynced.popleft(), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # its segment was dropped meanwhile
                continue
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def load_snapshot(self, offset: int) -> bool:
        """Become the state of the snapshot at ``offset``; false, and empty, if that file is not whole."""
        self.clear(offset)
        content = self.snapshot_path(offset).read_bytes()
        if len(content) < _SNAPSHOT_HEAD.size + _COUNT.size:
            return False
        version, crc = _SNAPSHOT_HEAD.unpack_from(content)
        body = content[_SNAPSHOT_HEAD.size :]
        (count,) = _COUNT.unpack_from(body)
        if version != _SNAPSHOT_VERSION or crc32c(body) != crc or len(body) != _COUNT.size + count * _ENTRY.size:
            return False
        for producer_id, epoch, sequence, last, delta, timestamp, coordinator_epoch, start in _ENTRY.iter_unpack(
            body[_COUNT.size :]
        ):
            producer = self._producers.setdefault(producer_id, Producer(epoch))
            producer.last_timestamp, producer.coordinator_epoch = timestamp, coordinator_epoch
            producer.transaction_start = start
            if start != _NO_OFFSET:
                self._open[producer_id] = start
            if sequence != NO_SEQUENCE:
                first = sequence - delta if sequence >= delta else sequence - delta + MAX_INT32 + 1
                producer.batches.append(RememberedBatch(first, sequence, last, delta, timestamp))
        self._snapshot_at = offset
        return True

    def remove_snapshots(self, *, below: int | None = None, above: int | None = None) -> None:
        """Remove the snapshot files at offsets < ``below`` or > ``above``. OSError."""
        for offset in self.snapshot_offsets():
            if (below is not None and offset < below) or (above is not None and offset > above):
                self.snapshot_path(offset).unlink(missing_ok=True)

    def keep_snapshots(self, offsets: tuple[int, ...]) -> None:
        """Remove the snapshots that are neither at one of ``offsets`` nor the newest. OSError."""
        found = self.snapshot_offsets()
        for offset in found[:-1]:
            if offset not in offsets:
                self.snapshot_path(offset).unlink()
