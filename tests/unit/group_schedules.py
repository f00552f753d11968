"""Random schedules of a whole consumer group in memory: members that follow the protocol, fall silent, restart and lose
answers; a log that commits late, refuses, or leaves it open; a coordinator that dies and reads the log again.

``run(seed)`` plays one schedule and raises ``Violation`` where a property does not hold:

- every request is answered exactly once;
- a generation has one leader, one protocol and one set of members;
- what members are told to own in a generation is in the log, and is what one leader assigned, each part to one member;
- a commit that was answered is in the log, and was made by a member of the current generation;
- a group instance id has one member, and who it replaced is fenced;
- what the coordinator holds is what the log says, once nothing is under way;
- when everybody behaves again, the group is stable and has exactly the living members.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from raykafka.coordinator.classic.events import (
    Heartbeat,
    Join,
    JoinAnswer,
    Leave,
    LeaveAnswer,
    Leaving,
    Sync,
    SyncAnswer,
)
from raykafka.coordinator.classic.rebalance import State
from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.group.events import DeleteGroup, Entry, Event, ExpireOffsets, ForgetTopics
from raykafka.coordinator.group.group import Group
from raykafka.coordinator.group.groups import Groups
from raykafka.coordinator.group.records import encode
from raykafka.coordinator.offsets.events import Commit, CommittedOffset, DeleteOffsets, OffsetEntry
from raykafka.coordinator.runtime.loading import replay_batch
from raykafka.coordinator.step import Append, Now, Reply, Tick, Unload, Written
from raykafka.error_code import ErrorCode
from raykafka.log.batch import Record, build_batch, read_header
from raykafka.types import OFFSETS_TOPIC, TopicPartition

CONFIG = GroupConfig(group_initial_rebalance_delay_ms=100, group_max_size=6)
SESSION_MS = 10_000
REBALANCE_MS = 5_000
PARTITIONS = [TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("u", 0)]
FORGET_MEMBERSHIP = (
    ErrorCode.UNKNOWN_MEMBER_ID,
    ErrorCode.ILLEGAL_GENERATION,
    ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
)
TRANSIENT = (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.REQUEST_TIMED_OUT)


class Violation(AssertionError):
    pass


def check(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


@dataclass
class Client:
    """A member that follows the protocol as Kafka's consumers do. ``life`` counts its restarts."""

    name: str
    instance_id: str | None
    life: int = 0
    alive: bool = True
    member_id: str = ""
    generation: int = -1
    leads: tuple[str, ...] = ()
    state: str = "join"  # what it does next: join, sync, work
    waits_for: int | None = None
    protocols: tuple[tuple[str, bytes], ...] = (("range", b"r"), ("sticky", b"s"))
    protocol: str | None = None
    owned: bytes | None = None
    heard_at_ms: int = 0

    def restart(self) -> None:
        self.life += 1
        self.alive = True
        self.forget()

    def forget(self) -> None:
        self.member_id, self.generation, self.state, self.waits_for, self.owned = "", -1, "join", None, None


