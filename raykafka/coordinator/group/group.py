"""The rules of one classic consumer group, as Kafka 3.9 keeps them: a state machine without clock, socket or log.

``Group.step(event, now)`` changes the group and returns what is to be done: replies to requests, and records to append
to the offsets topic, whose fate comes back as a Written event (rule 24: what depends on a record is answered after it
is committed). ``next_deadline_ms`` says when a Tick is due. Membership is in ``rebalance``; here are the offsets and
the end of a group (KIP-211, KIP-229, KIP-496).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from raykafka.coordinator.classic.events import (
    UNKNOWN_MEMBER,
    Commit,
    DeleteGroup,
    DeleteOffsets,
    DeleteOffsetsAnswer,
    Effect,
    Entry,
    Event,
    ExpireOffsets,
    ForgetTopics,
    GroupEntry,
    GroupSnapshot,
    Heartbeat,
    Join,
    JoinAnswer,
    Leave,
    Now,
    OffsetEntry,
    Sync,
    SyncAnswer,
    Tick,
    Unload,
    Written,
)
from raykafka.coordinator.classic.membership import CONSUMER_PROTOCOL_TYPE, Member
from raykafka.coordinator.classic.rebalance import Rebalance, State
from raykafka.coordinator.classic.writes import (
    COMMIT_WRITE_ERRORS,
    AssignmentWrite,
    CommitWrite,
    EmptyWrite,
    RemovalWrite,
    StaticMemberWrite,
)
from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.offsets.table import OffsetTable
from raykafka.error_code import ErrorCode
from raykafka.types import TopicPartition


class Group(Rebalance):
    def __init__(self, group_id: str, config: GroupConfig) -> None:
        super().__init__(group_id, config)
        self._unloaded = False
        self.offsets = OffsetTable()
        self._handlers: dict[type, Callable[[Any], None]] = {
            Join: self._join,
            Sync: self._sync,
            Heartbeat: self._heartbeat,
            Leave: self._leave,
            Commit: self._commit,
            DeleteGroup: self._delete_group,
            DeleteOffsets: self._delete_offsets,
            Tick: lambda _: self._act_on_deadlines(),
            ExpireOffsets: self._expire_offsets,
            ForgetTopics: self._forget_topics,
            Unload: self._unload,
            Written: self._written,
        }

    def step(self, event: Event, now: Now) -> list[Effect]:
        self._now, self._effects = now, []
        self._handlers[type(event)](event)
        return self._effects

    @staticmethod
    def restored(snapshot: GroupSnapshot, config: GroupConfig, now: Now) -> Group:
        """The group as its last record tells it. Its members have a session timeout's time to be heard of again."""
        group = Group(snapshot.group_id, config)
        group._now = now
        group.generation = snapshot.generation
        group.protocol_type = snapshot.protocol_type or None
        group.protocol = snapshot.protocol
        group.state_timestamp_ms = snapshot.state_timestamp_ms
        for stored in snapshot.members:
            member = Member.stored(stored, snapshot.protocol or "")
            group.membership.add(member)
            group._beat(member)
        if snapshot.leader in group.membership:
            group.membership.leader = snapshot.leader
        group.subscribed_topics = group.membership.subscribed_topics(group.protocol_type, group.protocol)
        group.state = State.STABLE if group.members else State.EMPTY
        if len(group.members) > config.group_max_size:
            group._prepare_rebalance()
        return group

    @property
    def leaves_no_trace(self) -> bool:
        """True if nothing of this group is in the log or in anybody's hands, so that it may be forgotten at once."""
        return self.state is State.EMPTY and not (self.generation or self._pending_ids or self.offsets)

    @property
    def is_gone(self) -> bool:
        """True once the group's end is in the log."""
        return self.state is State.DEAD and not self.appends_in_flight

    # committing

    def _commit(self, event: Commit) -> None:
        error = self._commit_error(event)
        if error:
            self._reply(event.request, dict.fromkeys(event.offsets, error))
            return
        limit = self._config.offset_metadata_max_bytes
        refused = {
            partition: ErrorCode.OFFSET_METADATA_TOO_LARGE
            for partition, value in event.offsets.items()
            if len(value.metadata.encode("utf-16-le", "surrogatepass")) > 2 * limit  # Java counts UTF-16 units
        }
        accepted = {p: value for p, value in event.offsets.items() if p not in refused}
        if not accepted:
            self._reply(event.request, refused)
            return
        self.offsets.begin(accepted)
        entries = tuple(OffsetEntry(self.group_id, p, value) for p, value in accepted.items())
        self._append(entries, CommitWrite(event.request, accepted, refused))

    def _commit_error(self, event: Commit) -> ErrorCode:
        if self.state is State.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if event.generation < 0 and self.state is State.EMPTY:
            return ErrorCode.NONE  # a consumer that assigns itself, or an administrator
        if event.generation < 0 and event.member_id == UNKNOWN_MEMBER and event.instance_id is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        error = self._current_member_error(event.member_id, event.instance_id)
        if error:
            return error
        if event.generation != self.generation:
            return ErrorCode.ILLEGAL_GENERATION
        self._beat(self.members[event.member_id])
        return ErrorCode.REBALANCE_IN_PROGRESS if self.state is State.COMPLETING else ErrorCode.NONE

    def _commit_written(self, then: CommitWrite, error: ErrorCode, base_offset: int) -> None:
        self.offsets.end(then.offsets)
        if not error:
            self.offsets.put(then.offsets, base_offset)
        code = COMMIT_WRITE_ERRORS.get(error, error)
        self._reply(then.request, {**dict.fromkeys(then.offsets, code), **then.refused})

    # deleting

    def _delete_group(self, event: DeleteGroup) -> None:
        if self.state is State.DEAD:
            self._reply(event.request, ErrorCode.GROUP_ID_NOT_FOUND)
        elif self.state is not State.EMPTY:
            self._reply(event.request, ErrorCode.NON_EMPTY_GROUP)
        else:
            self._die(self.offsets.known(), event.request)

    def _delete_offsets(self, event: DeleteOffsets) -> None:
        if self.state is State.DEAD:
            self._reply(event.request, DeleteOffsetsAnswer(ErrorCode.GROUP_ID_NOT_FOUND))
            return
        if self.state is not State.EMPTY and self.protocol_type != CONSUMER_PROTOCOL_TYPE:
            self._reply(event.request, DeleteOffsetsAnswer(ErrorCode.NON_EMPTY_GROUP))
            return
        codes = {
            p: ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if self._may_consume(p.topic) else ErrorCode.NONE
            for p in event.partitions
        }
        known = self.offsets.known()
        doomed = tuple(p for p, code in codes.items() if code is ErrorCode.NONE and p in known)
        self._remove_offsets(doomed, event.request, DeleteOffsetsAnswer(ErrorCode.NONE, codes))

    def _may_consume(self, topic: str) -> bool:
        if self.state is State.EMPTY:
            return False
        return self.subscribed_topics is None or topic in self.subscribed_topics

    def _expire_offsets(self, event: ExpireOffsets) -> None:
        wall_ms, retention_ms = self._now.wall_ms, event.retention_ms
        expired: Collection[TopicPartition] = ()
        if self.state is State.EMPTY and self.protocol_type is not None:
            expired = self.offsets.expired(
                wall_ms, retention_ms, lambda v: max(v.commit_timestamp_ms, self.state_timestamp_ms), ()
            )
        elif self.state is State.STABLE and self.subscribed_topics is not None:
            expired = self.offsets.expired(
                wall_ms, retention_ms, lambda v: v.commit_timestamp_ms, self.subscribed_topics
            )
        elif self.protocol_type is None:
            expired = self.offsets.expired(wall_ms, retention_ms, lambda v: v.commit_timestamp_ms, ())
        self._remove_or_die(expired)

    def _forget_topics(self, event: ForgetTopics) -> None:
        self._remove_or_die([p for p in self.offsets.known() if p.topic in event.topics])

    def _remove_or_die(self, partitions: Collection[TopicPartition]) -> None:
        empty = self.state is State.EMPTY and not self._pending_ids
        if empty and self.offsets.known() <= set(partitions):
            self._die(partitions, None)
        else:
            self._remove_offsets(tuple(partitions), None, ErrorCode.NONE)

    def _die(self, partitions: Iterable[TopicPartition], request: Any) -> None:
        """Remove every trace of the group. No member ever was in generation 0, so it has no record of its own then."""
        doomed = tuple(partitions)
        entries: list[Entry] = [OffsetEntry(self.group_id, p, None) for p in doomed]
        if self.generation > 0:
            entries.append(GroupEntry(self.group_id, None))
        self._move_to(State.DEAD)
        if entries:
            self._append(tuple(entries), RemovalWrite(doomed, request))
        elif request is not None:
            self._reply(request, ErrorCode.NONE)

    def _remove_offsets(self, partitions: tuple[TopicPartition, ...], request: Any, answer: Any) -> None:
        if partitions:
            entries = tuple(OffsetEntry(self.group_id, p, None) for p in partitions)
            self._append(entries, RemovalWrite(partitions, request, answer))
        elif request is not None:
            self._reply(request, answer)

    def _removal_written(self, then: RemovalWrite, error: ErrorCode, base_offset: int) -> None:
        if not error:
            self.offsets.remove(then.partitions, base_offset)
        elif self.state is State.DEAD and not self._unloaded:
            self.state = State.EMPTY
        if then.request is None:
            return
        if not error:
            self._reply(then.request, then.answer)
            return
        code = COMMIT_WRITE_ERRORS.get(error, error)
        self._reply(then.request, DeleteOffsetsAnswer(code) if isinstance(then.answer, DeleteOffsetsAnswer) else code)

    # the rest

    def _unload(self, _: Unload) -> None:
        self._unloaded = True
        self.state = State.DEAD
        for member in self.members.values():
            self._answer_join(member, JoinAnswer(ErrorCode.NOT_COORDINATOR, member.member_id))
            self._answer_sync(member, SyncAnswer(ErrorCode.NOT_COORDINATOR))

    def _written(self, event: Written) -> None:
        self.appends_in_flight -= 1
        then = event.then
        if isinstance(then, CommitWrite):
            self._commit_written(then, event.error, event.base_offset)
        elif isinstance(then, AssignmentWrite):
            self._assignment_written(then, event.error)
        elif isinstance(then, StaticMemberWrite):
            self._static_member_written(then, event.error)
        elif isinstance(then, RemovalWrite):
            self._removal_written(then, event.error, event.base_offset)
        else:
            assert isinstance(then, EmptyWrite)
