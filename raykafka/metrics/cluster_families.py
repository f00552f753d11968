"""What the active controller says of the cluster, through the broker whose child it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raykafka.metrics import catalogue
from raykafka.metrics.families import Families

_GAUGES = {
    "epoch": catalogue.CONTROLLER_EPOCH,
    "brokers": catalogue.CLUSTER_BROKERS,
    "topics": catalogue.CLUSTER_TOPICS,
    "partitions": catalogue.CLUSTER_PARTITIONS,
    "under_replicated": catalogue.CLUSTER_UNDER_REPLICATED,
    "under_min_isr": catalogue.CLUSTER_UNDER_MIN_ISR,
    "offline": catalogue.CLUSTER_OFFLINE,
    "not_preferred": catalogue.CLUSTER_NOT_PREFERRED,
}
_COUNTERS = {
    "elections": catalogue.ELECTIONS,
    "unclean_elections": catalogue.UNCLEAN_ELECTIONS,
    "isr_shrinks": catalogue.ISR_SHRINKS,
    "isr_expands": catalogue.ISR_EXPANDS,
}


def add_cluster(families: Families, counts: Mapping[str, Any] | None) -> None:
    """Nothing where ``counts`` are not known: no sample, rather than a wrong one."""
    if counts is None:
        return
    families.add(catalogue.ACTIVE_CONTROLLER, int(bool(counts)))
    if counts:
        for key, gauge in _GAUGES.items():
            families.add(gauge, counts[key])
        for key, counter in _COUNTERS.items():
            families.add(counter, counts["changes"][key])
