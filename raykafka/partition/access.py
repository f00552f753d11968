"""The access to a partition: who leads it, appends, and what may be read of its log.

Whoever serves clients goes by these protocols alone. They do not say where the replica is: in the caller's process, in
another one of its broker, or, for the moment, nowhere.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Collection
from typing import Protocol

from raykafka.cluster.image import PartitionState
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log import EpochEntry, FileRange, FoundOffset
from raykafka.partition.appends import ANY_EPOCH, Done
from raykafka.partition.view import View
from raykafka.types import LogPosition, TopicPartition


class Slice(Protocol):
    """Records that are read a chunk at a time while they are sent."""

    def __len__(self) -> int:
        """The number of bytes."""

    def chunks(self) -> AsyncIterator[memoryview]:
        """The bytes in order. Raises StaleRange when the log was cut meanwhile, KafkaError when the disk fails."""


class LogAccess(Protocol):
    """What may be read of a partition's log. ``view`` is how far, None while nothing may be read (rule 20)."""

    @property
    def view(self) -> View | None: ...

    def watch(self, woken: Callable[[], None]) -> None:
        """Call ``woken`` after every change of what may be read or who leads, until ``unwatch``."""

    def unwatch(self, woken: Callable[[], None]) -> None: ...

    async def locate(
        self, offset: int, max_bytes: int, *, committed: bool = False, min_one_batch: bool = True
    ) -> FileRange | None:
        """Where the batches from ``offset`` on lie that may be read: up to the last stable offset if ``committed``,
        else to the high watermark. None when there are none. ``max_bytes`` bounds them, but for the first batch if
        ``min_one_batch``. Raises KafkaError (OFFSET_OUT_OF_RANGE, KAFKA_STORAGE_ERROR)."""

    async def load(self, place: FileRange) -> memoryview | None:
        """The bytes at ``place``. None when the log was cut or closed meanwhile (rule 21)."""

    def slice(self, place: FileRange) -> Slice:
        """The bytes at ``place``, to be read while they are sent."""

    async def read(self, offset: int, max_bytes: int, *, committed: bool = False) -> memoryview:
        """Whole batches from ``offset`` on that may be read, at least one if there is one; empty if there is none.
        Raises KafkaError."""

    async def offset_for_timestamp(self, timestamp_ms: int, end: LogPosition, log_start: int) -> FoundOffset | None:
        """The first record before ``end`` that is not older than ``timestamp_ms``. None if there is none."""

    async def offset_of_max_timestamp(self, end: LogPosition, log_start: int) -> FoundOffset | None:
        """The first record before ``end`` with the largest timestamp. None if there is none."""

    async def end_of_epoch(self, leader_epoch: int, log_end: int) -> EpochEntry | None:
        """The largest epoch not above ``leader_epoch`` that the log knows, and the offset behind its last record.
        None where there are no files."""

    async def epoch_at(self, offset: int) -> int | None:
        """The leader epoch of the record at ``offset``, -1 where the log's epochs do not reach back so far. None where
        there are no files."""


class PartitionAccess(Protocol):
    """A partition with a replica on this broker. ``state`` is the newest that the controller told."""

    @property
    def tp(self) -> TopicPartition: ...

    @property
    def topic_id(self) -> uuid.UUID: ...

    @property
    def state(self) -> PartitionState: ...

    @property
    def log(self) -> LogAccess: ...

    @property
    def is_leader(self) -> bool:
        """Whether this broker leads the partition."""

    @property
    def is_opening(self) -> bool:
        """Whether its log is being opened: what is refused now may be answered soon."""

    def leader_error(self, leader_epoch: int = ANY_EPOCH) -> ErrorCode:
        """NONE when this broker leads the partition, in that epoch if one is given (KIP-320's fencing)."""

    def submit(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        """Append ``records`` as leader; ``done`` is called once with the outcome, perhaps before this returns. Appends
        reach the log in the order of the calls. ``records`` must not change afterwards."""

    async def delete_records(self, offset: int) -> int:
        """Have the log start at ``offset``, or at the high watermark for DELETE_ALL: what is below is served no more.
        Where it starts then. Raises KafkaError: OFFSET_OUT_OF_RANGE above the high watermark, POLICY_VIOLATION where
        ``cleanup.policy`` lets nothing be deleted, NOT_LEADER_OR_FOLLOWER also while the log is being opened."""

    def withdraw(self, appends: Collection[Done]) -> None:
        """Whoever submitted these is gone: those that still wait for the log to be opened are not written any more, nor
        answered."""


class Partitions(Protocol):
    """The partitions that have a replica on this broker, by topic and index."""

    def get(self, tp: tuple[str, int]) -> PartitionAccess | None:
        """The partition, or None."""

    def missing_error(self, tp: tuple[str, int]) -> ErrorCode:
        """The error of a request for a partition that is not here."""


def led_partition(partitions: Partitions, tp: tuple[str, int], leader_epoch: int) -> PartitionAccess:
    """The partition, which this broker leads: in ``leader_epoch``, unless that is ANY_EPOCH (KIP-320). Raises
    KafkaError."""
    access = partitions.get(tp)
    if access is None:
        raise KafkaError(partitions.missing_error(tp))
    error = access.leader_error(leader_epoch)
    if error is not ErrorCode.NONE:
        raise KafkaError(error)
    return access
