"""The groups of one partition of ``__consumer_offsets``: what the coordinator's runtime coordinates for them. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from raykafka.coordinator.classic.events import (
    UNKNOWN_MEMBER,
    GroupEntry,
    GroupSnapshot,
    Heartbeat,
    Join,
    JoinAnswer,
    Leave,
    LeaveAnswer,
    Sync,
    SyncAnswer,
)
from raykafka.coordinator.group import records
from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.group.events import DeleteGroup, Entry, Event
from raykafka.coordinator.group.group import Group
from raykafka.coordinator.offsets.events import Commit, CommittedOffset, DeleteOffsets, DeleteOffsetsAnswer
from raykafka.coordinator.step import Effect, Now, Reply, Written
from raykafka.error_code import ErrorCode
from raykafka.types import TopicPartition


class Groups:
    """A runtime's ``Coordinated``; its keys are group ids. ``groups`` are all that are known; none until ``loaded``."""

    only_postpones = frozenset({Heartbeat, Commit})

    def __init__(self, config: GroupConfig) -> None:
        self.groups: dict[str, Group] = {}
        self._config = config
        self._snapshots: dict[str, GroupSnapshot] = {}
        self._offsets: dict[str, dict[TopicPartition, tuple[CommittedOffset, int]]] = {}

    # loading

    def replay(self, offset: int, key: bytes, value: bytes | None) -> None:
        """Take in one record: the last one of each key counts. Raises UnreadableOffsetsRecord."""
        entry = records.decode(key, value)
        if isinstance(entry, GroupEntry):
            if entry.value is None:
                self._snapshots.pop(entry.group_id, None)
            else:
                self._snapshots[entry.group_id] = entry.value
        elif entry is not None:
            offsets = self._offsets.setdefault(entry.group_id, {})
            if entry.value is None:
                offsets.pop(entry.partition, None)
            else:
                offsets[entry.partition] = (entry.value, offset)

    def loaded(self, now: Now) -> None:
        """All records are replayed: the sessions of the groups' members begin ``now``."""
        snapshots, self._snapshots = self._snapshots, {}
        offsets_of, self._offsets = self._offsets, {}
        for name, snapshot in snapshots.items():
            self.groups[name] = Group.restored(snapshot, self._config, now)
        for name, offsets in offsets_of.items():
            if not offsets:
                continue
            group = self.groups.get(name) or self.groups.setdefault(name, Group(name, self._config))
            for partition, (value, log_offset) in offsets.items():
                group.offsets.put_one(partition, value, log_offset)

    # running

    def keys(self) -> Collection[str]:
        return self.groups.keys()

    def step(self, key: str, event: Event, now: Now) -> list[Effect]:
        """Step the group ``key``. One that joins or commits makes it; what has left no trace is forgotten."""
        group = self.groups.get(key)
        if isinstance(event, Join):
            error = self._join_error(event, is_known=group is not None)
            if error:
                return [Reply(event.request, JoinAnswer(error, event.member_id))]
        if group is None:
            makes_it = isinstance(event, Join) or (isinstance(event, Commit) and event.generation < 0)
            if not makes_it:
                return _unknown(event)
            group = self.groups[key] = Group(key, self._config)
        effects = group.step(event, now)
        if group.is_gone or group.leaves_no_trace:
            del self.groups[key]
        return effects

    def next_deadline_ms(self, key: str) -> int | None:
        group = self.groups.get(key)
        return None if group is None else group.next_deadline_ms()

    def encode(self, entry: Entry) -> tuple[bytes, bytes | None]:
        return records.encode(entry)

    def _join_error(self, event: Join, *, is_known: bool) -> ErrorCode:
        limits = self._config.group_min_session_timeout_ms, self._config.group_max_session_timeout_ms
        if not limits[0] <= event.session_timeout_ms <= limits[1]:
            return ErrorCode.INVALID_SESSION_TIMEOUT
        return ErrorCode.NONE if is_known or event.member_id == UNKNOWN_MEMBER else ErrorCode.UNKNOWN_MEMBER_ID


def _unknown(event: Event) -> list[Effect]:
    """What is answered for a group that is not known."""
    answer: Any
    match event:
        case Sync():
            answer = SyncAnswer(ErrorCode.UNKNOWN_MEMBER_ID)
        case Heartbeat():
            answer = ErrorCode.UNKNOWN_MEMBER_ID
        case Leave():
            answer = LeaveAnswer(ErrorCode.NONE, tuple((m, ErrorCode.UNKNOWN_MEMBER_ID) for m in event.members))
        case Commit():
            answer = dict.fromkeys(event.offsets, ErrorCode.ILLEGAL_GENERATION)
        case DeleteGroup():
            answer = ErrorCode.GROUP_ID_NOT_FOUND
        case DeleteOffsets():
            answer = DeleteOffsetsAnswer(ErrorCode.GROUP_ID_NOT_FOUND)
        case Written():
            raise RuntimeError("an append is decided of a group that was forgotten: who waits for it gets no answer")
        case _:
            return []
    return [Reply(event.request, answer)]
