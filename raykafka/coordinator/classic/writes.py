"""What of a classic group's membership is on its way to the log, carried by an Append and handed back by a Written, and
what members are told when it did not get there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raykafka.coordinator.classic.events import Protocols
from raykafka.coordinator.step import NOT_WRITTEN
from raykafka.error_code import ErrorCode

GROUP_WRITE_ERRORS = {
    **NOT_WRITTEN,
    ErrorCode.REQUEST_TIMED_OUT: ErrorCode.REBALANCE_IN_PROGRESS,
    ErrorCode.MESSAGE_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
    ErrorCode.RECORD_LIST_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
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


MembershipWrite = AssignmentWrite | StaticMemberWrite | EmptyWrite
