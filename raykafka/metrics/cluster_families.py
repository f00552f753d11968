"""What the active controller says of the cluster, through the broker whose child it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raykafka.errors import KafkaError, LinkError
from raykafka.metrics import catalogue
from raykafka.metrics.families import Families

if TYPE_CHECKING:
    from raykafka.broker.broker import Broker

ANSWER_WITHIN_S = 0.5

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


async def ask_controller(broker: Broker) -> dict[str, Any] | None:
    """The cluster_counts of this broker's controller, {} unless it is the active one; None when it gave no answer."""
    link = broker.controller_link
    if link is None or link.is_closed:
        return {}
    try:
        found: dict[str, Any] = await link.call("cluster_counts", {}, ANSWER_WITHIN_S)
    except LinkError:
        return {}
    except (KafkaError, TimeoutError):
        return None
    # one that was stopped for a while may not know yet that another has been elected
    return found if found.get("epoch", -1) >= broker.links.highest_epoch else {}


def add_cluster(families: Families, figures: Mapping[str, Any] | None) -> None:
    """Nothing where ``figures`` are not known: no sample, rather than a wrong one."""
    if figures is None:
        return
    families.add(catalogue.ACTIVE_CONTROLLER, int(bool(figures)))
    if figures:
        for key, gauge in _GAUGES.items():
            families.add(gauge, figures[key])
        for key, counter in _COUNTERS.items():
            families.add(counter, figures["changes"][key])
