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
    share_out,
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


def partitions(*numbers: int) -> list[TopicPartition]:
    return [TopicPartition("t", number) for number in numbers]


def test_actors_that_came_last_get_their_share_active_ones_and_idle_ones() -> None:
    moves = share_out({1}, {0: partitions(0, 1, 2, 3, 4, 5, 6, 7), 1: []})
    assert moved(moves) == [0, 7, 1, 6]
    moves = share_out({1, 2}, {0: partitions(*range(10)), 1: [], 2: []})
    assert [sum(move.to == actor for move in moves) for actor in (1, 2)] == [4, 3]
    assert len({move.partition for move in moves}) == 7
    moves = share_out({1}, {0: partitions(*range(19)), 1: partitions(19)})
    assert len(moves) == 9


def test_actors_that_were_there_before_get_nothing_for_another_has_come() -> None:
    replicas = {0: partitions(*range(9)), 1: partitions(9), 2: []}
    assert {move.to for move in share_out({2}, replicas)} == {2}
    assert share_out(set(), replicas) == []
    assert share_out({5}, replicas) == [], "it takes no replicas"


def test_an_only_replica_stays_where_it_is() -> None:
    assert share_out({1, 2}, {0: partitions(0), 1: [], 2: []}) == []
    assert len(share_out({1, 2, 3}, {0: partitions(0, 1, 2), 1: [], 2: [], 3: []})) == 2
    assert share_out({0}, {0: partitions(0, 1)}) == []
    assert share_out({0}, {}) == []
