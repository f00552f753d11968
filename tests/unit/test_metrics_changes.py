"""Counts of elections and ISR changes: exact over any history of states, whoever wrote them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raykafka.cluster.changes import Changes
from raykafka.types import NO_LEADER
from raykafka.zookeeper.znodes import StateNode, pack_deleted_topics, unpack_deleted_topics

isrs = st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True).map(tuple)
steps = st.lists(st.tuples(st.integers(-1, 3), st.booleans(), st.booleans(), isrs, st.booleans()), max_size=12)


@settings(max_examples=200, deadline=None)
@given(isrs, steps)
def test_counts_are_those_of_the_history(
    first: tuple[int, ...], steps: list[tuple[int, bool, bool, tuple[int, ...], bool]]
) -> None:
    state = StateNode(first[0], 0, first, (1,) * len(first), 1).stored_at(0)
    history = [state]
    for leader, new_epoch, unclean, isr, controller_changes in steps:
        epoch = state.leader_epoch + new_epoch
        unclean_epoch = epoch if new_epoch and unclean and leader >= 0 else state.unclean_epoch
        after = replace(state, leader=leader, leader_epoch=epoch, isr=isr, unclean_epoch=unclean_epoch)
        data, version = after.pack(), state.version + 1
        # the next change is made from what this controller has in memory, or from what another reads in ZooKeeper
        state = StateNode.unpack(data, version) if controller_changes else after.stored_at(version)
        history.append(state)
    pairs = list(itertools.pairwise(history))
    assert state.changes == (
        sum(a.leader_epoch != b.leader_epoch and b.leader != NO_LEADER for a, b in pairs),
        sum(a.unclean_epoch != b.unclean_epoch for a, b in pairs),
        sum(any(member not in b.isr for member in a.isr) for a, b in pairs),
        sum(any(member not in a.isr for member in b.isr) for a, b in pairs),
    )


def test_a_written_state_that_was_not_taken_on_is_found_out() -> None:
    state = StateNode(0, 0, (0, 1), (1, 1), 1).stored_at(0)
    careless = replace(state, isr=(0,), version=1)
    with pytest.raises(AssertionError, match="stored_at"):
        replace(careless, isr=(0, 1)).pack()


def test_what_deleted_topics_leave_is_kept_whole() -> None:
    changes = Changes(4, 1, 3, 2).plus(Changes(1, 0, 1, 0))
    assert unpack_deleted_topics(pack_deleted_topics(changes)) == changes == (5, 1, 4, 2)
