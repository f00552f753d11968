"""What a broker says of itself, of its partitions and of the requests it served."""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import platform
from collections import Counter
from collections.abc import Callable, Sequence

from raykafka.cluster import health
from raykafka.metrics import catalogue
from raykafka.metrics.families import Families
from raykafka.metrics.sources import ActorSource, BrokerSource, PartitionSource
from raykafka.process.clock import boot_clock
from raykafka.telemetry.traffic import Traffic

_AT_ONCE = 100
_MIN_INSYNC = "min.insync.replicas"


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
    actors = broker.replica_actors.rows()
    for listener in broker.listeners:
        families.add(catalogue.CONNECTIONS, sum(a.connections.get(listener.name, 0) for a in actors), listener.name)
    _add_children(families, broker)
    await add_actors(families, actors)
    families.add_states(catalogue.ZOOKEEPER_SESSION, catalogue.SESSION_STATES, broker.session.state)
    families.add(catalogue.LEASE_AGE, broker.session.lease.age_s(boot_clock()))
    families.add(catalogue.LEASE_HELD, int(broker.holds_lease()))
    broker.traffic.forget_others(broker.image.topics)
    for request, phase, histogram in broker.durations.phases():
        families.observe(catalogue.REQUEST_DURATION, histogram, request, phase)
    families.add(catalogue.REPLICA_FAILURES, broker.partitions.replica_restarts)
    await add_partitions(families, list(broker.partitions), lambda topic: _min_insync(broker, topic))
    await add_traffic(families, broker.traffic)


def _add_children(families: Families, broker: BrokerSource) -> None:
    children = broker.children
    running = Counter(child.role for child in children.living())
    for role in catalogue.ROLES:
        families.add(catalogue.CHILDREN, running[role], role)
        families.add(catalogue.CHILD_RESTARTS, children.restarts[role], role)


def _min_insync(broker: BrokerSource, topic: str) -> int:
    found = broker.image.topics.get(topic)
    return int((found.config.get(_MIN_INSYNC) if found else None) or broker.configs.texts[_MIN_INSYNC])


async def add_actors(families: Families, actors: Sequence[ActorSource]) -> None:
    """What each replica actor does; some actors at a time."""
    for number, actor in enumerate(actors, 1):
        families.add(catalogue.ACTOR_REPLICAS, actor.replicas, actor.number)
        families.add(catalogue.ACTOR_LEADERS, actor.leaders, actor.number)
        families.add(catalogue.ACTOR_CONNECTIONS, sum(actor.connections.values()), actor.number)
        families.add(catalogue.ACTOR_BUSY, actor.busy, actor.number)
        families.add(catalogue.ACTOR_UP, actor.age_s, actor.number)
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)


async def add_partitions(
    families: Families, hosts: Sequence[PartitionSource], min_insync: Callable[[str], int]
) -> None:
    """What is counted over all partitions, and the followers of those that are led here; some partitions at a time.
    ``min_insync`` gives the ``min.insync.replicas`` of a topic."""
    opened = led = under_replicated = under_min_isr = at_min_isr = offline = 0
    for number, host in enumerate(hosts, 1):
        state = host.state
        opened += host.actor is not None and host.ends is not None
        offline += health.is_offline(state)
        if host.is_leader:
            least = min_insync(host.tp.topic)
            led += 1
            under_replicated += health.is_under_replicated(state)
            under_min_isr += health.is_under_min_isr(state, least)
            at_min_isr += health.is_at_min_isr(state, least)
            _add_followers(families, host)
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    families.add(catalogue.PARTITIONS, opened, catalogue.OPEN)
    families.add(catalogue.PARTITIONS, len(hosts) - opened, catalogue.WAITING)
    families.add(catalogue.LEADERS, led)
    families.add(catalogue.UNDER_REPLICATED, under_replicated)
    families.add(catalogue.UNDER_MIN_ISR, under_min_isr)
    families.add(catalogue.AT_MIN_ISR, at_min_isr)
    families.add(catalogue.OFFLINE, offline)


def _add_followers(families: Families, host: PartitionSource) -> None:
    """What the leader told of its followers, if that was in this leadership."""
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
