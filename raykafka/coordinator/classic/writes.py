"""What a group has on its way to the log, carried by an Append and handed back by a Written, and what clients are told
when it did not get there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raykafka.coordinator.classic.events import CommittedOffset, Protocols
from raykafka.error_code import ErrorCode
from raykafka.types import TopicPartition

_NOT_WRITTEN = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER: ErrorCode.NOT_COORDINATOR,
    ErrorCode.FENCED_LEADER_EPOCH: ErrorCode.NOT_COORDINATOR,
    ErrorCode.KAFKA_STORAGE_ERROR: ErrorCode.NOT_COORDINATOR,
}

GROUP_WRITE_ERRORS = {
    **_NOT_WRITTEN,
    ErrorCode.REQUEST_TIMED_OUT: ErrorCode.REBALANCE_IN_PROGRESS,
    ErrorCode.MESSAGE_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
    ErrorCode.RECORD_LIST_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
}

COMMIT_WRITE_ERRORS = {
    **_NOT_WRITTEN,
    ErrorCode.MESSAGE_TOO_LARGE: ErrorCode.INVALID_COMMIT_OFFSET_SIZE,
    ErrorCode.RECORD_LIST_TOO_LARGE: ErrorCode.INVALID_COMMIT_OFFSET_SIZE,
    ErrorCode.INVALID_FETCH_SIZE: ErrorCode.INVALID_COMMIT_OFFSET_SIZE,
}


@dataclass(frozen=True, slots=True)
class AssignmentWrite:
    """The leader's assignment of ``generation`` is on its way to the log."""

    generation: int
    assignments: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class StaticMemberWrite:
    """A static member's new id is on its way to the log; the rest is what to go back to if that fails."""

    request: Any
    member_id: str
    old_member_id: str
    old_leader: str
    old_protocols: Protocols
    old_session_timeout_ms: int
    old_rebalance_timeout_ms: int
    can_skip_assignment: bool


@dataclass(frozen=True, slots=True)
class EmptyWrite:
    """An empty generation is on its way to the log; if it is lost, the one before comes back and its members expire."""


@dataclass(frozen=True, slots=True)
class CommitWrite:
    request: Any
    offsets: Mapping[TopicPartition, CommittedOffset]
    refused: Mapping[TopicPartition, ErrorCode]


@dataclass(frozen=True, slots=True)
class RemovalWrite:
    """Tombstones of ``partitions`` are on their way to the log, and the group's own if it dies with them. ``request``
    gets ``answer`` when they are committed."""

    partitions: tuple[TopicPartition, ...]
    request: Any = None
    answer: Any = ErrorCode.NONE
