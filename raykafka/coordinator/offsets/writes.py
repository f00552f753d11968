"""What of a group's offsets is on its way to the log, carried by an Append and handed back by a Written, and what
clients are told when it did not get there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raykafka.coordinator.offsets.events import CommittedOffset, DeleteOffsetsAnswer
from raykafka.coordinator.step import NOT_WRITTEN
from raykafka.error_code import ErrorCode
from raykafka.types import TopicPartition

COMMIT_WRITE_ERRORS = {
    **NOT_WRITTEN,
    ErrorCode.MESSAGE_TOO_LARGE: ErrorCode.INVALID_COMMIT_OFFSET_SIZE,
    ErrorCode.RECORD_LIST_TOO_LARGE: ErrorCode.INVALID_COMMIT_OFFSET_SIZE,
    ErrorCode.INVALID_FETCH_SIZE: ErrorCode.INVALID_COMMIT_OFFSET_SIZE,
}


@dataclass(frozen=True, slots=True)
class CommitWrite:
    """``offsets`` are on their way to the log; ``refused`` is what the others of the request are told."""

    request: Any
    offsets: Mapping[TopicPartition, CommittedOffset]
    refused: Mapping[TopicPartition, ErrorCode]


@dataclass(frozen=True, slots=True)
class RemovalWrite:
    """Tombstones of ``partitions`` are on their way to the log. ``request``, unless it is None, gets ``answer`` when
    they are committed."""

    partitions: tuple[TopicPartition, ...]
    request: Any = None
    answer: DeleteOffsetsAnswer | None = None


OffsetsWrite = CommitWrite | RemovalWrite
