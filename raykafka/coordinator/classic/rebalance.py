"""The classic protocol of one group, as Kafka 3.9 keeps it: joining, syncing, heartbeats, leaving, and all their
deadlines. A state machine without clock, socket or log:

    Empty -> PreparingRebalance -> CompletingRebalance -> Stable, back to PreparingRebalance on any change of members,
    to Empty when the last one is gone, to Dead when the group is deleted or this coordinator loses it.

Sources: KIP-62 (session and rebalance timeouts), KIP-134 (initial delay), KIP-345 and KIP-814 (static members), KIP-394
(member ids), and what a Kafka 3.9.2 answers.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from raykafka.coordinator.classic.events import (
    UNKNOWN_MEMBER,
    GroupEntry,
    GroupSnapshot,
    Heartbeat,
    Join,
    JoinAnswer,
    Leave,
    LeaveAnswer,
    Leaving,
    Sync,
    SyncAnswer,
)
from raykafka.coordinator.classic.membership import CONSUMER_PROTOCOL_TYPE, NEVER, Member, Membership
from raykafka.coordinator.classic.writes import (
    GROUP_WRITE_ERRORS,
    AssignmentWrite,
    EmptyWrite,
    MembershipWrite,
    StaticMemberWrite,
)
from raykafka.coordinator.step import Append, Effect, Now, Reply, Tick, Unload, Written
from raykafka.error_code import ErrorCode

NEW_MEMBER_JOIN_TIMEOUT_MS = 5 * 60 * 1000


class State(Enum):
    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


class ClassicConfig(Protocol):
    """What the rules need of Kafka's broker configs."""

    @property
    def group_initial_rebalance_delay_ms(self) -> int: ...
    @property
    def group_max_size(self) -> int: ...


Event = Join | Sync | Heartbeat | Leave | Tick | Unload | Written


