"""The rules of one group, told step by step."""

from __future__ import annotations

import dataclasses
import itertools
import struct
from typing import Any

import pytest

from raykafka.coordinator.classic.events import GroupEntry, Heartbeat, Join, Leave, Leaving, Sync
from raykafka.coordinator.classic.rebalance import NEW_MEMBER_JOIN_TIMEOUT_MS, State
from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.group.events import DeleteGroup, Event, ExpireOffsets, ForgetTopics
from raykafka.coordinator.group.group import Group
from raykafka.coordinator.offsets.events import Commit, CommittedOffset, DeleteOffsets, OffsetEntry
from raykafka.coordinator.step import Append, Now, Reply, Tick, Unload, Written
from raykafka.error_code import ErrorCode
from raykafka.types import TopicPartition

CONFIG = GroupConfig(group_initial_rebalance_delay_ms=0)
T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
OTHER = TopicPartition("other", 0)
SUBSCRIBED_TO_T = struct.pack(">hih", 1, 1, 1) + b"t" + struct.pack(">i", -1)
DAY_MS = 24 * 3600 * 1000


class Stage:
    """A group, its clock, and what it answered. Appends are committed at once unless ``holding``."""

    def __init__(self, config: GroupConfig = CONFIG) -> None:
        self.group = Group("g", config)
        self.now_ms = 1_000
        self.answers: dict[str, Any] = {}
        self.written: list[Append] = []
        self.held: list[Append] = []
        self.holding = False
        self._log_end = itertools.count(0, 100)

    @property
    def now(self) -> Now:
        return Now(self.now_ms, 1_700_000_000_000 + self.now_ms)

    def step(self, event: Event) -> None:
        for effect in self.group.step(event, self.now):
            if isinstance(effect, Reply):
                assert effect.request not in self.answers, f"{effect.request} was answered twice"
                self.answers[effect.request] = effect.answer
            else:
                self.written.append(effect)
                self.held.append(effect)
                if not self.holding:
                    self.decide()

    def decide(self, error: ErrorCode = ErrorCode.NONE) -> None:
        held, self.held = self.held, []
        for effect in held:
            self.step(Written(effect.then, error, -1 if error else next(self._log_end)))

    def ask(self, event: Any) -> Any:
        """The answer to a request, None while there is none."""
        self.step(event)
        return self.answers.get(event.request)

    def wait(self, by_ms: int) -> None:
        end_ms = self.now_ms + by_ms
        while (due_ms := self.group.next_deadline_ms()) is not None and due_ms <= end_ms:
            self.now_ms = max(self.now_ms, due_ms)
            self.step(Tick())
        self.now_ms = end_ms

    def stable(self, *names: str, **fields: Any) -> None:
        """A stable generation of these members, led by the first; each owns its own name."""
        for name in names:
            self.step(join(f"{name} joins", name, known=False, **fields))
        self.wait(0)
        for name in list(self.group.members):
            parts = {n: n.encode() for n in names} if name == self.group.membership.leader else {}
            self.step(sync(f"{name} syncs", name, self.group.generation, parts, fields.get("instance_id")))
        assert self.group.state is State.STABLE, self.group.state


def join(request: str, name: str = "", *, known: bool = True, **fields: Any) -> Join:
    """``known`` says whether the member names itself, or is given its name as a new id."""
    event = Join(
        request,
        name if known else "",
        None,
        name,
        "client",
        "/h",
        10_000,
        5_000,
        "consumer",
        (("range", SUBSCRIBED_TO_T),),
    )
    return dataclasses.replace(event, **fields)


def sync(request: str, name: str, generation: int, parts: dict[str, bytes], instance_id: str | None = None) -> Sync:
    return Sync(request, name, instance_id, generation, "consumer", "range", parts)


def heartbeat(request: str, name: str, generation: int) -> Heartbeat:
    return Heartbeat(request, name, None, generation)


def commit(request: str, name: str, generation: int, *partitions: TopicPartition, at: int = 5, **fields: Any) -> Commit:
    values = {p: CommittedOffset(at, 0, fields.pop("metadata", ""), **fields) for p in partitions or (T0,)}
    return Commit(request, name, None, generation, values)


# the initial delay


def test_an_empty_group_waits_for_more_members_before_its_first_generation() -> None:
    stage = Stage(GroupConfig(group_initial_rebalance_delay_ms=3_000))
    stage.step(join("a joins", "a", known=False))
    stage.wait(2_999)
    assert not stage.answers
    stage.wait(1)
    assert stage.answers["a joins"].generation == 1


