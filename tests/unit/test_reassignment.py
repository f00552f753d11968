"""Moving a partition: what is written at each step, and what no order of steps, deaths and questions may break."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raykafka.controller.rules.elections import BrokerLife, after_changes, first_state, preferred, survivors
from raykafka.controller.rules.reassignment import Assignment, Step, asked, next_step, with_assignments
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.types import NO_LEADER
from raykafka.zookeeper.znodes import StateNode, TopicNode, new_kafka_uuid

EPOCH = 5
NOBODY: frozenset[int] = frozenset()


def alive(*brokers: int) -> dict[int, BrokerLife]:
    return {b: BrokerLife(1, 1, 1) for b in brokers}


def state(leader: int, *isr: int) -> StateNode:
    return StateNode(leader, 3, isr, (1,) * len(isr), 1, version=9)


def test_a_move_holds_all_replicas_until_the_new_ones_are_in_sync() -> None:
    lives = alive(0, 1, 2, 3)
    begun = asked(Assignment((0, 1)), state(0, 0, 1), (2, 3), lives, NOBODY, EPOCH)
    assert begun == Step(Assignment((2, 3, 0, 1), (2, 3), (0, 1)), replace(state(0, 0, 1), controller_epoch=EPOCH))
    for isr in ((0, 1), (0, 1, 2), (0, 3)):
        assert next_step(begun.assignment, state(0, *isr), lives, NOBODY, EPOCH) is None
    done = next_step(begun.assignment, state(0, 0, 2, 3), lives, NOBODY, EPOCH)
    assert done is not None and done.assignment == Assignment((2, 3))
    assert (done.state.leader, done.state.leader_epoch, done.state.isr) == (2, 4, (2, 3))


def test_a_leader_that_stays_leads_on_in_its_epoch() -> None:
    current = Assignment((1, 2, 0), (2,), (0,))
    done = next_step(current, state(1, 0, 1, 2), alive(0, 1, 2), NOBODY, EPOCH)
    assert done is not None and done.assignment == Assignment((1, 2))
    assert (done.state.leader, done.state.leader_epoch, done.state.isr) == (1, 3, (1, 2))


def test_another_order_or_fewer_replicas_is_done_at_once() -> None:
    lives = alive(0, 1, 2)
    reordered = asked(Assignment((0, 1)), state(0, 0, 1), (1, 0), lives, NOBODY, EPOCH)
    assert reordered.assignment == Assignment((1, 0)) and reordered.state.leader == 0
    fewer = asked(Assignment((0, 1, 2)), state(0, 0, 1, 2), (1,), lives, NOBODY, EPOCH)
    assert fewer.assignment == Assignment((1,))
    assert (fewer.state.leader, fewer.state.leader_epoch, fewer.state.isr) == (1, 4, (1,))


def test_a_cancelled_move_leaves_what_was_before() -> None:
    current = Assignment((2, 0, 1), (2,), (1,))
    for before, leader in ((state(0, 0, 1), 0), (state(2, 0, 2), 0)):
        cancelled = asked(current, before, None, alive(0, 1, 2), NOBODY, EPOCH)
        assert cancelled.assignment == Assignment((0, 1))
        assert cancelled.state.leader == leader and 2 not in cancelled.state.isr


def test_another_target_drops_what_only_the_first_one_wanted() -> None:
    lives = alive(0, 1, 2, 3)
    again = asked(Assignment((2, 0), (2,), (0,)), state(0, 0), (3,), lives, NOBODY, EPOCH)
    assert again.assignment == Assignment((3, 0), (3,), (0,))


def test_a_move_that_would_lose_the_last_in_sync_replica_is_refused() -> None:
    with pytest.raises(KafkaError) as refused:
        asked(Assignment((2, 0), (2,), (0,)), state(2, 2), None, alive(0, 2), NOBODY, EPOCH)
    assert refused.value.code is ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert "unclean" in refused.value.message


def test_nobody_who_stops_or_died_since_takes_the_leadership_over() -> None:
    current = Assignment((2, 3, 0), (2, 3), (0,))
    before = state(0, 0, 2, 3)
    lives = alive(0, 2, 3)
    done = next_step(current, before, lives, {2}, EPOCH)
    assert done is not None and done.state.leader == 3
    assert next_step(current, before, {**lives, 2: BrokerLife(2, 1, 1)}, {3}, EPOCH) is None


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ((), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ((1, 1), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ((-1, 0), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ((0, 9), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (None, ErrorCode.NO_REASSIGNMENT_IN_PROGRESS),
    ],
)
def test_what_cannot_be_is_refused(wanted: tuple[int, ...] | None, code: ErrorCode) -> None:
    with pytest.raises(KafkaError) as refused:
        asked(Assignment((0, 1)), state(0, 0, 1), wanted, alive(0, 1), NOBODY, EPOCH)
    assert refused.value.code is code


def test_a_dead_broker_that_has_a_replica_already_may_keep_it() -> None:
    begun = asked(Assignment((0, 1)), state(0, 0), (0, 1, 2), alive(0, 2), NOBODY, EPOCH)
    assert begun.assignment == Assignment((0, 1, 2), (2,), ())


def test_the_topics_node_carries_only_moves_that_are_under_way() -> None:
    node = TopicNode(new_kafka_uuid(), {0: (0,), 1: (1, 0)}, {1: (1,)}, {1: (0,)})
    moved = with_assignments(
        node, {0: Step(Assignment((2, 0), (2,), (0,)), state(0, 0)), 1: Step(Assignment((1,)), state(1, 1))}
    )
    assert (moved.replicas, moved.adding, moved.removing) == ({0: (2, 0), 1: (1,)}, {0: (2,)}, {0: (0,)})
    assert TopicNode.unpack(moved.pack()) == moved


BROKERS = range(5)


@dataclass
class World:
    """ZooKeeper's view of one partition, the brokers' logs, and what was acknowledged. Controllers hold nothing that is
    not here: each step reads it anew, as a successor would."""

    rng: random.Random
    assignment: Assignment
    state: StateNode
    lives: dict[int, BrokerLife]
    epochs: dict[int, int]
    leaving: set[int] = field(default_factory=set)
    ends: dict[int, int] = field(default_factory=lambda: dict.fromkeys(BROKERS, 0))
    acked: int = 0
    written: int = 0

    @staticmethod
    def begin(rng: random.Random) -> World:
        lives = {b: BrokerLife(1, 1, 1) for b in BROKERS}
        replicas = tuple(rng.sample(BROKERS, rng.randint(1, 3)))
        state = replace(first_state(replicas, lives, 1), version=0)
        return World(rng, Assignment(replicas), state, lives, dict.fromkeys(BROKERS, 1))

    # what the controller does, in one transaction each

    def take(self, step: Step | None) -> None:
        if step is None:
            return
        for gone in set(self.assignment.replicas) - set(step.assignment.replicas):
            self.ends[gone] = 0  # its directory is deleted
        self.assignment = step.assignment
        self.write(step.state)

    def write(self, state: StateNode) -> None:
        assert state.version == self.state.version, "a state is written over the one that it was made from"
        assert (state.leader_epoch > self.state.leader_epoch) or state.leader == self.state.leader
        self.state = replace(state, version=state.version + 1)
        self.check()

    def ask(self) -> None:
        wanted = None if self.rng.random() < 0.25 else tuple(self.rng.sample(BROKERS, self.rng.randint(1, 3)))
        try:
            self.take(asked(self.assignment, self.state, wanted, self.lives, self.leaving, 1))
        except KafkaError as refused:
            assert refused.code in (ErrorCode.INVALID_REPLICA_ASSIGNMENT, ErrorCode.NO_REASSIGNMENT_IN_PROGRESS)

    def look(self) -> None:
        """As after any news of brokers, and as the first thing that a new controller does."""
        after = after_changes(self.assignment.replicas, self.state, self.lives, 1)
        if after is not None:
            self.write(after)
        self.take(next_step(self.assignment, self.state, self.lives, self.leaving, 1))

    def balance(self) -> None:
        made = preferred(self.assignment.replicas, self.state, self.lives, self.leaving, 1)
        if made is not None and self.state.leader not in (made.leader, NO_LEADER):
            self.write(made)

    # what brokers do

    def die(self) -> None:
        if self.lives:
            self.lives.pop(self.rng.choice(sorted(self.lives)))

    def come(self) -> None:
        dead = sorted(set(BROKERS) - self.lives.keys())
        if dead:
            broker = self.rng.choice(dead)
            self.epochs[broker] += 1
            self.lives[broker] = BrokerLife(self.epochs[broker], 1, 1)
            self.leaving.discard(broker)

    def leave(self) -> None:
        if self.lives:
            self.leaving.add(self.rng.choice(sorted(self.lives)))

    @property
    def leads(self) -> bool:
        return self.state.leader in survivors(self.state, self.lives)

    def append(self) -> None:
        """A record that is acknowledged once every in-sync replica has it: the dead ones are waited for."""
        if not self.leads:
            return
        self.written += 1
        self.ends[self.state.leader] = self.written
        if set(self.state.isr) <= set(survivors(self.state, self.lives)):
            for member in self.state.isr:
                self.ends[member] = self.written
            self.acked = self.written

    def join(self) -> None:
        """A follower has caught up and gets into the ISR (rules 6, 7)."""
        outside = [b for b in self.assignment.replicas if b in self.lives and b not in self.state.isr]
        if not self.leads or not outside:
            return
        joins = self.rng.choice(outside)
        self.ends[joins] = self.ends[self.state.leader]
        isr = (*self.state.isr, joins)
        epochs = (*self.state.isr_epochs, self.lives[joins].epoch)
        self.write(replace(self.state, isr=isr, isr_epochs=epochs))
        self.take(next_step(self.assignment, self.state, self.lives, self.leaving, 1))

    # what holds

    def check(self) -> None:
        assignment, state = self.assignment, self.state
        assert assignment.target and len(set(assignment.replicas)) == len(assignment.replicas)
        assert {*assignment.adding, *assignment.removing} <= set(assignment.replicas)
        assert state.isr and set(state.isr) <= set(assignment.replicas)
        assert state.leader in (NO_LEADER, *state.isr)
        for member in state.isr:
            assert self.ends[member] >= self.acked, f"in-sync broker {member} lacks acknowledged records"

    def settle(self) -> None:
        """Everybody comes back and nothing else happens: every move ends."""
        self.leaving.clear()
        while self.lives.keys() != set(BROKERS):
            self.come()
        for _ in BROKERS:
            self.look()
            self.join()
        self.look()
        assert self.leads and not self.assignment.is_moving
        assert set(self.state.isr) == set(self.assignment.replicas)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 1 << 32))
def test_no_schedule_loses_a_record_or_strands_a_move(seed: int) -> None:
    rng = random.Random(seed)
    world = World.begin(rng)
    steps = (world.ask, world.look, world.balance, world.die, world.come, world.leave, world.append, world.join)
    for _ in range(60):
        rng.choices(steps, (3, 4, 1, 1, 2, 0.3, 4, 4))[0]()
        world.check()
    world.settle()
