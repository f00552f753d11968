"""What happens to a classic group's members, what they are answered, and what is stored of them: frozen values.

A Join is answered by a JoinAnswer, a Sync by a SyncAnswer, a Leave by a LeaveAnswer, a Heartbeat by an ErrorCode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from raykafka.error_code import ErrorCode

UNKNOWN_MEMBER = ""
NO_GENERATION = -1

Protocols = tuple[tuple[str, bytes], ...]

# what is written to the offsets topic


@dataclass(frozen=True, slots=True)
class MemberSnapshot:
    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    assignment: bytes


@dataclass(frozen=True, slots=True)
class GroupSnapshot:
    """A group's generation as it is stored: empty, or with what every member was assigned."""

    group_id: str
    generation: int
    protocol_type: str | None
    protocol: str | None
    leader: str | None
    state_timestamp_ms: int
    members: tuple[MemberSnapshot, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """One group's metadata, or its tombstone (``value`` None)."""

    group_id: str
    value: GroupSnapshot | None


# answers


@dataclass(frozen=True, slots=True)
class JoinedMember:
    member_id: str
    instance_id: str | None
    metadata: bytes


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    """``members`` is filled for the leader only; ``skip_assignment`` tells a returning static leader not to assign."""

    error: ErrorCode
    member_id: str
    generation: int = NO_GENERATION
    protocol_type: str | None = None
    protocol: str | None = None
    leader: str = UNKNOWN_MEMBER
    skip_assignment: bool = False
    members: tuple[JoinedMember, ...] = ()


@dataclass(frozen=True, slots=True)
class SyncAnswer:
    error: ErrorCode
    protocol_type: str | None = None
    protocol: str | None = None
    assignment: bytes = b""


class Leaving(NamedTuple):
    """Who leaves: a member id, or for an administrator only the instance id of a static member."""

    member_id: str
    instance_id: str | None


@dataclass(frozen=True, slots=True)
class LeaveAnswer:
    error: ErrorCode
    members: tuple[tuple[Leaving, ErrorCode], ...] = ()


# events


@dataclass(frozen=True, slots=True)
class Join:
    """``new_member_id`` is the id to give if the member has none. ``require_known_member_id``: since JoinGroup v4 a new
    dynamic member is first told its id and joins again with it (KIP-394). ``can_skip_assignment``: since v9."""

    request: Any
    member_id: str
    instance_id: str | None
    new_member_id: str
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: Protocols
    require_known_member_id: bool = False
    can_skip_assignment: bool = False


@dataclass(frozen=True, slots=True)
class Sync:
    """``protocol_type`` and ``protocol`` are None where the client is too old to send them (before v5)."""

    request: Any
    member_id: str
    instance_id: str | None
    generation: int
    protocol_type: str | None
    protocol: str | None
    assignments: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    request: Any
    member_id: str
    instance_id: str | None
    generation: int


@dataclass(frozen=True, slots=True)
class Leave:
    request: Any
    members: tuple[Leaving, ...]
