"""What is well and what is not with a partition, in Kafka's meanings. Pure; brokers and the controller share it."""

from __future__ import annotations

from raykafka.cluster.image import PartitionState
from raykafka.types import NO_LEADER


def is_offline(state: PartitionState) -> bool:
    """Nobody leads it: it can be neither written nor read."""
    return state.leader == NO_LEADER


def is_under_replicated(state: PartitionState) -> bool:
    """It has fewer in-sync replicas than it is to have; those that a reassignment only adds do not count."""
    return len(state.isr) < len(state.replicas) - len(state.adding)


def is_under_min_isr(state: PartitionState, min_insync_replicas: int) -> bool:
    """It is led, and refuses acks=all for want of in-sync replicas."""
    return not is_offline(state) and len(state.isr) < state.least_in_sync(min_insync_replicas)


def is_at_min_isr(state: PartitionState, min_insync_replicas: int) -> bool:
    """It is led, and would refuse acks=all if one more in-sync replica were lost."""
    return not is_offline(state) and len(state.isr) == state.least_in_sync(min_insync_replicas)


def is_led_by_preferred(state: PartitionState) -> bool:
    """The first of its replicas leads it."""
    return state.leader == state.replicas[0]
