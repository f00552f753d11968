"""What the active controller tells of the cluster, as plain data for metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raykafka.cluster import health
from raykafka.cluster.image import Topic

if TYPE_CHECKING:
    from raykafka.controller.controller import Controller

_MIN_ISR = "min.insync.replicas"


def figures(active: Controller) -> dict[str, Any]:
    """Counts of changes are exact functions of what stands in ZooKeeper: the sum over all partitions, and over those
    that were deleted."""
    changes = active.deleted_changes
    for record in (*active.records.values(), *active.deleting.values()):
        for state in record.states.values():
            changes = changes.plus(state.changes)
    image = active.image
    return {
        "epoch": active.epoch,
        "changes": changes._asdict(),
        "brokers": len(image.brokers),
        **partition_figures(image.topics, int(active.topic_config({})[_MIN_ISR])),
    }


def partition_figures(topics: Mapping[str, Topic], default_min_isr: int) -> dict[str, int]:
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
