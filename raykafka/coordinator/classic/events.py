"""What happens to a group, what it answers, and what it wants done: small frozen values, no behaviour.

``request`` is whatever the caller uses to find the request again; the rules only hand it back in a ``Reply``. Every
request event is answered by exactly one Reply to its ``request``. Times named ``now`` are of the boot-time clock and in
milliseconds; times named ``wall`` are milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from raykafka.error_code import ErrorCode
from raykafka.types import NO_EPOCH, TopicPartition

UNKNOWN_MEMBER = ""
NO_GENERATION = -1

Protocols = tuple[tuple[str, bytes], ...]


class Now(NamedTuple):
    """The two clocks (rule 23): boot-time for deadlines, wall for what is written down; both in milliseconds."""

    boot_ms: int
    wall_ms: int


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
class OffsetEntry:
    """One committed offset, or its tombstone (``value`` None)."""

    group_id: str
    partition: TopicPartition
    value: CommittedOffset | None


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """One group's metadata, or its tombstone (``value`` None)."""

    group_id: str
    value: GroupSnapshot | None


Entry = OffsetEntry | GroupEntry


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


@dataclass(frozen=True, slots=True)
class DeleteOffsetsAnswer:
    error: ErrorCode
    partitions: Mapping[TopicPartition, ErrorCode] = field(default_factory=dict)


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


@dataclass(frozen=True, slots=True)
class Commit:
    """Offsets with the commit timestamp already in them."""

    request: Any
    member_id: str
    instance_id: str | None
    generation: int
    offsets: Mapping[TopicPartition, CommittedOffset]


@dataclass(frozen=True, slots=True)
class DeleteGroup:
    request: Any


@dataclass(frozen=True, slots=True)
class DeleteOffsets:
    request: Any
    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: act on the deadlines that are over."""


@dataclass(frozen=True, slots=True)
class ExpireOffsets:
    """Drop what nobody committed for ``retention_ms``, and the group if nothing is left of it (KIP-211)."""

    retention_ms: int


@dataclass(frozen=True, slots=True)
class ForgetTopics:
    """These topics were deleted: drop their offsets."""

    topics: frozenset[str]


@dataclass(frozen=True, slots=True)
class Unload:
    """This coordinator no longer leads the group's partition."""


@dataclass(frozen=True, slots=True)
class Written:
    """An Append that the group asked for is committed at ``base_offset``, or failed with ``error``."""

    then: Any
    error: ErrorCode
    base_offset: int = -1


Event = (
    Join
    | Sync
    | Heartbeat
    | Leave
    | Commit
    | DeleteGroup
    | DeleteOffsets
    | Tick
    | ExpireOffsets
    | ForgetTopics
    | Unload
    | Written
)


# effects


@dataclass(frozen=True, slots=True)
class Reply:
    """``answer`` is a JoinAnswer, SyncAnswer, LeaveAnswer, DeleteOffsetsAnswer, an ErrorCode (Heartbeat, DeleteGroup),
    or for a Commit a mapping from TopicPartition to ErrorCode."""

    request: Any
    answer: Any


@dataclass(frozen=True, slots=True)
class Append:
    """Append ``entries`` in one batch; when they are committed or refused, step a Written with ``then``."""

    entries: tuple[Entry, ...]
    then: Any


Effect = Reply | Append
