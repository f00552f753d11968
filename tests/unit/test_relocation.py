"""Where partitions should move: as little as can be, spread over brokers and racks."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raykafka.controller.rules.relocation import away_from, spread, with_factor
from raykafka.errors import ConfigError
from raykafka.types import TopicPartition

NO_RACKS: dict[int, str | None] = {0: None, 1: None, 2: None, 3: None}
RACKS: dict[int, str | None] = {0: "a", 1: "a", 2: "b", 3: "b"}


def tp(partition: int, topic: str = "t") -> TopicPartition:
    return TopicPartition(topic, partition)


def test_more_replicas_go_to_other_racks_and_idle_brokers_and_the_preferred_one_stays() -> None:
    current: dict[TopicPartition, tuple[int, ...]] = {tp(0): (0,), tp(1): (2,), tp(2): (0,)}
    assert with_factor(current, [tp(0), tp(1)], 2, RACKS) == {tp(0): (0, 3), tp(1): (2, 1)}


def test_fewer_replicas_lose_the_least_preferred() -> None:
    assert with_factor({tp(0): (2, 1, 0)}, [tp(0)], 1, NO_RACKS) == {tp(0): (2,)}


def test_what_has_its_factor_already_does_not_move() -> None:
    assert with_factor({tp(0): (2, 1)}, [tp(0)], 2, NO_RACKS) == {}


def test_more_replicas_than_brokers_are_refused() -> None:
    with pytest.raises(ConfigError, match="need 5 brokers, and there are 4"):
        with_factor({tp(0): (0,)}, [tp(0)], 5, NO_RACKS)
    with pytest.raises(ConfigError, match="there are 2 brokers to hold them"):
        spread({"t": (1, 3)}, {0: None, 1: None})


def test_an_emptied_broker_is_replaced_in_its_place() -> None:
    current: dict[TopicPartition, tuple[int, ...]] = {tp(0): (1, 0), tp(1): (2, 3), tp(2): (0, 1)}
    moved = away_from(current, 1, NO_RACKS)
    assert moved == {tp(0): (2, 0), tp(2): (0, 3)}


def test_a_broker_that_nobody_can_replace_is_not_emptied() -> None:
    with pytest.raises(ConfigError, match="t-0 has 3 replicas and no other broker"):
        away_from({tp(0): (0, 1, 2)}, 1, {0: None, 1: None, 2: None})


def test_topics_are_laid_out_as_new_ones() -> None:
    placed = spread({"t": (4, 2), "u": (1, 3)}, NO_RACKS)
    assert Counter(placed[tp(p)][0] for p in range(4)) == Counter(dict.fromkeys(range(4), 1))
    assert len(set(placed[tp(0, "u")])) == 3


layouts = st.lists(st.permutations(range(4)).flatmap(lambda ids: st.integers(1, 3).map(lambda n: tuple(ids[:n]))))


@settings(max_examples=300, deadline=None)
@given(layouts, st.integers(0, 3), st.sampled_from([NO_RACKS, RACKS]))
def test_emptying_moves_only_what_has_to(layout: list[tuple[int, ...]], leaving: int, racks: dict[int, str]) -> None:
    current = {tp(p): replicas for p, replicas in enumerate(layout)}
    moved = away_from(current, leaving, racks)
    assert set(moved) == {p for p, replicas in current.items() if leaving in replicas}
    for partition, replicas in moved.items():
        before = current[partition]
        assert leaving not in replicas and len(set(replicas)) == len(before)
        assert [b for b in replicas if b in before] == [b for b in before if b != leaving]
        others = [racks[b] for b in before if b != leaving]
        if racks is RACKS and set(others) < {"a", "b"} and len(before) == 2:
            taken = next(b for b in replicas if b not in before)
            assert racks[taken] not in others
