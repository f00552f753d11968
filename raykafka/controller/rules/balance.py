"""Which partitions go back to their preferred replicas by themselves. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from raykafka.types import TopicPartition


def unbalanced(leaders: Mapping[TopicPartition, tuple[int, int]], allowed_percent: int) -> list[TopicPartition]:
    """The partitions, given with (preferred, actual leader), that are led by another than their preferred broker, of
    those brokers of whose preferred partitions more than ``allowed_percent`` are
    (``leader.imbalance.per.broker.percentage``)."""
    by_broker: dict[int, list[TopicPartition]] = {}
    for tp, (first, _) in leaders.items():
        by_broker.setdefault(first, []).append(tp)
    found = []
    for _, partitions in sorted(by_broker.items()):
        elsewhere = [tp for tp in partitions if leaders[tp][0] != leaders[tp][1]]
        if 100 * len(elsewhere) > allowed_percent * len(partitions):
            found += elsewhere
    return found
