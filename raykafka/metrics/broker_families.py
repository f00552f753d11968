"""What a broker says of itself, of its partitions and of the requests it served."""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import platform
from collections import Counter
from collections.abc import Sequence

from raykafka.cluster import health
from raykafka.metrics import catalogue
from raykafka.metrics.families import Families
from raykafka.metrics.sources import BrokerSource, PartitionSource
from raykafka.process.clock import boot_clock
from raykafka.telemetry.traffic import Traffic

_AT_ONCE = 100


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version("raykafka")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


async def add_broker(families: Families, broker: BrokerSource) -> None:
    """Everything that needs nobody else to answer. Partitions and topics are gathered some at a time, so that no other
    work of the loop waits for all of them."""
    families.add(catalogue.BUILD, 1, _version(), platform.python_version())
    families.add_states(catalogue.BROKER_STATE, catalogue.BROKER_STATES, str(broker.state))
    families.add(catalogue.BROKER_EPOCH, broker.registration.epoch)
    for listener in broker.listeners:
        families.add(catalogue.CONNECTIONS, listener.connections, listener.name)
    _add_children(families, broker)
    families.add_states(catalogue.ZOOKEEPER_SESSION, catalogue.SESSION_STATES, broker.session.state)
    families.add(catalogue.LEASE_AGE, broker.session.lease.age_s(boot_clock()))
    families.add(catalogue.LEASE_HELD, int(broker.holds_lease()))
    broker.partitions.traffic.forget_others(broker.image.topics)
    for request, phase, histogram in broker.durations.phases():
        families.observe(catalogue.REQUEST_DURATION, histogram, request, phase)
    await add_partitions(families, list(broker.partitions))
    await add_traffic(families, broker.partitions.traffic)


def _add_children(families: Families, broker: BrokerSource) -> None:
    children = broker.children
    running = Counter(child.role for child in children.living())
    restarts = {**children.restarts, catalogue.REPLICA: broker.partitions.replica_restarts}
    for role in catalogue.ROLES:
        families.add(catalogue.CHILDREN, running[role], role)
        families.add(catalogue.CHILD_RESTARTS, restarts[role], role)
    families.add(catalogue.SPARE_REPLICAS, children.spares)


async def add_partitions(families: Families, hosts: Sequence[PartitionSource]) -> None:
    """What is counted over all partitions, and the followers of those that are led here; some partitions at a time."""
    lives = dict.fromkeys(catalogue.LIVES, 0)
    led = under_replicated = under_min_isr = at_min_isr = offline = 0
    for number, host in enumerate(hosts, 1):
        state = host.state
        if host.life in lives:
            lives[host.life] += 1
        offline += health.is_offline(state)
        if host.is_leader:
            least = int(host.config["min.insync.replicas"])
            led += 1
            under_replicated += health.is_under_replicated(state)
            under_min_isr += health.is_under_min_isr(state, least)
            at_min_isr += health.is_at_min_isr(state, least)
            _add_followers(families, host)
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    for life, count in lives.items():
        families.add(catalogue.PARTITIONS, count, life)
    families.add(catalogue.LEADERS, led)
    families.add(catalogue.UNDER_REPLICATED, under_replicated)
    families.add(catalogue.UNDER_MIN_ISR, under_min_isr)
    families.add(catalogue.AT_MIN_ISR, at_min_isr)
    families.add(catalogue.OFFLINE, offline)


def _add_followers(families: Families, host: PartitionSource) -> None:
    """What the leader's replica process told of its followers, if that was in this leadership."""
    told = host.follower_progress
    if told.get("leader_epoch") != host.state.leader_epoch:
        return
    for follower, known in told["followers"].items():
        names = (host.tp.topic, host.tp.partition, follower)
        if known["lag_records"] is not None:
            families.add(catalogue.FOLLOWER_LAG_RECORDS, known["lag_records"], *names)
        if known["lag_ms"] >= 0:
            families.add(catalogue.FOLLOWER_LAG_SECONDS, known["lag_ms"] / 1000, *names)


async def add_traffic(families: Families, traffic: Traffic) -> None:
    """What was appended and fetched, by topic; some topics at a time."""
    for number, (topic, counted) in enumerate(list(traffic.items()), 1):
        families.add(catalogue.BYTES_IN, counted.bytes_in, topic)
        families.add(catalogue.RECORDS_IN, counted.records_in, topic)
        families.add(catalogue.BYTES_OUT, counted.bytes_out, topic)
        families.add(catalogue.RECORDS_OUT, counted.records_out, topic)
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
