"""Which actor opens a log, and what moves between actors."""

from __future__ import annotations

from raykafka.broker.partitions.placement import (
    REST_ROUNDS,
    ROUNDS,
    Balance,
    Load,
    Relocation,
    choose,
    relocations,
)
from raykafka.types import TopicPartition


def activity(*costs: float) -> dict[TopicPartition, float]:
    return {TopicPartition("t", number): cost for number, cost in enumerate(costs)}


def moved(found: list[Relocation]) -> list[int]:
    assert {relocation.to for relocation in found} <= {1}
    return [relocation.partition.partition for relocation in found]


def test_an_actor_without_replicas_is_chosen_first() -> None:
    assert choose({0: Load(1, 0.0, 0), 1: Load(0, 0.9, 0)}) == 1


def test_the_least_busy_actor_is_chosen_and_the_one_with_fewest_replicas_where_nothing_is_known() -> None:
    assert choose({0: Load(1, 0.6, 0), 1: Load(50, 0.1, 0)}) == 1
    assert choose({0: Load(2, 0.0, 0), 1: Load(1, 0.0, 0)}) == 1
    assert choose({}) is None


def test_what_was_given_since_the_load_was_measured_counts() -> None:
    assert choose({0: Load(9, 0.1, 1), 1: Load(9, 0.0, 7)}) == 0


def test_half_the_difference_moves_from_the_busy_to_the_idle() -> None:
    assert moved(relocations({0: 0.8, 1: 0.0, 2: 0.5}, {0: activity(1, 1, 1, 1)})) == [0, 1]
    assert moved(relocations({0: 0.9, 1: 0.1}, {0: activity(5, 3, 0, 1)})) == [1, 3]


def test_nothing_moves_where_that_would_help_nobody() -> None:
    assert relocations({0: 0.8, 1: 0.4}, {0: activity(1, 1)}) == []
    assert relocations({0: 0.6, 1: 0.0}, {0: activity(1, 1)}) == []
    assert relocations({0: 0.9}, {0: activity(1, 1)}) == []
    assert relocations({0: 0.9, 1: 0.0}, {0: activity(100)}) == [], "it would only be busy elsewhere"
    assert relocations({0: 0.9, 1: 0.0}, {}) == []


def test_it_moves_when_that_has_lasted_and_then_rests() -> None:
    balance, busy = Balance(), {0: 0.9, 1: 0.0}
    rounds = [bool(balance.round(busy, {0: activity(1, 1, 1)})) for _ in range(ROUNDS + REST_ROUNDS + ROUNDS)]
    assert [at for at, moves in enumerate(rounds) if moves] == [ROUNDS - 1, ROUNDS + REST_ROUNDS + ROUNDS - 1]
    balance = Balance()
    for at in range(3 * ROUNDS):
        uneven = at % ROUNDS != ROUNDS - 1
        assert not balance.round(busy if uneven else {0: 0.5, 1: 0.5}, {0: activity(1, 1, 1)})