@dataclass
class Simulation:
    seed: int
    now_ms: int = 1_000
    rng: random.Random = field(init=False)
    group: Group = field(init=False)
    clients: list[Client] = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        count = self.rng.randint(1, 5)
        self.clients = [Client(f"c{i}", f"i{i}" if self.rng.random() < 0.4 else None) for i in range(count)]
        self.log: list[Entry] = []
        self.last_logged: dict[tuple[TopicPartition, CommittedOffset | None], int] = {}
        self.stored_parts: set[bytes] = set()
        self.group = Group("g", CONFIG)
        self.in_flight: list[tuple[Group, Append, bool, int]] = []
        self.open: dict[int, tuple[Client, int, Event]] = {}
        self.asked_in: dict[int, tuple[int, bool]] = {}
        self.next_request = 0
        self.incarnation = 0
        self.lifetime = 0  # a deleted group's generations begin again
        self.generations: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.trusted = True  # False once a refused append turned out to be in the log
        self.acked: dict[TopicPartition, int] = {}
        self.removed_at: dict[TopicPartition, int] = {}
        self.next_offset = 0

    @property
    def now(self) -> Now:
        return Now(self.now_ms, 1_700_000_000_000 + self.now_ms)

    # what the group does

    def step(self, event: Event, group: Group | None = None) -> None:
        group = group or self.group
        for effect in group.step(event, self.now):
            if isinstance(effect, Reply):
                self.replied(group, effect)
            else:
                self.append(group, effect)
        self.check_static_members()
        if group is self.group and (group.is_gone or group.leaves_no_trace):
            self.group = Group("g", CONFIG)
            self.lifetime += 1

    def append(self, group: Group, effect: Append) -> None:
        """The log takes it now or not at all; when that is known is decided later."""
        base = len(self.log)
        taken = group is self.group and self.rng.random() > 0.05
        if taken:
            self.log += effect.entries
            for entry in effect.entries:
                if isinstance(entry, OffsetEntry):
                    self.note_offset(entry, self.log.index(entry, base))
                elif entry.value is not None:
                    self.stored_parts.update(member.assignment for member in entry.value.members)
        self.in_flight.append((group, effect, taken, base))

    def note_offset(self, entry: OffsetEntry, offset: int) -> None:
        if entry.value is None:
            self.removed_at[entry.partition] = offset
            self.acked.pop(entry.partition, None)
        else:
            self.last_logged[entry.partition, entry.value] = offset

    def decide_append(self) -> None:
        group, effect, taken, base = self.in_flight.pop(0)
        error = ErrorCode.NONE
        if not taken:
            error = self.rng.choice(TRANSIENT)
        elif self.rng.random() < 0.03:
            error = ErrorCode.REQUEST_TIMED_OUT
            self.trusted = False
        self.step(Written(effect.then, error, -1 if error else base), group)

    def fail_over(self) -> None:
        """The coordinator dies and another one reads the log. What was under way is answered or lost."""
        self.step(Unload())
        while self.in_flight:
            self.decide_append()
        check(not self.open, f"requests were left without an answer at the end: {self.open}")
        self.incarnation += 1
        self.trusted = True
        self.group = self.replayed()

    def replayed(self) -> Group:
        replayed = Groups(CONFIG)
        if self.log:
            batch = memoryview(build_batch(Record(*encode(entry), 0) for entry in self.log))
            replay_batch(replayed, OFFSETS_TOPIC, read_header(batch), batch)
        replayed.loaded(self.now)
        return replayed.groups.get("g") or Group("g", CONFIG)

    # what clients do

    def ask(self, client: Client, make: Callable[[int], Event]) -> None:
        self.next_request += 1
        request = client.waits_for = self.next_request
        event = make(request)
        self.open[request] = (client, client.life, event)
        if isinstance(event, Commit):
            self.asked_in[request] = (self.group.generation, event.member_id in self.group.members)
        if not isinstance(event, Sync | Heartbeat) or self.group.state is not State.EMPTY or self.group.generation:
            self.step(event)
        else:  # the coordinator answers for a group that it does not know
            unknown = {Sync: SyncAnswer(ErrorCode.UNKNOWN_MEMBER_ID), Heartbeat: ErrorCode.UNKNOWN_MEMBER_ID}
            self.replied(self.group, Reply(request, unknown[type(event)]))

    def act(self, client: Client) -> None:
        if client.waits_for is not None or not client.alive:
            return
        if client.state == "join":
            client.owned = None
            self.ask(client, lambda r: self.join_of(client, r))
        elif client.state == "sync":
            parts = self.assignment(client) if client.leads else {}
            self.ask(
                client,
                lambda r: Sync(
                    r, client.member_id, client.instance_id, client.generation, "consumer", client.protocol, parts
                ),
            )
        elif self.rng.random() < 0.5:
            self.ask(client, lambda r: Heartbeat(r, client.member_id, client.instance_id, client.generation))
        else:
            self.next_offset += 1
            values = {self.rng.choice(PARTITIONS): CommittedOffset(self.next_offset, 0, "", self.now.wall_ms)}
            self.ask(client, lambda r: Commit(r, client.member_id, client.instance_id, client.generation, values))

    def join_of(self, client: Client, request: int) -> Join:
        return Join(
            request,
            client.member_id,
            client.instance_id,
            f"{client.name}.{client.life}.{request}",
            client.name,
            "/h",
            SESSION_MS,
            REBALANCE_MS,
            "consumer",
            client.protocols,
            require_known_member_id=client.instance_id is None,
            can_skip_assignment=True,
        )

    def assignment(self, client: Client) -> dict[str, bytes]:
        """Each member a part of its own, and different in every sync, so that mixing two of them shows."""
        self.next_offset += 1
        return {m: f"{client.generation}/{self.next_offset}/{m}".encode() for m in client.leads}

    def replied(self, group: Group, reply: Reply) -> None:
        check(reply.request in self.open, f"request {reply.request} was answered twice")
        client, life, event = self.open.pop(reply.request)
        self.check_answer(group, client, event, reply.answer)
        if client.life != life or client.waits_for != reply.request:
            return  # who asked is gone, or did not wait for it
        client.waits_for = None
        client.heard_at_ms = self.now_ms
        self.follow(client, event, reply.answer)

    def follow(self, client: Client, event: Event, answer: Any) -> None:
        if isinstance(event, Join):
            assert isinstance(answer, JoinAnswer)
            if answer.error is ErrorCode.MEMBER_ID_REQUIRED:
                client.member_id = answer.member_id
            elif answer.error is ErrorCode.NONE:
                client.member_id, client.generation, client.protocol = (
                    answer.member_id,
                    answer.generation,
                    answer.protocol,
                )
                leads = answer.leader == answer.member_id and not answer.skip_assignment
                client.leads = tuple(m.member_id for m in answer.members) if leads else ()
                client.state = "sync"
            else:
                self.fall_back(client, answer.error)
        elif isinstance(event, Sync):
            if answer.error is ErrorCode.NONE:
                client.state, client.owned = "work", answer.assignment
            else:
                self.fall_back(client, answer.error)
        elif isinstance(event, Heartbeat):
            if answer is not ErrorCode.NONE:
                self.fall_back(client, answer)
        elif isinstance(event, Commit):
            code = next(iter(answer.values()))
            if code in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID, ErrorCode.ILLEGAL_GENERATION):
                self.fall_back(client, code)
            elif code is ErrorCode.REBALANCE_IN_PROGRESS:
                client.state = "join"
        elif isinstance(event, Leave):
            client.alive = False

    def fall_back(self, client: Client, error: ErrorCode) -> None:
        client.state = "join"
        if error is ErrorCode.FENCED_INSTANCE_ID:
            client.alive = False
        elif error in (
            ErrorCode.UNKNOWN_MEMBER_ID,
            ErrorCode.ILLEGAL_GENERATION,
            ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
        ):
            client.forget()

    # properties of answers

    def check_answer(self, group: Group, client: Client, event: Event, answer: Any) -> None:
        if isinstance(event, Heartbeat) and answer is ErrorCode.NONE:
            check(event.generation == group.generation, f"a heartbeat of another generation was taken: {event}")
            check(event.member_id in group.members, f"a stranger's heartbeat was taken: {event}")
            named = event.instance_id and group.membership.static_member_id(event.instance_id)
            check(named in (None, event.member_id), f"a heartbeat of a member that was replaced: {event}")
        if isinstance(event, Join) and answer.error is ErrorCode.NONE:
            self.check_join(answer)
        elif isinstance(event, Sync) and answer.error is ErrorCode.NONE:
            self.check_sync(event, answer)
        elif isinstance(event, Commit):
            self.check_commit(event, answer)
        elif isinstance(event, Leave):
            assert isinstance(answer, LeaveAnswer)

    def check_join(self, answer: JoinAnswer) -> None:
        key = (self.lifetime, self.incarnation, answer.generation)
        known = self.generations.setdefault(key, {"leaders": set(), "protocol": answer.protocol, "members": None})
        check(known["protocol"] == answer.protocol, f"two protocols in generation {key}")
        if answer.members and not answer.skip_assignment:
            known["leaders"].add(answer.member_id)
            members = {m.member_id for m in answer.members}
            check(known["members"] in (None, members), f"two sets of members in generation {key}")
            known["members"] = members
            check(len(known["leaders"]) == 1, f"two leaders in generation {key}: {known['leaders']}")
            check(answer.member_id in members, "a leader that is not a member")

    def check_sync(self, event: Sync, answer: SyncAnswer) -> None:
        if not answer.assignment:
            return
        generation, number, owner = answer.assignment.decode().split("/")
        check(int(generation) == event.generation, f"{event.member_id} got a part of generation {generation}")
        known = self.generations.setdefault((self.lifetime, event.generation), {"number": number})
        check(known["number"] == number, f"parts of two assignments in generation {event.generation}")
        # a static member inherits the part of its old id, so the part names its first owner
        holders = known.setdefault("holders", {})
        holder = event.instance_id or event.member_id
        check(holders.setdefault(owner, holder) == holder, f"{owner}'s part has two holders")
        told = answer.assignment
        check(told in self.stored_parts, f"an assignment was told that is not in the log: {told!r}")

    def check_commit(self, event: Commit, answer: dict[TopicPartition, ErrorCode]) -> None:
        generation, known = self.asked_in.pop(event.request)
        for partition, code in answer.items():
            if code is not ErrorCode.NONE:
                continue
            inside = (known and event.generation == generation) or event.generation < 0
            check(inside, f"a commit from outside generation {generation}: {event}")
            logged = self.last_logged.get((partition, event.offsets[partition]))
            check(logged is not None, f"a commit of {partition} was answered that is not in the log")
            if logged is not None and logged > self.removed_at.get(partition, -1):
                self.acked[partition] = max(self.acked.get(partition, -1), logged)

    def check_static_members(self) -> None:
        named = [m.instance_id for m in self.group.members.values() if m.instance_id is not None]
        check(len(named) == len(set(named)), f"an instance id has two members: {named}")

    # the schedule

    def move(self) -> None:
        choice = self.rng.random()
        client = self.rng.choice(self.clients)
        if choice < 0.53:
            self.act(client)
        elif choice < 0.72:
            if self.in_flight:
                self.decide_append()
        elif choice < 0.83:
            self.pass_time(self.rng.choice((1, 50, 120, 1_000, 3_000, 11_000)))
        elif choice < 0.87:
            self.lose_answer(client)
        elif choice < 0.90:
            client.restart()
        elif choice < 0.912:
            client.alive = False
        elif choice < 0.925:
            names = self.rng.choice((("range", "sticky"), ("sticky", "range"), ("range",)))
            client.protocols = tuple((name, self.rng.choice((b"r", b"x"))) for name in names)
        elif choice < 0.94:
            if client.alive and client.waits_for is None and client.member_id:
                leaving = (Leaving(client.member_id, client.instance_id),)
                self.ask(client, lambda r: Leave(r, leaving))
        elif choice < 0.985:
            self.administer()
        else:
            self.fail_over()

    def administer(self) -> None:
        """What comes from outside the group."""
        partitions = tuple(self.rng.sample(PARTITIONS, 2))
        administrator = Client("admin", None)
        choice = self.rng.randrange(5)
        if choice == 0:
            self.step(ExpireOffsets(retention_ms=self.rng.choice((1 << 50, 5_000))))
        elif choice == 1:
            self.step(ForgetTopics(frozenset({"u"})))
        elif choice == 2:
            self.ask(administrator, DeleteGroup)
        elif choice == 3:
            self.ask(administrator, lambda r: DeleteOffsets(r, partitions))
        else:
            self.next_offset += 1
            values = {p: CommittedOffset(self.next_offset, 0, "", self.now.wall_ms) for p in partitions}
            self.ask(administrator, lambda r: Commit(r, "", None, -1, values))

    def lose_answer(self, client: Client) -> None:
        """The connection broke: the client asks anew, and what was asked may still be answered to nobody."""
        if client.waits_for is not None:
            client.waits_for = None

    def pass_time(self, by_ms: int) -> None:
        end_ms = self.now_ms + by_ms
        while True:
            due_ms = self.group.next_deadline_ms()
            if due_ms is None or due_ms > end_ms:
                break
            self.now_ms = max(self.now_ms, due_ms)
            self.step(Tick())
        self.now_ms = end_ms

    def settle(self) -> None:
        """Everybody behaves from now on; then the group must become stable with exactly the living."""
        for client in self.clients:
            client.protocols = (("range", b"r"), ("sticky", b"s"))
        for _ in range(400):
            for client in self.clients:
                self.act(client)
            while self.in_flight:
                self.decide_append()
            self.pass_time(500)
            if self.is_settled():
                break
        else:
            raise Violation(f"the group does not become stable: {self.group.state}, {self.clients}")
        self.check_memory_is_the_log()

    def is_settled(self) -> bool:
        living = [c for c in self.clients if c.alive]
        state = State.STABLE if living else State.EMPTY
        members = {c.member_id for c in living}
        working = all(c.state == "work" and c.generation == self.group.generation for c in living)
        return self.group.state is state and set(self.group.members) == members and working and not self.in_flight

    def check_memory_is_the_log(self) -> None:
        if not self.trusted:
            return
        again = self.replayed()
        check(
            again.offsets.committed == self.group.offsets.committed,
            f"offsets differ: {again.offsets.committed} in the log, {self.group.offsets.committed} here",
        )
        for partition, offset in self.acked.items():
            stored = self.group.offsets.committed.get(partition)
            check(stored is not None and stored.log_offset >= offset, f"a commit of {partition} is lost")
        if self.group.state is not State.STABLE:
            return
        check(again.generation == self.group.generation, "another generation in the log")
        ours = {m.member_id: m.assignment for m in self.group.members.values()}
        check({m.member_id: m.assignment for m in again.members.values()} == ours, "other assignments in the log")
        check(again.membership.leader == self.group.membership.leader, "another leader in the log")


def run(seed: int, moves: int = 150) -> Simulation:
    """One schedule. Raises Violation, naming the seed."""
    simulation = Simulation(seed)
    try:
        for _ in range(moves):
            simulation.move()
        simulation.settle()
        simulation.fail_over()
        simulation.settle()
    except Violation as violation:
        raise Violation(f"seed {seed}: {violation}") from violation
    return simulation
