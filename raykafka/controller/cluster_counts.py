"""Counts over the whole cluster, as the controller tells them for metrics: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raykafka.cluster import health
from raykafka.cluster.image import Topic
from raykafka.controller.ledger.state import State

_MIN_ISR = "min.insync.replicas"


def cluster_counts(state: State) -> dict[str, Any]:
    """Counts of changes are exact functions of what stands in ZooKeeper: the sum over all partitions, and over those
    that were deleted."""
    changes = state.deleted_changes
    for record in (*state.records.values(), *state.deleting.values()):
        for partition in record.states.values():
            changes = changes.plus(partition.changes)
    image = state.image
    return {
        "epoch": state.epoch,
        "changes": changes._asdict(),
        "brokers": len(image.brokers),
        **partition_counts(image.topics, int(state.topic_config({})[_MIN_ISR])),
    }


def partition_counts(topics: Mapping[str, Topic], default_min_isr: int) -> dict[str, int]:
    """Counts over all partitions; ``default_min_isr`` is for topics that set no min.insync.replicas."""
    partitions = under_replicated = under_min_isr = offline = not_preferred = 0
    for topic in topics.values():
        min_isr = int(topic.config.get(_MIN_ISR, default_min_isr))
        partitions += len(topic.partitions)
        for state in topic.partitions.values():
            under_replicated += health.is_under_replicated(state)
            under_min_isr += health.is_under_min_isr(state, min_isr)
            if health.is_offline(state):
                offline += 1
            elif not health.is_led_by_preferred(state):
                not_preferred += 1
    return {
        "topics": len(topics),
        "partitions": partitions,
        "under_replicated": under_replicated,
        "under_min_isr": under_min_isr,
        "offline": offline,
        "not_preferred": not_preferred,
    }