def test_each_newcomer_prolongs_the_initial_delay_up_to_the_rebalance_timeout() -> None:
    stage = Stage(GroupConfig(group_initial_rebalance_delay_ms=3_000))
    stage.step(join("a joins", "a", known=False, rebalance_timeout_ms=7_000))
    for name in "bcd":
        stage.wait(2_000)
        stage.step(join(f"{name} joins", name, known=False, rebalance_timeout_ms=7_000))
        assert not stage.answers
    stage.wait(999)
    assert not stage.answers
    stage.wait(1)
    assert {answer.generation for answer in stage.answers.values()} == {1}
    assert len(stage.group.members) == 4


# what waits for the log


def test_a_sync_is_answered_once_the_assignment_is_committed() -> None:
    stage = Stage()
    stage.step(join("a joins", "a", known=False))
    stage.wait(0)
    stage.holding = True
    assert stage.ask(sync("a syncs", "a", 1, {"a": b"all"})) is None
    assert stage.ask(heartbeat("beat", "a", 1)) is ErrorCode.NONE
    assert stage.group.state is State.COMPLETING
    stage.decide()
    assert stage.answers["a syncs"].assignment == b"all"
    assert stage.group.state is State.STABLE


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.REQUEST_TIMED_OUT, ErrorCode.REBALANCE_IN_PROGRESS),
        (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.UNKNOWN_SERVER_ERROR),
    ],
)
def test_an_assignment_that_is_not_stored_begins_another_rebalance(error: ErrorCode, told: ErrorCode) -> None:
    stage = Stage()
    stage.step(join("a joins", "a", known=False))
    stage.wait(0)
    stage.holding = True
    stage.step(sync("a syncs", "a", 1, {"a": b"all"}))
    stage.decide(error)
    assert stage.answers["a syncs"].error is told
    assert stage.answers["a syncs"].assignment == b""
    assert stage.group.state is State.PREPARING


def test_a_late_assignment_of_an_abandoned_generation_changes_nothing() -> None:
    stage = Stage()
    stage.step(join("a joins", "a", known=False))
    stage.wait(0)
    stage.holding = True
    stage.step(sync("a syncs", "a", 1, {"a": b"old"}))
    stage.step(join("b joins", "b", known=False))
    assert stage.answers["a syncs"].error is ErrorCode.REBALANCE_IN_PROGRESS
    stage.step(join("a joins again", "a"))
    assert stage.answers["b joins"].generation == 2
    stage.decide()
    assert stage.group.state is State.COMPLETING
    assert stage.group.members["a"].assignment == b""


def test_the_first_assignment_of_a_generation_counts() -> None:
    """A leader whose first answer was lost sends another; the members may have been told of the first by then."""
    stage = Stage()
    stage.step(join("a joins", "a", known=False))
    stage.wait(0)
    stage.holding = True
    stage.step(sync("a syncs", "a", 1, {"a": b"first"}))
    stage.step(sync("a syncs again", "a", 1, {"a": b"second"}))
    assert stage.answers["a syncs"].error is ErrorCode.REBALANCE_IN_PROGRESS
    stage.decide()
    assert stage.answers["a syncs again"].assignment == b"first"
    assert len(stage.written) == 1


def test_a_commit_is_answered_and_seen_once_it_is_committed() -> None:
    stage = Stage()
    stage.stable("a")
    stage.holding = True
    assert stage.ask(commit("commit", "a", 1)) is None
    assert stage.group.offsets.get(T0) is None
    stage.decide()
    assert stage.answers["commit"] == {T0: ErrorCode.NONE}
    assert stage.group.offsets.get(T0) == CommittedOffset(5, 0)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.REQUEST_TIMED_OUT, ErrorCode.REQUEST_TIMED_OUT),
        (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.INVALID_COMMIT_OFFSET_SIZE),
    ],
)
def test_a_commit_that_is_not_stored_is_not_seen(error: ErrorCode, told: ErrorCode) -> None:
    stage = Stage()
    stage.holding = True
    stage.step(commit("commit", "", -1))
    stage.decide(error)
    assert stage.answers["commit"] == {T0: told}
    assert stage.group.offsets.get(T0) is None
    assert stage.group.leaves_no_trace


def test_a_static_member_that_can_not_be_stored_keeps_its_old_id() -> None:
    stage = Stage()
    stage.stable("a", instance_id="i")
    stage.holding = True
    stage.step(join("restart", "b", known=False, instance_id="i", session_timeout_ms=20_000))
    stage.decide(ErrorCode.NOT_ENOUGH_REPLICAS)
    assert stage.answers["restart"].error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert stage.group.members["a"].session_timeout_ms == 10_000
    assert stage.group.membership.static_member_id("i") == "a"
    assert stage.group.members["a"].assignment == b"a"


