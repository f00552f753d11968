"""The properties of a consumer group hold in every schedule of ``group_schedules``, and break without their rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from raykafka.coordinator.classic.events import Join
from raykafka.coordinator.classic.membership import Member
from raykafka.coordinator.classic.rebalance import ClassicGroup
from raykafka.coordinator.offsets.rules import OffsetRules
from raykafka.coordinator.offsets.table import OffsetTable
from raykafka.coordinator.step import Now
from raykafka.error_code import ErrorCode
from tests.unit.group_schedules import Violation, run

SCHEDULES = 1_600
CHUNKS = 8


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_properties_hold_in_random_schedules(chunk: int) -> None:
    for seed in range(chunk, SCHEDULES, CHUNKS):
        run(seed)


@pytest.mark.long
def test_properties_hold_in_many_random_schedules() -> None:
    for seed in range(SCHEDULES, 20 * SCHEDULES):
        run(seed)


Rule = Callable[[pytest.MonkeyPatch], None]
WITHOUT: dict[str, tuple[str, Rule]] = {}


def without(breaks: str) -> Callable[[Rule], Rule]:
    """What is violated once the rule that the function removes is gone."""

    def add(remove: Rule) -> Rule:
        WITHOUT[remove.__name__] = (breaks, remove)
        return remove

    return add


def replace_method(patch: pytest.MonkeyPatch, cls: type, name: str, make: Callable[[Any], Any]) -> None:
    patch.setattr(cls, name, make(getattr(cls, name)))


@without("an assignment was told that is not in the log")
def syncs_are_answered_after_the_append(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        def store(self: ClassicGroup, assignments: dict[str, bytes], then: Any) -> None:
            original(self, assignments, then)
            if type(then).__name__ == "AssignmentWrite":
                self._assignment_written(then, ErrorCode.NONE)

        return store

    replace_method(patch, ClassicGroup, "_store", make)


@without("a commit of .* was answered that is not in the log")
def commits_are_answered_by_what_became_of_them(patch: pytest.MonkeyPatch) -> None:
    replace_method(
        patch,
        OffsetRules,
        "_commit_written",
        lambda original: lambda self, then, error, base: original(self, then, ErrorCode.NONE, base),
    )


@without("a commit from outside generation")
def commits_are_of_the_current_generation(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        def commit_error(
            self: ClassicGroup, member_id: str, instance_id: str | None, generation: int, now: Now
        ) -> ErrorCode:
            return original(self, member_id, instance_id, self.generation, now)

        return commit_error

    replace_method(patch, ClassicGroup, "commit_error", make)


@without("a heartbeat of another generation was taken")
def heartbeats_are_of_the_current_generation(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        return lambda self, event: original(self, dataclasses.replace(event, generation=self.generation))

    replace_method(patch, ClassicGroup, "_heartbeat_error", make)


@without("parts of two assignments|got a part of generation|other assignments in the log")
def a_generation_is_assigned_once(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        def sync(self: ClassicGroup, event: Any) -> None:
            self._assigned_generation = 0
            original(self, event)

        return sync

    replace_method(patch, ClassicGroup, "_sync", make)


@without("got a part of generation|parts of two assignments")
def a_rebalance_calls_off_waiting_syncs(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        def propagate(self: ClassicGroup, assignments: dict[str, bytes], error: ErrorCode) -> None:
            if error is ErrorCode.NONE:
                original(self, assignments, error)

        return propagate

    replace_method(patch, ClassicGroup, "_propagate", make)


@without("an instance id has two members")
def a_static_member_takes_its_own_place(patch: pytest.MonkeyPatch) -> None:
    def join_new(self: ClassicGroup, event: Join) -> None:
        self._add(event, event.new_member_id)

    patch.setattr(ClassicGroup, "_join_new", join_new)


@without("the group does not become stable")
def silent_members_are_removed(patch: pytest.MonkeyPatch) -> None:
    def beat(self: ClassicGroup, member: Member) -> None:
        member.expires_at_ms = 1 << 61

    patch.setattr(ClassicGroup, "_beat", beat)


@without("requests were left without an answer")
def removed_members_are_answered(patch: pytest.MonkeyPatch) -> None:
    def make(original: Any) -> Any:
        def drop(self: ClassicGroup, member_id: str) -> None:
            member = self.members[member_id]
            member.join_request = member.sync_request = None
            original(self, member_id)

        return drop

    replace_method(patch, ClassicGroup, "_drop", make)


@without("offsets differ")
def tombstones_cover_commits_under_way(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OffsetTable, "known", lambda self: set(self.committed))


@without("offsets differ|is lost")
def what_is_removed_is_what_stood_before_the_tombstone(patch: pytest.MonkeyPatch) -> None:
    def remove(self: OffsetTable, partitions: Any, log_offset: int) -> None:
        return None

    patch.setattr(OffsetTable, "remove", remove)


@pytest.mark.parametrize("rule", WITHOUT)
def test_without_the_rule_its_property_breaks(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks, remove = WITHOUT[rule]
    remove(monkeypatch)
    with pytest.raises(Violation, match=breaks):
        for seed in range(SCHEDULES):
            run(seed)
