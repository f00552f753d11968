"""A consumer group that a transcript moves by commands, and what each command leaves, as text.

A command prints what the rules ask for, then the group if it changed it. Members are named by their clients: client A
is told the ids A-1, A-2, ... Time passes, and what is appended is committed, only by a command.

    group [initial-delay=MS] [max-size=N]                   begin
    join A [instance=NAME] [protocols=P,Q] [session=MS] [rebalance=MS] [anew]
                                                            with the id that A was told last; ``anew``: without one
    sync A [A=WHAT B=WHAT ...]                              the leader's assignments, if A leads
    heartbeat A, leave A [instance=NAME]
    commit A TOPIC-PARTITION=OFFSET ...
    written [error=NAME]                                    the oldest append is committed, or is not
    tick ms=MS                                              time passes; the group's timer is due

``generation=N`` and ``id=ID`` have a client name another generation or id than it was told last.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from raykafka.coordinator.classic.events import (
    GroupEntry,
    Heartbeat,
    Join,
    JoinAnswer,
    Leave,
    LeaveAnswer,
    Leaving,
    Sync,
    SyncAnswer,
)
from raykafka.coordinator.classic.membership import Member
from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.group.events import Event
from raykafka.coordinator.group.group import Group
from raykafka.coordinator.offsets.events import Commit, CommittedOffset, OffsetEntry
from raykafka.coordinator.step import Append, Effect, Now, Reply, Tick, Written
from raykafka.error_code import ErrorCode
from raykafka.types import TopicPartition
from tests.lab.transcripts import Command

_NAMED_OPTIONS = ("generation", "id", "instance")


class Client:
    """What a client goes by: the id and the generation that it was told last."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.member_id = ""
        self.generation = -1
        self.instance: str | None = None
        self.ids = 0


class Stage:
    """One transcript's group. ``run`` carries out a command."""

    def __init__(self) -> None:
        self.now = Now(0, 1_700_000_000_000)
        self.clients: dict[str, Client] = {}
        self.appends: deque[Append] = deque()
        self.lines: list[str] = []
        self.shown = ""
        self.group: Group

    def run(self, command: Command) -> list[str]:
        self.lines = []
        if command.name == "group":
            config = GroupConfig(
                group_initial_rebalance_delay_ms=command.number("initial-delay", 3000),
                group_max_size=command.number("max-size", 1000),
            )
            self.group = Group("g", config)
        elif command.name == "tick":
            ms = int(command.options["ms"])
            self.now = Now(self.now.boot_ms + ms, self.now.wall_ms + ms)
            self._step(Tick())
        elif command.name == "written":
            error = ErrorCode[command.options.get("error", "NONE")]
            self._step(Written(self.appends.popleft().then, error, 7))
        else:
            self._step(self._request(command))
        if self._state() != self.shown:
            self.shown = self._state()
            self.lines.append(self.shown)
        return self.lines

    def _request(self, command: Command) -> Event:
        name, options = command.words[0], command.options
        client = self.clients.setdefault(name, Client(name))
        request = (command.name, client)
        member_id, generation = options.get("id", client.member_id), command.number("generation", client.generation)
        match command.name:
            case "join":
                client.instance = options.get("instance")
                client.ids += 1
                return Join(
                    request,
                    "" if "anew" in command.words else member_id,
                    client.instance,
                    f"{name}-{client.ids}",
                    client_id=name,
                    client_host="/127.0.0.1",
                    session_timeout_ms=command.number("session", 10_000),
                    rebalance_timeout_ms=command.number("rebalance", 60_000),
                    protocol_type="consumer",
                    protocols=tuple((p, b"") for p in options.get("protocols", "range").split(",")),
                    require_known_member_id=True,
                    can_skip_assignment=True,
                )
            case "sync":
                assigned = {to: what.encode() for to, what in options.items() if to not in _NAMED_OPTIONS}
                by_id = {self.clients[to].member_id: what for to, what in assigned.items()}
                return Sync(request, member_id, client.instance, generation, None, None, by_id)
            case "heartbeat":
                return Heartbeat(request, member_id, client.instance, generation)
            case "leave":
                instance = options.get("instance")
                return Leave(request, (Leaving("" if instance else member_id, instance),))
            case "commit":
                offsets = {
                    _partition(where): CommittedOffset(int(offset))
                    for where, offset in options.items()
                    if where not in _NAMED_OPTIONS
                }
                return Commit(request, member_id, client.instance, generation, offsets)
        raise ValueError(f"there is no command {command.name}")

    def _step(self, event: Event) -> None:
        for effect in self.group.step(event, self.now):
            self.lines.append(self._told(effect))

    def _told(self, effect: Effect) -> str:
        if isinstance(effect, Append):
            self.appends.append(effect)
            return f"> append {', '.join(map(_entry, effect.entries))}"
        assert isinstance(effect, Reply)
        what, client = effect.request
        if isinstance(effect.answer, JoinAnswer):
            client.member_id = effect.answer.member_id
            if effect.answer.error is ErrorCode.NONE:
                client.generation = effect.answer.generation
        return f"> {what} {client.name}: {_answer(effect.answer)}"

    def _state(self) -> str:
        group = self.group
        due_ms = group.next_deadline_ms()
        return " | ".join(
            (
                f"{group.state.name} generation {group.generation}",
                f"protocol {group.protocol}",
                f"leader {group.membership.leader}",
                f"members {', '.join(map(_member, group.members.values())) or 'none'}",
                "no timer" if due_ms is None else f"due in {due_ms - self.now.boot_ms} ms",
            )
        )


def _partition(text: str) -> TopicPartition:
    topic, _, number = text.rpartition("-")
    return TopicPartition(topic, int(number))


def _member(member: Member) -> str:
    waits = " joins" if member.join_request is not None else " syncs" if member.sync_request is not None else ""
    return f"{member.member_id}{waits}"


def _entry(entry: Any) -> str:
    if isinstance(entry, OffsetEntry):
        return f"offset {entry.partition} = {entry.value.offset if entry.value else 'none'}"
    assert isinstance(entry, GroupEntry)
    if entry.value is None:
        return "the end of the group"
    members = ", ".join(f"{m.member_id}: {m.assignment.decode() or 'nothing'}" for m in entry.value.members)
    return f"generation {entry.value.generation} ({members or 'no members'})"


def _answer(answer: Any) -> str:
    match answer:
        case JoinAnswer(error=ErrorCode.NONE) as joined:
            members = f", members {' '.join(m.member_id for m in joined.members)}" if joined.members else ""
            skip = ", and is not to assign" if joined.skip_assignment else ""
            about = f"generation {joined.generation}, protocol {joined.protocol}, leader {joined.leader}"
            return f"{joined.member_id} in {about}{members}{skip}"
        case JoinAnswer():
            return f"{answer.error.name}" + (f", id {answer.member_id}" if answer.member_id else "")
        case SyncAnswer(error=ErrorCode.NONE):
            return f"assigned {answer.assignment.decode() or 'nothing'}"
        case SyncAnswer():
            return answer.error.name
        case LeaveAnswer():
            left = (f"{who.member_id or who.instance_id} {error.name}" for who, error in answer.members)
            return ", ".join((answer.error.name, *left))
        case ErrorCode():
            return answer.name
    return ", ".join(f"{partition} {error.name}" for partition, error in answer.items())
