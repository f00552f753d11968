"""Counts over the partitions of an image, and by name those that are not as they should be. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raykafka.cluster.health import is_offline, is_under_min_isr, is_under_replicated
from raykafka.cluster.image import ClusterImage, PartitionState, Topic


def partition_summary(image: ClusterImage, min_insync: Callable[[Topic], int]) -> dict[str, Any]:
    """Counts, and a row for each partition that is ``offline`` (nobody leads), ``under_min_isr`` (acks=all is refused),
    ``under_replicated`` (fewer in sync than it had replicas before a move) or ``moving``, as plain data.
    ``min_insync`` gives a topic's ``min.insync.replicas``."""
    found: dict[str, Any] = {"topics": len(image.topics), "partitions": 0, "replicas": 0}
    rows: dict[str, list[dict[str, Any]]] = {"offline": [], "under_min_isr": [], "under_replicated": [], "moving": []}
    leaders = dict.fromkeys(image.brokers, 0)
    replicas = dict.fromkeys(image.brokers, 0)
    for topic in image.topics.values():
        least = min_insync(topic)
        found["partitions"] += len(topic.partitions)
        for partition, state in topic.partitions.items():
            found["replicas"] += len(state.replicas)
            if state.leader in leaders:
                leaders[state.leader] += 1
            for broker in state.replicas:
                if broker in replicas:
                    replicas[broker] += 1
            for kind in _wrong(state, least):
                rows[kind].append(_row(topic.name, partition, state))
    by_broker = {str(broker): {"leaders": leaders[broker], "replicas": replicas[broker]} for broker in image.brokers}
    return {**found, **rows, "brokers": by_broker}


def _wrong(state: PartitionState, least: int) -> list[str]:
    wrong = {
        "offline": is_offline(state),
        "under_min_isr": is_under_min_isr(state, least),
        "under_replicated": is_under_replicated(state),
        "moving": bool(state.adding or state.removing),
    }
    return [kind for kind, holds in wrong.items() if holds]


def _row(topic: str, partition: int, state: PartitionState) -> dict[str, Any]:
    return {
        "topic": topic,
        "partition": partition,
        "leader": state.leader,
        "replicas": list(state.replicas),
        "isr": list(state.isr),
        "adding": list(state.adding),
        "removing": list(state.removing),
    }
