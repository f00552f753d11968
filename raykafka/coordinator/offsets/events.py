"""What happens to a group's offsets, what is answered, and what is stored of them: frozen values.

A Commit is answered by a mapping from TopicPartition to ErrorCode, DeleteOffsets by a DeleteOffsetsAnswer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raykafka.error_code import ErrorCode
from raykafka.types import NO_EPOCH, TopicPartition

# what is written to the offsets topic


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """``expire_timestamp_ms`` is set only where an old client (OffsetCommit v2-4) named a retention of its own."""

    offset: int
    leader_epoch: int = NO_EPOCH
    metadata: str = ""
    commit_timestamp_ms: int = -1
    expire_timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class OffsetEntry:
    """One committed offset, or its tombstone (``value`` None)."""

    group_id: str
    partition: TopicPartition
    value: CommittedOffset | None


# events and answers


@dataclass(frozen=True, slots=True)
class Commit:
    """Offsets with the commit timestamp already in them."""

    request: Any
    member_id: str
    instance_id: str | None
    generation: int
    offsets: Mapping[TopicPartition, CommittedOffset]


@dataclass(frozen=True, slots=True)
class DeleteOffsets:
    request: Any
    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class DeleteOffsetsAnswer:
    error: ErrorCode
    partitions: Mapping[TopicPartition, ErrorCode] = field(default_factory=dict)