def test_metadata_is_measured_as_java_measures_it() -> None:
    stage = Stage(GroupConfig(offset_metadata_max_bytes=4))
    assert stage.ask(commit("fits", "", -1, metadata="\u00fc\u00fc\u00fc\u00fc"))[T0] is ErrorCode.NONE
    assert (
        stage.ask(commit("too long", "", -1, metadata="\U0001f600\U0001f600!"))[T0]
        is ErrorCode.OFFSET_METADATA_TOO_LARGE
    )


# deadlines


def test_a_new_member_that_never_hears_of_its_generation_is_given_up() -> None:
    """Its connection may be gone, and it cannot send heartbeats before it knows its id."""
    stage = Stage()
    stage.stable("a", rebalance_timeout_ms=10 * 60_000, session_timeout_ms=10 * 60_000)
    stage.step(join("b joins", "b", known=False, rebalance_timeout_ms=10 * 60_000))
    stage.wait(NEW_MEMBER_JOIN_TIMEOUT_MS - 1)
    assert "b joins" not in stage.answers
    stage.wait(1)
    assert stage.answers["b joins"].error is ErrorCode.UNKNOWN_MEMBER_ID
    assert set(stage.group.members) == {"a"}


def test_a_member_that_waits_for_a_rebalance_does_not_time_out() -> None:
    stage = Stage()
    stage.stable("a", "b", rebalance_timeout_ms=60_000)
    stage.step(join("a joins early", "a", protocols=(("range", b"new"),), rebalance_timeout_ms=60_000))
    for i in range(4):
        stage.wait(9_000)
        assert stage.ask(heartbeat(f"b {i}", "b", stage.group.generation)) is ErrorCode.REBALANCE_IN_PROGRESS
    assert set(stage.group.members) == {"a", "b"}
    stage.step(join("b joins late", "b"))
    assert stage.answers["a joins early"].error is ErrorCode.NONE


def test_static_members_outlive_a_rebalance_that_they_miss() -> None:
    stage = Stage()
    stage.stable("a", instance_id="i", session_timeout_ms=60_000)
    stage.step(join("b joins", "b", known=False))
    stage.wait(5_000)
    assert stage.answers["b joins"].generation == 2
    assert set(stage.group.members) == {"a", "b"}


def test_commits_and_heartbeats_keep_a_session() -> None:
    stage = Stage()
    stage.stable("a")
    for i in range(5):
        stage.wait(9_999)
        stage.step(commit(f"commit {i}", "a", 1) if i % 2 else heartbeat(f"beat {i}", "a", 1))
    assert set(stage.group.members) == {"a"}
    stage.wait(10_000)
    assert stage.group.state is State.EMPTY


def test_unloading_answers_everybody_who_waits() -> None:
    stage = Stage()
    stage.stable("a")
    stage.step(join("b joins", "b", known=False))
    stage.step(Unload())
    assert stage.answers["b joins"].error is ErrorCode.NOT_COORDINATOR
    assert stage.ask(heartbeat("late", "a", 1)) is ErrorCode.COORDINATOR_NOT_AVAILABLE


def test_a_restored_group_beyond_the_limit_rebalances() -> None:
    stage = Stage()
    stage.stable("a", "b")
    snapshot = next(e.value for w in reversed(stage.written) for e in w.entries if isinstance(e, GroupEntry))
    assert snapshot is not None
    again = Group.restored(snapshot, GroupConfig(group_max_size=1), stage.now)
    assert again.state is State.PREPARING
    assert Group.restored(snapshot, CONFIG, stage.now).state is State.STABLE


# the end of offsets and groups


def expire(stage: Stage, retention_ms: int = 7 * DAY_MS) -> None:
    stage.step(ExpireOffsets(retention_ms))


def test_offsets_of_an_empty_group_live_for_the_retention_after_its_last_member_left() -> None:
    stage = Stage()
    stage.stable("a")
    stage.step(commit("commit", "a", 1, T0, commit_timestamp_ms=stage.now.wall_ms))
    stage.wait(0)
    stage.step(Leave("leave", (Leaving("a", None),)))
    stage.wait(7 * DAY_MS - 1)
    expire(stage)
    assert stage.group.offsets.get(T0) is not None
    stage.wait(1)
    expire(stage)
    assert stage.written[-1].entries == (OffsetEntry("g", T0, None), GroupEntry("g", None))
    assert stage.group.is_gone