class ClassicGroup:
    """Handlers change the state and append to ``_effects``; ``_now`` is the time of the step."""

    def __init__(self, group_id: str, config: ClassicConfig) -> None:
        self.group_id = group_id
        self.state = State.EMPTY
        self.generation = 0
        self.protocol_type: str | None = None
        self.protocol: str | None = None
        self.membership = Membership()
        self.subscribed_topics: frozenset[str] | None = None
        self.state_timestamp_ms = -1
        self._config = config
        self._now = Now(0, 0)
        self._effects: list[Effect] = []
        self._unloaded = False
        self._pending_ids: dict[str, int] = {}
        self._unsynced: set[str] = set()
        self._assigned_generation = 0
        self._join_deadline_ms = NEVER
        self._sync_deadline_ms = NEVER
        self._initial_delay_left_ms: int | None = None
        self._joined_in_initial_delay = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            Join: self._join,
            Sync: self._sync,
            Heartbeat: self._heartbeat,
            Leave: self._leave,
            Tick: lambda _: self._act_on_deadlines(),
            Unload: lambda _: self._unload(),
            Written: self._written,
        }

    def step(self, event: Event, now: Now) -> list[Effect]:
        self._now, self._effects = now, []
        self._handlers[type(event)](event)
        return self._effects

    def restore(self, snapshot: GroupSnapshot, now: Now) -> None:
        """Become what the group's last record tells. Its members have a session timeout's time to be heard of again."""
        self._now = now
        self.generation = snapshot.generation
        self.protocol_type = snapshot.protocol_type or None
        self.protocol = snapshot.protocol
        self.state_timestamp_ms = snapshot.state_timestamp_ms
        for stored in snapshot.members:
            member = Member.stored(stored, snapshot.protocol or "")
            self.membership.add(member)
            self._beat(member)
        if snapshot.leader in self.membership:
            self.membership.leader = snapshot.leader
        self.subscribed_topics = self.membership.subscribed_topics(self.protocol_type, self.protocol)
        self.state = State.STABLE if self.members else State.EMPTY
        if len(self.members) > self._config.group_max_size:
            self._prepare_rebalance()

    @property
    def members(self) -> dict[str, Member]:
        return self.membership.members

    # what the group's other rules need to know of its members

    @property
    def is_deserted(self) -> bool:
        """True if nobody is in the group, or about to join it."""
        return self.state is State.EMPTY and not self._pending_ids

    def consumes(self, topic: str) -> bool:
        """Whether a member may read ``topic``, as far as is known."""
        if self.state is State.EMPTY:
            return False
        return self.subscribed_topics is None or topic in self.subscribed_topics

    def commit_error(self, member_id: str, instance_id: str | None, generation: int, now: Now) -> ErrorCode:
        """NONE if this one may commit offsets now. A member's session begins anew."""
        self._now = now
        if self.state is State.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if generation < 0 and self.state is State.EMPTY:
            return ErrorCode.NONE  # a consumer that assigns itself, or an administrator
        if generation < 0 and member_id == UNKNOWN_MEMBER and instance_id is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        error = self._caller_error(member_id, instance_id, generation)
        if error:
            return error
        self._beat(self.members[member_id])
        return ErrorCode.REBALANCE_IN_PROGRESS if self.state is State.COMPLETING else ErrorCode.NONE

    def delete_offsets_error(self) -> ErrorCode:
        """NONE if offsets of topics that nobody consumes may be deleted (KIP-496)."""
        if self.state is State.DEAD:
            return ErrorCode.GROUP_ID_NOT_FOUND
        strangers = self.state is not State.EMPTY and self.protocol_type != CONSUMER_PROTOCOL_TYPE
        return ErrorCode.NON_EMPTY_GROUP if strangers else ErrorCode.NONE

    # deadlines

    def next_deadline_ms(self) -> int | None:
        """When (boot-time clock) a Tick has something to do; None: never. Heartbeats and commits only move it later."""
        soonest = min(self._join_deadline_ms, self._sync_deadline_ms)
        for member in self.members.values():
            if member.expires_at_ms < soonest:
                soonest = member.expires_at_ms
        soonest = min((soonest, *self._pending_ids.values()))
        return None if soonest == NEVER else soonest

    # effects

    def _reply(self, request: Any, answer: Any) -> None:
        self._effects.append(Reply(request, answer))

    def _move_to(self, state: State) -> None:
        self.state = state
        self.state_timestamp_ms = self._now.wall_ms

    def _snapshot(self, assignments: dict[str, bytes]) -> GroupSnapshot:
        members = (m.snapshot(self.protocol, assignments.get(m.member_id, b"")) for m in self.members.values())
        return GroupSnapshot(
            self.group_id,
            self.generation,
            self.protocol_type,
            self.protocol,
            self.membership.leader,
            self.state_timestamp_ms,
            tuple(members),
        )

    def _store(self, assignments: dict[str, bytes], then: MembershipWrite) -> None:
        entry = GroupEntry(self.group_id, self._snapshot(assignments))
        self._effects.append(Append((entry,), then))

    def _caller_error(self, member_id: str, instance_id: str | None, generation: int) -> ErrorCode:
        """NONE if this is a member of the current generation."""
        if self.state is State.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        error = self.membership.error_of(member_id, instance_id)
        if error:
            return error
        return ErrorCode.NONE if generation == self.generation else ErrorCode.ILLEGAL_GENERATION

    # joining

    def _join(self, event: Join) -> None:
        if self.state is State.DEAD:
            self._reply(event.request, JoinAnswer(ErrorCode.COORDINATOR_NOT_AVAILABLE, event.member_id))
        elif not self._has_room_for(event.member_id):
            self._pending_ids.pop(event.member_id, None)
            if event.member_id in self.membership:
                self._drop(event.member_id)
            self._reply(event.request, JoinAnswer(ErrorCode.GROUP_MAX_SIZE_REACHED, UNKNOWN_MEMBER))
        elif not self._agrees_on_protocol(event):
            self._reply(event.request, JoinAnswer(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, event.member_id))
        elif event.member_id == UNKNOWN_MEMBER:
            self._join_new(event)
        elif event.member_id in self._pending_ids:
            del self._pending_ids[event.member_id]
            self._add(event, event.member_id)
        else:
            self._join_again(event)
        self._complete_join_if_all_joined()

    def _has_room_for(self, member_id: str) -> bool:
        if self.state is State.PREPARING:
            member = self.members.get(member_id)
            waits = member is not None and member.join_request is not None
            return waits or self.membership.awaiting_join < self._config.group_max_size
        if self.state in (State.COMPLETING, State.STABLE):
            return member_id in self.membership or len(self.membership) < self._config.group_max_size
        return True

    def _agrees_on_protocol(self, event: Join) -> bool:
        if self.state is State.EMPTY:
            return bool(event.protocol_type and event.protocols)
        return self.protocol_type == event.protocol_type and self.membership.supports(event.protocols)

    def _join_new(self, event: Join) -> None:
        known_as = self.membership.static_member_id(event.instance_id)
        if known_as is not None:
            self._replace_static(event, known_as)
        elif event.instance_id is None and event.require_known_member_id:
            self._pending_ids[event.new_member_id] = self._now.boot_ms + event.session_timeout_ms
            self._reply(event.request, JoinAnswer(ErrorCode.MEMBER_ID_REQUIRED, event.new_member_id))
        else:
            self._add(event, event.new_member_id)

    def _add(self, event: Join, member_id: str) -> None:
        if self.state is State.PREPARING and self.generation == 0:
            self._joined_in_initial_delay = True
        if not self.members:
            self.protocol_type = event.protocol_type
        member = Member.joining(event, member_id)
        member.expires_at_ms = self._now.boot_ms + NEW_MEMBER_JOIN_TIMEOUT_MS
        self.membership.add(member)
        self._prepare_rebalance()

    def _join_again(self, event: Join) -> None:
        error = self.membership.error_of(event.member_id, event.instance_id)
        if error or self.state is State.EMPTY:
            self._reply(event.request, JoinAnswer(error or ErrorCode.UNKNOWN_MEMBER_ID, event.member_id))
            return
        member = self.members[event.member_id]
        unchanged = member.protocols == event.protocols
        leads = self.membership.leader == event.member_id
        if unchanged and (self.state is State.COMPLETING or (self.state is State.STABLE and not leads)):
            self._reply(event.request, self._joined(member))
            return
        self._update(member, event)
        self._prepare_rebalance()

    def _update(self, member: Member, event: Join) -> None:
        self._answer_join(member, JoinAnswer(ErrorCode.REBALANCE_IN_PROGRESS, member.member_id))
        member.protocols = event.protocols
        member.session_timeout_ms = event.session_timeout_ms
        member.rebalance_timeout_ms = event.rebalance_timeout_ms
        member.join_request = event.request

    def _joined(self, member: Member, *, leader: str | None = None, skip_assignment: bool = False) -> JoinAnswer:
        leads = self.membership.leader == member.member_id and leader is None
        return JoinAnswer(
            ErrorCode.NONE,
            member.member_id,
            self.generation,
            self.protocol_type,
            self.protocol,
            leader if leader is not None else (self.membership.leader or UNKNOWN_MEMBER),
            skip_assignment and leads,
            self.membership.joined(self.protocol) if leads else (),
        )

    def _replace_static(self, event: Join, old_member_id: str) -> None:
        """A static member comes back without its id: it takes its old place, and in a stable group its assignment."""
        member = self.members[old_member_id]
        before = StaticMemberWrite(
            event.request,
            event.new_member_id,
            old_member_id,
            self.membership.leader or UNKNOWN_MEMBER,
            member.protocols,
            member.session_timeout_ms,
            member.rebalance_timeout_ms,
            event.can_skip_assignment,
        )
        self._answer_join(member, JoinAnswer(ErrorCode.FENCED_INSTANCE_ID, old_member_id))
        self._answer_sync(member, SyncAnswer(ErrorCode.FENCED_INSTANCE_ID))
        self._unsynced.discard(old_member_id)
        self.membership.rename(member, event.new_member_id)
        self._update(member, event)
        self._beat(member)
        if self.state is State.STABLE and self.membership.select_protocol() == self.protocol:
            self._store({m.member_id: m.assignment for m in self.members.values()}, before)
        elif self.state is not State.PREPARING:
            self._prepare_rebalance()

    def _static_member_written(self, then: StaticMemberWrite, error: ErrorCode) -> None:
        member = self.members.get(then.member_id)
        if member is None or member.join_request is not then.request or self.state is not State.STABLE:
            return  # a rebalance began meanwhile, and its end answers the join; or the join is answered already
        if error:
            member.join_request = None
            member.protocols = then.old_protocols
            member.session_timeout_ms = then.old_session_timeout_ms
            member.rebalance_timeout_ms = then.old_rebalance_timeout_ms
            self.membership.rename(member, then.old_member_id)
            answer = JoinAnswer(
                GROUP_WRITE_ERRORS.get(error, error),
                UNKNOWN_MEMBER,
                self.generation,
                self.protocol_type,
                self.protocol,
                then.old_leader,
            )
            self._reply(then.request, answer)
        elif then.can_skip_assignment:
            self._answer_join(member, self._joined(member, skip_assignment=True))
        else:
            # An old client that is told that it leads would assign again, and a stable group would not hand that out.
            self._answer_join(member, self._joined(member, leader=then.old_leader))
        self._beat(member)

    # rebalancing

    def _prepare_rebalance(self) -> None:
        if self.state not in (State.EMPTY, State.COMPLETING, State.STABLE):
            return
        if self.state is State.COMPLETING:
            self._propagate({}, ErrorCode.REBALANCE_IN_PROGRESS)
        self._sync_deadline_ms = NEVER
        timeout_ms = self.membership.rebalance_timeout_ms
        if self.state is State.EMPTY:
            delay_ms = self._config.group_initial_rebalance_delay_ms
            self._initial_delay_left_ms = max(timeout_ms - delay_ms, 0)
            timeout_ms = delay_ms
        self._join_deadline_ms = self._now.boot_ms + timeout_ms
        self._move_to(State.PREPARING)
        self._complete_join_if_all_joined()

    def _complete_join_if_all_joined(self) -> None:
        if self.state is not State.PREPARING or self._initial_delay_left_ms is not None or self._pending_ids:
            return
        if self.membership.awaiting_join == len(self.membership):
            self._complete_join()

    def _join_deadline_passed(self) -> None:
        left_ms = self._initial_delay_left_ms
        if left_ms and self._joined_in_initial_delay:
            self._joined_in_initial_delay = False
            delay_ms = min(self._config.group_initial_rebalance_delay_ms, left_ms)
            self._initial_delay_left_ms = left_ms - delay_ms
            self._join_deadline_ms = self._now.boot_ms + delay_ms
            return
        self._complete_join()

    def _complete_join(self) -> None:
        self._initial_delay_left_ms = None
        for member in list(self.members.values()):
            if member.join_request is None and member.instance_id is None:
                self._drop(member.member_id)
        if not self.membership.elect_joined_leader() and self.members:
            # Only static members are left and none of them is back: wait for them until their sessions end.
            self._join_deadline_ms = self._now.boot_ms + self.membership.rebalance_timeout_ms
            return
        self._join_deadline_ms = NEVER
        self._begin_generation()

    def _begin_generation(self) -> None:
        self.generation += 1
        self._unsynced = set(self.members)
        self.protocol = self.membership.select_protocol() if self.members else None
        self.subscribed_topics = self.membership.subscribed_topics(self.protocol_type, self.protocol)
        if not self.members:
            self._move_to(State.EMPTY)
            self._store({}, EmptyWrite())
            return
        self._move_to(State.COMPLETING)
        self._sync_deadline_ms = self._now.boot_ms + self.membership.rebalance_timeout_ms
        for member in self.members.values():
            member.is_new = False
            self._answer_join(member, self._joined(member))
            self._beat(member)

    def _answer_join(self, member: Member, answer: JoinAnswer) -> None:
        request, member.join_request = member.join_request, None
        if request is not None:
            self._reply(request, answer)

    # syncing

    def _sync(self, event: Sync) -> None:
        error = self._sync_error(event)
        if error:
            self._reply(event.request, SyncAnswer(error))
            return
        member = self.members[event.member_id]
        self._unsynced.discard(event.member_id)
        if self.state is State.STABLE:
            self._reply(event.request, SyncAnswer(error, self.protocol_type, self.protocol, member.assignment))
            self._beat(member)
            return
        self._answer_sync(member, SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS))
        member.sync_request = event.request
        # The first assignment of a generation is the one: a second would overtake in the log what members were told.
        if event.member_id == self.membership.leader and self._assigned_generation < self.generation:
            self._assigned_generation = self.generation
            assignments = {m: event.assignments.get(m, b"") for m in self.members}
            self._store(assignments, AssignmentWrite(self.generation, assignments))

    def _sync_error(self, event: Sync) -> ErrorCode:
        error = self._caller_error(event.member_id, event.instance_id, event.generation)
        if error:
            return error
        if event.protocol_type not in (None, self.protocol_type) or event.protocol not in (None, self.protocol):
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        return ErrorCode.REBALANCE_IN_PROGRESS if self.state is State.PREPARING else ErrorCode.NONE

    def _assignment_written(self, then: AssignmentWrite, error: ErrorCode) -> None:
        if self.state is not State.COMPLETING or then.generation != self.generation:
            return
        if error:
            self._propagate({}, GROUP_WRITE_ERRORS.get(error, error))
            self._prepare_rebalance()
        else:
            self._move_to(State.STABLE)
            self._propagate(then.assignments, ErrorCode.NONE)

    def _propagate(self, assignments: dict[str, bytes], error: ErrorCode) -> None:
        """Give every member its assignment, and answer those that wait for it."""
        names = (None, None) if error else (self.protocol_type, self.protocol)
        for member in self.members.values():
            member.assignment = assignments.get(member.member_id, b"")
            if member.sync_request is not None:
                self._answer_sync(member, SyncAnswer(error, *names, member.assignment))
                self._beat(member)

    def _answer_sync(self, member: Member, answer: SyncAnswer) -> None:
        request, member.sync_request = member.sync_request, None
        if request is not None:
            self._reply(request, answer)

    def _sync_deadline_passed(self) -> None:
        self._sync_deadline_ms = NEVER
        if not self._unsynced:
            return
        for member_id in list(self._unsynced):
            self._drop(member_id)
        self._prepare_rebalance()

    # staying and going

    def _heartbeat(self, event: Heartbeat) -> None:
        self._reply(event.request, self._heartbeat_error(event))

    def _heartbeat_error(self, event: Heartbeat) -> ErrorCode:
        error = self._caller_error(event.member_id, event.instance_id, event.generation)
        if error:
            return error
        self._beat(self.members[event.member_id])
        return ErrorCode.REBALANCE_IN_PROGRESS if self.state is State.PREPARING else ErrorCode.NONE

    def _beat(self, member: Member) -> None:
        member.expires_at_ms = self._now.boot_ms + member.session_timeout_ms

    def _leave(self, event: Leave) -> None:
        if self.state is State.DEAD:
            self._reply(event.request, LeaveAnswer(ErrorCode.COORDINATOR_NOT_AVAILABLE))
            return
        left = tuple((member, self._leave_one(member)) for member in event.members)
        self._reply(event.request, LeaveAnswer(ErrorCode.NONE, left))

    def _leave_one(self, leaving: Leaving) -> ErrorCode:
        member_id: str | None = leaving.member_id
        if member_id == UNKNOWN_MEMBER:
            member_id = self.membership.static_member_id(leaving.instance_id)
            if member_id is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
        elif member_id in self._pending_ids:
            del self._pending_ids[member_id]
            self._complete_join_if_all_joined()
            return ErrorCode.NONE
        else:
            error = self.membership.error_of(leaving.member_id, leaving.instance_id)
            if error:
                return error
        assert member_id is not None
        self._remove(member_id)
        return ErrorCode.NONE

    def _remove(self, member_id: str) -> None:
        """A member is gone: the others share out what it had."""
        self._drop(member_id)
        self._prepare_rebalance()
        self._complete_join_if_all_joined()

    def _drop(self, member_id: str) -> None:
        """Forget a member. Requests that it waits with are told to join anew."""
        member = self.members[member_id]
        self.membership.remove(member_id)
        self._unsynced.discard(member_id)
        self._answer_join(member, JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID, UNKNOWN_MEMBER))
        self._answer_sync(member, SyncAnswer(ErrorCode.UNKNOWN_MEMBER_ID))

    def _act_on_deadlines(self) -> None:
        now_ms = self._now.boot_ms
        for member_id in [m for m, deadline_ms in self._pending_ids.items() if deadline_ms <= now_ms]:
            del self._pending_ids[member_id]
            self._complete_join_if_all_joined()
        for member in [m for m in self.members.values() if m.expires_at_ms <= now_ms]:
            if member.member_id not in self.members or member.expires_at_ms > now_ms:
                continue  # the one removed before it ended the rebalance, which dropped or renewed this one
            if member.is_awaiting and not member.is_new:
                member.expires_at_ms = (
                    NEVER  # it cannot send heartbeats while it waits; its answer starts a new session
                )
            else:
                self._remove(member.member_id)
        if self._join_deadline_ms <= now_ms:
            self._join_deadline_passed()
        if self._sync_deadline_ms <= now_ms:
            self._sync_deadline_passed()

    def _written(self, event: Written) -> None:
        then = event.then
        if isinstance(then, AssignmentWrite):
            self._assignment_written(then, event.error)
        elif isinstance(then, StaticMemberWrite):
            self._static_member_written(then, event.error)
        else:
            assert isinstance(then, EmptyWrite)

    # the end

    def die(self, now: Now) -> None:
        """The group's end is on its way to the log; ``revive`` if it does not get there."""
        self._now = now
        self._move_to(State.DEAD)

    def revive(self) -> None:
        """The group's end could not be written."""
        if not self._unloaded:
            self.state = State.EMPTY

    def _unload(self) -> None:
        self._unloaded = True
        self.state = State.DEAD
        for member in self.members.values():
            self._answer_join(member, JoinAnswer(ErrorCode.NOT_COORDINATOR, member.member_id))
            self._answer_sync(member, SyncAnswer(ErrorCode.NOT_COORDINATOR))
