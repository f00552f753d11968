"""Idempotent producers that had a batch refused for now: what the batches in flight behind it are answered.

They may not get into the log before it, and are out of order only for that. With the same answer a producer sends all
of them again, in order; for an order that it can't explain librdkafka begins a new epoch for all its partitions, and
writes again whatever it has no answer to yet, also what is there.
"""

from __future__ import annotations

from typing import NamedTuple

from raykafka.error_code import ErrorCode
from raykafka.log.batch_layout import HEADER_BYTES, MAX_INT32, PRODUCER, PRODUCER_POSITION
from raykafka.process.clock import boot_clock

# errors after which a producer sends the same batch again
_FOR_NOW = frozenset(
    (
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.REQUEST_TIMED_OUT,
    )
)
# what is in flight behind a refused batch has come by then; an order that is wrong later is wrong
_BEHIND_WITHIN_S = 30.0
_MOST = 1000


class _Refused(NamedTuple):
    """The first batch that was refused, and when."""

    epoch: int
    sequence: int
    error: ErrorCode
    at_s: float

    def is_before(self, epoch: int, sequence: int) -> bool:
        ahead = (sequence - self.sequence) % (MAX_INT32 + 1)
        return epoch == self.epoch and 0 < ahead <= MAX_INT32 // 2 and boot_clock() - self.at_s < _BEHIND_WITHIN_S


class RefusedProducers:
    """Of one partition. False while there is none. Its methods take a batch, whole or not."""

    __slots__ = ("_refused",)

    def __init__(self) -> None:
        self._refused: dict[int, _Refused] = {}

    def __bool__(self) -> bool:
        return bool(self._refused)

    def refused(self, records: memoryview, error: ErrorCode) -> None:
        """The batch is answered ``error``."""
        if error not in _FOR_NOW or len(records) < HEADER_BYTES:
            return
        producer_id, epoch, sequence = PRODUCER.unpack_from(records, PRODUCER_POSITION)
        known = self._refused.get(producer_id)
        if producer_id < 0 or (known is not None and known.is_before(epoch, sequence)):
            return
        self._refused[producer_id] = _Refused(epoch, sequence, error, boot_clock())
        if len(self._refused) > _MOST:
            del self._refused[next(iter(self._refused))]

    def taken(self, records: memoryview) -> None:
        """The batch is in the log, or is handed to who writes it or refuses it."""
        if len(records) < HEADER_BYTES:
            return
        producer_id, epoch, sequence = PRODUCER.unpack_from(records, PRODUCER_POSITION)
        known = self._refused.get(producer_id)
        if known is not None and (epoch != known.epoch or sequence == known.sequence):
            del self._refused[producer_id]

    def behind(self, records: memoryview) -> ErrorCode:
        """What the batch is answered because one before it was refused; NONE where it may be written."""
        if len(records) < HEADER_BYTES:
            return ErrorCode.NONE
        producer_id, epoch, sequence = PRODUCER.unpack_from(records, PRODUCER_POSITION)
        known = self._refused.get(producer_id)
        return known.error if known is not None and known.is_before(epoch, sequence) else ErrorCode.NONE