def test_a_commit_to_an_empty_group_lives_for_the_retention_after_it() -> None:
    """An administrator who resets the offsets of a group that is long empty finds them in place afterwards."""
    stage = Stage()
    stage.stable("a")
    stage.step(Leave("leave", (Leaving("a", None),)))
    stage.wait(30 * DAY_MS)
    stage.step(commit("reset", "", -1, T0, commit_timestamp_ms=stage.now.wall_ms))
    expire(stage)
    assert stage.group.offsets.get(T0) is not None


def test_a_stable_group_loses_only_offsets_of_topics_that_it_left() -> None:
    stage = Stage()
    stage.stable("a", session_timeout_ms=1 << 50)
    stage.step(commit("commit", "a", 1, T0, OTHER, commit_timestamp_ms=stage.now.wall_ms))
    stage.wait(7 * DAY_MS)
    expire(stage)
    assert set(stage.group.offsets.committed) == {T0}
    assert stage.group.state is State.STABLE


def test_offsets_of_a_consumer_without_a_group_live_for_the_retention_after_their_commit() -> None:
    stage = Stage()
    stage.step(commit("old", "", -1, T0, commit_timestamp_ms=stage.now.wall_ms))
    stage.wait(DAY_MS)
    stage.step(commit("new", "", -1, T1, commit_timestamp_ms=stage.now.wall_ms))
    stage.wait(6 * DAY_MS)
    expire(stage)
    assert set(stage.group.offsets.committed) == {T1}
    stage.wait(DAY_MS)
    expire(stage)
    assert stage.written[-1].entries == (OffsetEntry("g", T1, None),)
    assert stage.group.is_gone


def test_an_offset_with_an_expire_timestamp_lives_until_then() -> None:
    stage = Stage()
    at_ms = stage.now.wall_ms + 30 * DAY_MS
    stage.step(commit("commit", "", -1, T0, commit_timestamp_ms=stage.now.wall_ms, expire_timestamp_ms=at_ms))
    stage.wait(30 * DAY_MS - 1)
    expire(stage)
    assert stage.group.offsets.get(T0) is not None
    stage.wait(1)
    expire(stage)
    assert stage.group.is_gone


def test_a_group_in_a_rebalance_loses_nothing() -> None:
    stage = Stage()
    stage.stable("a")
    stage.step(commit("commit", "a", 1, OTHER, commit_timestamp_ms=0))
    stage.step(join("a joins again", "a"))
    assert stage.group.state is State.COMPLETING
    expire(stage)
    assert stage.group.offsets.get(OTHER) is not None


def test_offsets_of_a_deleted_topic_go_with_it() -> None:
    stage = Stage()
    stage.stable("a")
    stage.step(commit("commit", "a", 1, T0, T1, OTHER))
    stage.step(ForgetTopics(frozenset({"t"})))
    assert set(stage.group.offsets.committed) == {OTHER}
    assert stage.group.state is State.STABLE


def test_a_deletion_takes_commits_with_it_that_are_on_their_way() -> None:
    stage = Stage()
    stage.holding = True
    stage.step(commit("commit", "", -1))
    stage.step(DeleteGroup("delete"))
    assert stage.written[-1].entries == (OffsetEntry("g", T0, None),)
    assert stage.ask(commit("too late", "", -1)) == {T0: ErrorCode.COORDINATOR_NOT_AVAILABLE}
    assert not stage.group.is_gone
    stage.decide()
    assert stage.answers["commit"] == {T0: ErrorCode.NONE}
    assert stage.answers["delete"] is ErrorCode.NONE
    assert stage.group.is_gone


def test_a_deletion_that_fails_leaves_the_group_as_it_was() -> None:
    stage = Stage()
    stage.holding = True
    stage.step(commit("commit", "", -1))
    stage.step(DeleteGroup("delete"))
    first, second = stage.held
    stage.held = []
    stage.step(Written(first.then, ErrorCode.NONE, 0))
    stage.step(Written(second.then, ErrorCode.NOT_ENOUGH_REPLICAS))
    assert stage.answers["delete"] is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert stage.group.state is State.EMPTY
    assert stage.group.offsets.get(T0) is not None


def test_a_commit_behind_a_tombstone_stays() -> None:
    stage = Stage()
    stage.step(commit("first", "", -1))
    stage.holding = True
    stage.step(DeleteOffsets("delete", (T0,)))
    stage.step(commit("second", "", -1, at=6))
    stage.decide()
    assert stage.group.offsets.get(T0) == CommittedOffset(6, 0)


def test_nothing_is_written_for_offsets_that_are_not_there() -> None:
    stage = Stage()
    stage.step(commit("commit", "", -1))
    written = len(stage.written)
    answer = stage.ask(DeleteOffsets("delete", (T1,)))
    assert answer.partitions == {T1: ErrorCode.NONE}
    assert len(stage.written) == written
