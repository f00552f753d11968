"""Which partitions go back to their preferred leaders by themselves."""

from __future__ import annotations

from raykafka.controller.rules.balance import unbalanced
from raykafka.types import TopicPartition


def leaders(*pairs: tuple[int, int]) -> dict[TopicPartition, tuple[int, int]]:
    return {TopicPartition("t", p): pair for p, pair in enumerate(pairs)}


def test_only_brokers_with_too_little_of_their_own_get_it_back() -> None:
    found = leaders(*[(0, 0)] * 9, (0, 1), (1, 1), (1, 2))
    assert unbalanced(found, 10) == [TopicPartition("t", 11)]
    assert unbalanced(found, 9) == [TopicPartition("t", 9), TopicPartition("t", 11)]
    assert unbalanced(found, 50) == []
