"""What Prometheus scraped in a run, held against ZooKeeper's own history: counters exactly, gauges at every scrape."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tests.lab.prometheus import SCRAPE_INTERVAL_MS, Prometheus
from tests.lab.zookeeper_history import Change, Counts

COUNTERS = {
    "elections": "max(raykafka_leader_elections_total)",
    "unclean_elections": "max(raykafka_unclean_leader_elections_total)",
    "isr_shrinks": "max(raykafka_isr_shrinks_total)",
    "isr_expands": "max(raykafka_isr_expands_total)",
}
UNDER_REPLICATED = "raykafka_cluster_under_replicated_partitions"
OFFLINE = "raykafka_cluster_offline_partitions"
SCRAPE_S = SCRAPE_INTERVAL_MS / 1000
SLACK_S = 0.5  # a scrape is stamped when it begins


class Moment(NamedTuple):
    """From ``at`` on, this many partitions were so."""

    at: float
    values: Mapping[str, int]


def counters(prometheus: Prometheus, truth: Counts) -> list[str]:
    """The counters that are not as ZooKeeper counted, once nothing changes any more."""
    found = {name: prometheus.value(expression) for name, expression in COUNTERS.items()}
    return [
        f"{name}: Prometheus has {value}, ZooKeeper's history {getattr(truth, name)}"
        for name, value in found.items()
        if value != getattr(truth, name)
    ]


def timeline(changes: Iterable[Change], chroot: str) -> list[Moment]:
    """How many partitions were under-replicated and offline, from each of ZooKeeper's transactions on."""
    prefix = f"{chroot}/brokers/topics/"
    replicas: dict[str, dict[str, int]] = {}
    states: dict[tuple[str, str], tuple[int, int]] = {}  # leader, size of the ISR
    found: list[Moment] = []
    zxid = -1
    for change in changes:
        if not change.path.startswith(prefix):
            continue
        topic, _, rest = change.path.removeprefix(prefix).partition("/")
        if not rest and change.data is not None:
            node = json.loads(change.data)
            adding = node["adding_replicas"]
            replicas[topic] = {p: len(set(r) - set(adding.get(p, ()))) for p, r in node["partitions"].items()}
        elif rest.endswith("/state"):
            partition = rest.split("/")[1]
            if change.data is None:
                states.pop((topic, partition), None)
            else:
                state = json.loads(change.data)
                states[topic, partition] = (state["leader"], len(state["isr"]))
        else:
            continue
        if change.zxid == zxid:
            found.pop()
        zxid = change.zxid
        short = sum(size < replicas[t][p] or leader == -1 for (t, p), (leader, size) in states.items())
        offline = sum(leader == -1 for leader, _ in states.values())
        found.append(Moment(change.at, {UNDER_REPLICATED: short, OFFLINE: offline}))
    return found


def gauges(
    prometheus: Prometheus, truth: Sequence[Moment], since: float, away: Sequence[tuple[float, float]]
) -> tuple[int, list[str]]:
    """How many samples of the gauges there are, and those that were not true within two scrapes. While ZooKeeper is
    ``away`` nobody hears that it has taken a change: what was true before counts as well."""
    count, wrong = 0, []
    starts = [moment.at for moment in truth]
    for name in (UNDER_REPLICATED, OFFLINE):
        for at, value in prometheus.samples(name, since):
            count += 1
            earliest = min([at, *(began for began, ended in away if began <= at <= ended)]) - 2 * SCRAPE_S - SLACK_S
            first = bisect_right(starts, earliest) - 1
            last = bisect_right(starts, at + SCRAPE_S + SLACK_S)
            allowed = {moment.values[name] for moment in truth[max(first, 0) : last]}
            if value not in allowed:
                wrong.append(f"{name} was {value:g} at {at:.3f}, ZooKeeper had {sorted(allowed)}")
    return count, wrong
