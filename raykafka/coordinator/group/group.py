"""One group: its members, its offsets, and what concerns both. Pure.

``Group.step(event, now)`` changes the group and returns what is to be done: replies to requests, and records to append
to the offsets topic, whose fate comes back as a Written event. The members are ``classic``'s, the offsets ``offsets``';
here is what needs both: who may commit (the members say, the offsets do), which offsets expire (KIP-211) or may be
deleted (KIP-496), and the end of a group (KIP-229).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from raykafka.coordinator.classic.events import GroupEntry, GroupSnapshot, Heartbeat, Join, Leave, Sync
from raykafka.coordinator.classic.membership import Member, Membership
from raykafka.coordinator.classic.rebalance import ClassicGroup, State
from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.group.events import DeleteGroup, Entry, Event, ExpireOffsets, ForgetTopics
from raykafka.coordinator.offsets.events import Commit, DeleteOffsets, DeleteOffsetsAnswer
from raykafka.coordinator.offsets.rules import Expiry, OffsetRules
from raykafka.coordinator.offsets.table import OffsetTable
from raykafka.coordinator.offsets.writes import COMMIT_WRITE_ERRORS, CommitWrite, RemovalWrite
from raykafka.coordinator.step import Append, Effect, Now, Reply, Tick, Unload, Written
from raykafka.error_code import ErrorCode
from raykafka.types import TopicPartition


@dataclass(frozen=True, slots=True)
class _EndWrite:
    """The group's end is on its way to the log: tombstones of ``partitions``, and the group's own. ``request``, unless
    it is None, is told when it is committed."""

    partitions: tuple[TopicPartition, ...]
    request: Any


class Group:
    def __init__(self, group_id: str, config: GroupConfig) -> None:
        self.group_id = group_id
        self.classic = ClassicGroup(group_id, config)
        self.offsets = OffsetTable()
        self._offset_rules = OffsetRules(group_id, self.offsets, config.offset_metadata_max_bytes)
        self._appends_in_flight = 0
        members = self.classic.step
        self._handlers: dict[type, Callable[[Any, Now], list[Effect]]] = {
            Join: members,
            Sync: members,
            Heartbeat: members,
            Leave: members,
            Tick: members,
            Unload: members,
            Commit: self._commit,
            DeleteGroup: self._delete,
            DeleteOffsets: self._delete_offsets,
            ExpireOffsets: self._expire_offsets,
            ForgetTopics: self._forget_topics,
            Written: self._written,
        }

    @staticmethod
    def restored(snapshot: GroupSnapshot, config: GroupConfig, now: Now) -> Group:
        """The group as its last record tells it, without offsets."""
        group = Group(snapshot.group_id, config)
        group.classic.restore(snapshot, now)
        return group

    def step(self, event: Event, now: Now) -> list[Effect]:
        effects = self._handlers[type(event)](event, now)
        for effect in effects:
            if isinstance(effect, Append):
                self._appends_in_flight += 1
        return effects

    def next_deadline_ms(self) -> int | None:
        """When (boot-time clock) a Tick has something to do; None: never. Heartbeats and commits only move it later."""
        return self.classic.next_deadline_ms()

    # what is told of it

    @property
    def state(self) -> State:
        return self.classic.state

    @property
    def generation(self) -> int:
        return self.classic.generation

    @property
    def protocol_type(self) -> str | None:
        return self.classic.protocol_type

    @property
    def protocol(self) -> str | None:
        return self.classic.protocol

    @property
    def membership(self) -> Membership:
        return self.classic.membership

    @property
    def members(self) -> dict[str, Member]:
        return self.classic.membership.members

    @property
    def leaves_no_trace(self) -> bool:
        """True if nothing of this group is in the log, on its way there or in anybody's hands, so that it may be
        forgotten at once."""
        known = self.classic.generation or self.offsets or self._appends_in_flight
        return self.classic.is_deserted and not known

    @property
    def is_gone(self) -> bool:
        """True once the group's end is in the log, or the last of its appends is decided after it was unloaded."""
        return not self._appends_in_flight and self.classic.state is State.DEAD

    # members and offsets

    def _commit(self, event: Commit, now: Now) -> list[Effect]:
        error = self.classic.commit_error(event.member_id, event.instance_id, event.generation, now)
        if error:
            return [Reply(event.request, dict.fromkeys(event.offsets, error))]
        return self._offset_rules.commit(event)

    def _delete_offsets(self, event: DeleteOffsets, now: Now) -> list[Effect]:
        error = self.classic.delete_offsets_error()
        if error:
            return [Reply(event.request, DeleteOffsetsAnswer(error))]
        return self._offset_rules.delete(event, self.classic.consumes)

    def _expire_offsets(self, event: ExpireOffsets, now: Now) -> list[Effect]:
        expiry = self._expiry()
        expired = self._offset_rules.expired(expiry, event.retention_ms, now) if expiry is not None else ()
        return self._remove_or_end(expired, now)

    def _expiry(self) -> Expiry | None:
        """A group that its members left keeps its offsets from then on; a stable one those of what it subscribes to;
        one that never had members each from its commit. While a group rebalances nothing expires."""
        classic = self.classic
        if classic.state is State.EMPTY and classic.protocol_type is not None:
            return Expiry(since_ms=classic.state_timestamp_ms)
        if classic.state is State.STABLE and classic.subscribed_topics is not None:
            return Expiry(kept_topics=classic.subscribed_topics)
        return Expiry() if classic.protocol_type is None else None

    def _forget_topics(self, event: ForgetTopics, now: Now) -> list[Effect]:
        return self._remove_or_end(self._offset_rules.of_topics(event.topics), now)

    def _remove_or_end(self, partitions: Collection[TopicPartition], now: Now) -> list[Effect]:
        if not partitions and not self.classic.generation:
            return []  # there is no record to end: it is forgotten once its appends are decided
        if self.classic.is_deserted and self.offsets.known() <= set(partitions):
            return self._end(partitions, None, now)
        return self._offset_rules.remove(partitions)

    # the end of a group

    def _delete(self, event: DeleteGroup, now: Now) -> list[Effect]:
        if self.state is State.DEAD:
            return [Reply(event.request, ErrorCode.GROUP_ID_NOT_FOUND)]
        if self.state is not State.EMPTY:
            return [Reply(event.request, ErrorCode.NON_EMPTY_GROUP)]
        return self._end(self.offsets.known(), event.request, now)

    def _end(self, partitions: Iterable[TopicPartition], request: Any, now: Now) -> list[Effect]:
        """Remove every trace of the group. No member ever was in generation 0, so it has no record of its own then."""
        doomed = tuple(partitions)
        entries: tuple[Entry, ...] = self._offset_rules.tombstones(doomed)
        if self.classic.generation > 0:
            entries = (*entries, GroupEntry(self.group_id, None))
        self.classic.die(now)
        if entries:
            return [Append(entries, _EndWrite(doomed, request))]
        return [Reply(request, ErrorCode.NONE)] if request is not None else []

    def _end_written(self, then: _EndWrite, error: ErrorCode, base_offset: int) -> list[Effect]:
        if error:
            self.classic.revive()
        else:
            self.offsets.remove(then.partitions, base_offset)
        return [Reply(then.request, COMMIT_WRITE_ERRORS.get(error, error))] if then.request is not None else []

    def _written(self, event: Written, now: Now) -> list[Effect]:
        self._appends_in_flight -= 1
        if isinstance(event.then, (CommitWrite, RemovalWrite)):
            return self._offset_rules.written(event.then, event.error, event.base_offset)
        if isinstance(event.then, _EndWrite):
            return self._end_written(event.then, event.error, event.base_offset)
        return self.classic.step(event, now)
