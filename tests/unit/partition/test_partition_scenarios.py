"""How each rule earns its place: a short history that is safe with the rule and breaks a named property without it.

The broker that leads first is 1. Frames move only where the scenario says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from raykafka.replica.rules import events as ev
from tests.unit.partition.register import Controller
from tests.unit.partition.removals import RULES, Without
from tests.unit.partition.replicas import Broker, Channel
from tests.unit.partition.world import (
    ACKED_LOST,
    LATEST_GROWS,
    LIVE_STAYS,
    LOGS_AGREE,
    ONE_RECORD,
    READS_STAY,
    Violation,
    World,
)


class Play(World):
    """A world that a scenario moves by hand."""

    def __init__(self, rule: Without | None, brokers: int = 3) -> None:
        rules: dict[str, Any] = {}
        if rule is not None:
            rules = {
                "partition_rules": rule.partition,
                "controller_rules": rule.controller(),
                "broker_rules": rule.broker(),
            }
        super().__init__(random.Random(0), brokers=brokers, **rules)
        self.faults = False
        self.hear_all()

    @property
    def controller(self) -> Controller:
        return self.controllers[-1]

    def hear_all(self, *brokers: int) -> None:
        """The brokers (all, if none is named) take what the controllers told them."""
        for link, waiting in self.controls.items():
            while waiting and (not brokers or link[1] in brokers):
                self.hear(*link)

    def decide_state(self, **changes: Any) -> None:
        """The active controller writes a state of its choosing. Who hears of it is for the scenario to say."""
        state = replace(self.register.state, **changes)
        assert self.register.write(self.controller.epoch, self.register.state.version, state, frozenset())
        self.controller.read()
        self.controls.clear()
        self.tell_all(self.controller)

    def channel(self, leader: int, follower: int) -> Channel:
        """The newest connection between two brokers."""
        return [c for c in self.channels if c.stream.leader == leader and c.follower == follower][-1]

    def shake(self, leader: int, follower: int) -> Channel:
        channel = self.channel(leader, follower)
        self.deliver_to_follower(channel)
        self.deliver_to_leader(channel)
        return channel

    def replicate(self, channel: Channel, acknowledge: bool = True) -> None:
        """Everything the leader has goes to the follower, and its acknowledgement back if asked."""
        self.push(channel, 1000)
        while channel.to_follower:
            self.deliver_to_follower(channel)
        while acknowledge and channel.to_leader:
            self.deliver_to_leader(channel)

    def tick(self, broker: int) -> None:
        self.hosts.now_ms += 25
        self.step(self.brokers[broker], ev.Tick())

    def restart(self, broker: int, tainted: bool = False) -> Broker:
        """The broker dies and is back in a new life; nobody has told it anything yet."""
        self.hosts.kill(broker)
        b = self.brokers[broker]
        b.tainted = tainted
        self.hosts.start(broker)
        return b


def ask_unheard(play: Play) -> None:
    """Follower 2 catches up, and the ISR that the leader asks for is written; the leader does not hear of it."""
    play.shake(1, 2)
    play.propose(play.controller, play.proposals.pop(0), outcome_known=False)
    assert play.register.state.isr == (1, 2)


def write_and_hand_over(play: Play, leader: Broker) -> None:
    play.produce(leader, -1)
    play.decide_state(leader=2, leader_epoch=1, isr=(2,))
    play.hear_all(2)


def a_joining_follower_is_counted_from_the_asking(play: Play) -> None:
    play.decide_state(isr=(1,))
    play.hear_all()
    ask_unheard(play)
    write_and_hand_over(play, play.brokers[1])


def a_follower_that_lacks_the_epochs_beginning_waits(play: Play) -> None:
    play.decide_state(isr=(1, 2, 4))
    play.hear_all()
    for follower in (2, 4):
        play.shake(1, follower)
    for _ in range(3):
        play.produce(play.brokers[1], -1)
    for follower in (2, 4):
        play.replicate(play.channel(1, follower))
    assert len(play.acked) == 3
    play.decide_state(leader=2, leader_epoch=1, isr=(2, 4))
    play.hear_all(2, 3, 4)
    play.shake(2, 3)
    while play.proposals:
        play.propose(play.controller, play.proposals.pop(0), outcome_known=True)
    if 3 in play.register.state.isr:
        play.decide_state(leader=3, leader_epoch=2, isr=(3,))
        play.hear_all(3)


def a_frame_of_an_older_epoch_comes_late(play: Play) -> None:
    late = play.shake(1, 2)
    play.produce(play.brokers[1], 1)
    play.push(late, 1)
    play.decide_state(leader=3, leader_epoch=1, isr=(2, 3))
    play.hear_all(2, 3)
    channel = play.shake(3, 2)
    play.deliver_to_follower(late)
    play.produce(play.brokers[3], -1)
    play.replicate(channel)
    play.replicate(channel)
    assert play.acked
    play.decide_state(leader=2, leader_epoch=2, isr=(2,))
    play.hear_all(2)


def a_follower_is_elected_after_a_truncation(play: Play) -> None:
    play.decide_state(isr=(1, 2))
    play.hear_all()
    channel = play.shake(1, 2)
    play.produce(play.brokers[1], -1)
    play.replicate(channel)
    assert len(play.acked) == 1
    play.end(channel)
    play.tick(1)
    play.shake(1, 2)
    play.decide_state(leader=2, leader_epoch=1, isr=(2,))
    play.hear_all(2)


def a_leader_whose_log_was_cut_is_told_its_epoch_again(play: Play) -> None:
    channel = play.shake(1, 2)
    play.produce(play.brokers[1], 1)
    play.replicate(channel, acknowledge=False)
    leader = play.brokers[1]
    play.kill_replica(leader)
    leader.disk.records.clear()
    play.open(leader)
    play.produce(leader, 1)


def an_isr_is_written_again_after_it_shrank(play: Play) -> None:
    play.decide_state(isr=(1,))
    play.hear_all()
    play.shake(1, 2)
    late = play.proposals.pop(0)
    play.propose(play.controller, late, outcome_known=True)
    play.hear_all()
    assert play.register.state.isr == (1, 2)
    play.decide_state(isr=(1,))
    play.hear_all()
    play.proposals.clear()
    play.produce(play.brokers[1], -1)
    assert len(play.acked) == 1
    play.propose(play.controller, late, outcome_known=True)
    if 2 in play.register.state.isr:
        play.decide_state(leader=2, leader_epoch=1, isr=(2,))
        play.hear_all(2)


def a_joining_follower_dies_and_loses_its_log(play: Play) -> None:
    play.decide_state(isr=(1,))
    play.hear_all()
    play.produce(play.brokers[1], -1)
    channel = play.shake(1, 2)
    play.replicate(channel)
    assert len(play.acked) == 1
    late = play.proposals.pop(0)
    assert 2 in late.isr
    play.hosts.kill(2)
    play.brokers[2].disk.records.clear()
    play.restart(2, tainted=True)
    play.propose(play.controller, late, outcome_known=True)
    if 2 in play.register.state.isr:
        play.decide_state(leader=2, leader_epoch=1, isr=(2,))
        play.hear_all(2)


def a_dead_broker_is_back_when_its_removal_comes(play: Play) -> None:
    dead = play.brokers[2].epoch
    play.restart(2)
    play.remove(play.controller, 2, dead)


def a_record_is_on_the_leader_only(play: Play) -> None:
    play.produce(play.brokers[1], -1)
    play.consume(play.brokers[1])
    play.decide_state(leader=2, leader_epoch=1, isr=(2, 3))
    play.hear_all(2, 3)
    play.shake(2, 3)
    play.produce(play.brokers[2], -1)
    play.replicate(play.channel(2, 3))
    play.consume(play.brokers[2])


def a_follower_restarts_and_hears_of_an_older_epoch(play: Play) -> None:
    play.decide_state(isr=(1, 2, 3, 4))
    play.hear_all()
    play.produce(play.brokers[1], 1)
    for follower in (2, 3):
        play.shake(1, follower)
        play.replicate(play.channel(1, follower), acknowledge=False)
    play.decide_state(leader=4, leader_epoch=1, isr=(2, 3, 4))
    play.hear_all(4)
    play.produce(play.brokers[4], 1)
    old = play.controller
    play.hosts.new_controller()
    play.decide_state(leader=3, leader_epoch=2, isr=(2, 3))
    play.hear_all(2, 3)
    play.shake(3, 2)
    play.consume(play.brokers[3])
    assert play.was_read
    play.restart(2)
    old.read_brokers()
    play.tell_all(old)
    play.hear_all(2, 4)
    play.tick(4)
    for channel in [c for c in play.channels if c.stream.leader == 4 and c.follower == 2]:
        play.deliver_to_follower(channel)
    play.decide_state(leader=2, leader_epoch=3, isr=(2,))
    play.hear_all(2)


def an_acknowledgement_of_a_dead_life_comes_late(play: Play) -> None:
    late = play.shake(1, 2)
    play.produce(play.brokers[1], -1)
    play.replicate(late, acknowledge=False)
    play.hosts.kill(2)
    play.brokers[2].disk.records.clear()
    play.restart(2, tainted=True)
    play.decide_state(isr=(1,))
    play.hear_all()
    assert len(play.acked) == 1
    play.tick(1)
    play.shake(1, 2)
    while late.to_leader:
        play.deliver_to_leader(late)
    while play.proposals:
        play.propose(play.controller, play.proposals.pop(0), outcome_known=True)
    if 2 in play.register.state.isr:
        play.decide_state(leader=2, leader_epoch=1, isr=(2,))
        play.hear_all(2)


def a_record_is_answered_before_it_is_replicated(play: Play) -> None:
    play.produce(play.brokers[1], -1)
    play.decide_state(leader=2, leader_epoch=1, isr=(2, 3))
    play.hear_all(2)


def a_new_leader_does_not_know_yet_what_was_committed(play: Play) -> None:
    play.decide_state(isr=(1, 2, 3))
    play.hear_all()
    play.produce(play.brokers[1], -1)
    for follower in (2, 3):
        play.shake(1, follower)
        play.replicate(play.channel(1, follower))
    assert play.acked
    play.consume(play.brokers[1])
    play.decide_state(leader=2, leader_epoch=1, isr=(2, 3))
    play.hear_all(2)
    play.consume(play.brokers[2])


def a_leader_is_closed_while_it_asks_for_an_isr(play: Play) -> None:
    play.decide_state(isr=(1,))
    play.hear_all()
    ask_unheard(play)
    leader = play.brokers[1]
    play.close(leader)
    play.open(leader)
    write_and_hand_over(play, leader)


def a_leader_leaves_while_it_asks_for_an_isr(play: Play) -> None:
    play.decide_state(isr=(1,))
    play.hear_all()
    ask_unheard(play)
    leader = play.brokers[1]
    if play.leave(leader):
        play.open(leader)
    write_and_hand_over(play, leader)


def moved(play: Play) -> Broker:
    """The leader, alone in the ISR, once another actor has its log open."""
    play.decide_state(isr=(1,))
    play.hear_all()
    leader = play.brokers[1]
    assert play.leave(leader)
    play.open(leader)
    assert leader.partition is not None
    assert leader.partition.leading is not None
    return leader


def a_leader_that_moved_dies_while_it_asks_for_an_isr(play: Play) -> None:
    leader = moved(play)
    ask_unheard(play)
    play.hosts.kill_actor(1, leader.actor)
    play.open(leader)
    write_and_hand_over(play, leader)


def a_new_life_hears_of_an_older_isr_in_the_epoch_of_its_seal(play: Play) -> None:
    play.decide_state(isr=(1,))
    play.hear_all()
    old = play.controller
    play.hosts.new_controller()
    play.controller.read()
    play.decide_state(isr=(1, 2))
    play.hear_all()
    leader = play.brokers[1]
    assert play.leave(leader)
    play.restart(1)
    old.read_brokers()
    play.tell(old, 1)
    play.hear_all(1)
    write_and_hand_over(play, leader)


def a_leader_moves_after_its_isr_has_grown(play: Play) -> None:
    play.decide_state(isr=(1,))
    play.hear_all()
    play.decide_state(isr=(1, 2))
    play.hear_all()
    leader = play.brokers[1]
    assert play.leave(leader)
    play.open(leader)
    write_and_hand_over(play, leader)


SCENARIOS: dict[str, tuple[Callable[[Play], None], str]] = {
    "a pending ISR counts in the high watermark": (a_joining_follower_is_counted_from_the_asking, ACKED_LOST),
    "a follower joins only at the epoch's start or later": (
        a_follower_that_lacks_the_epochs_beginning_waits,
        ACKED_LOST,
    ),
    "an old stream's frame is not taken": (a_frame_of_an_older_epoch_comes_late, LOGS_AGREE),
    "the high watermark never decides a truncation": (a_follower_is_elected_after_a_truncation, ACKED_LOST),
    "no epoch is led twice": (a_leader_whose_log_was_cut_is_told_its_epoch_again, ONE_RECORD),
    "an ISR is written at its version only": (an_isr_is_written_again_after_it_shrank, ACKED_LOST),
    "an ISR names its members' broker epochs": (a_joining_follower_dies_and_loses_its_log, ACKED_LOST),
    "a registration is removed at its broker epoch only": (a_dead_broker_is_back_when_its_removal_comes, LIVE_STAYS),
    "acks=all waits for the high watermark": (a_record_is_answered_before_it_is_replicated, ACKED_LOST),
    "reads end at the high watermark": (a_record_is_on_the_leader_only, READS_STAY),
    "a follower remembers its epoch": (a_follower_restarts_and_hears_of_an_older_epoch, READS_STAY),
    "acknowledgements count after the handshake of their stream": (
        an_acknowledgement_of_a_dead_life_comes_late,
        ACKED_LOST,
    ),
    "latest is unknown until the high watermark reaches the epoch's start": (
        a_new_leader_does_not_know_yet_what_was_committed,
        LATEST_GROWS,
    ),
    "a leader leaves only clean": (a_leader_leaves_while_it_asks_for_an_isr, ACKED_LOST),
    "a seal opens one replica only": (a_leader_that_moved_dies_while_it_asks_for_an_isr, ACKED_LOST),
    "a seal leads on in one life of its broker only": (
        a_new_life_hears_of_an_older_isr_in_the_epoch_of_its_seal,
        ACKED_LOST,
    ),
    "whoever opens a log knows what the one knew that left it": (a_leader_moves_after_its_isr_has_grown, ACKED_LOST),
    "a replica that was just closed leads its epoch no more": (
        a_leader_is_closed_while_it_asks_for_an_isr,
        ACKED_LOST,
    ),
}


def test_every_rule_has_its_scenario() -> None:
    assert SCENARIOS.keys() == RULES.keys()


@pytest.mark.parametrize("rule", SCENARIOS)
def test_the_scenario_is_safe_with_the_rule(rule: str) -> None:
    SCENARIOS[rule][0](Play(None, brokers=4))


@pytest.mark.parametrize("rule", SCENARIOS)
def test_the_scenario_breaks_a_property_without_the_rule(rule: str) -> None:
    scenario, name = SCENARIOS[rule]
    with pytest.raises(Violation) as violation:
        scenario(Play(RULES[rule], brokers=4))
    assert violation.value.name == name
