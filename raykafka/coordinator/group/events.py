"""What happens to a group as a whole: small frozen values. Its members' events are in ``classic.events``, those of its
offsets in ``offsets.events``. A DeleteGroup is answered by an ErrorCode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raykafka.coordinator.classic.events import GroupEntry, Heartbeat, Join, Leave, Sync
from raykafka.coordinator.offsets.events import Commit, DeleteOffsets, OffsetEntry
from raykafka.coordinator.step import Tick, Unload, Written

Entry = OffsetEntry | GroupEntry


@dataclass(frozen=True, slots=True)
class DeleteGroup:
    request: Any


@dataclass(frozen=True, slots=True)
class ExpireOffsets:
    """Drop what nobody committed for ``retention_ms``, and the group if nothing is left of it (KIP-211)."""

    retention_ms: int


@dataclass(frozen=True, slots=True)
class ForgetTopics:
    """These topics were deleted: drop their offsets."""

    topics: frozenset[str]


Event = (
    Join
    | Sync
    | Heartbeat
    | Leave
    | Commit
    | DeleteGroup
    | DeleteOffsets
    | ExpireOffsets
    | ForgetTopics
    | Tick
    | Unload
    | Written
)
