"""Where partitions that exist should move: other brokers, more or fewer replicas, away from a broker. Pure.

As little moves as can be: a replica that may stay where it is stays. A new one goes to the broker that holds the fewest
replicas, on a rack that holds none of the partition where there is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from raykafka.controller.rules.assignment import assign_replicas
from raykafka.errors import ConfigError
from raykafka.types import TopicPartition

Replicas = dict[TopicPartition, tuple[int, ...]]
Racks = Mapping[int, str | None]


def spread(topics: Mapping[str, tuple[int, int]], brokers: Racks, start: int = 0) -> Replicas:
    """All partitions of ``topics`` (name to number of partitions and replication factor) laid out anew over
    ``brokers``, as those of new topics are. Raises ConfigError."""
    placed: Replicas = {}
    for index, (name, (partitions, factor)) in enumerate(sorted(topics.items())):
        if factor > len(brokers):
            raise ConfigError(
                f"Topic {name} has {factor} replicas of each partition, and {_count(brokers)} to hold them."
            )
        first = (start + index) % len(brokers)
        laid_out = assign_replicas(brokers, partitions, factor, start=first, shift=first)
        placed |= {TopicPartition(name, p): replicas for p, replicas in laid_out.items()}
    return placed


def with_factor(current: Replicas, partitions: Iterable[TopicPartition], factor: int, brokers: Racks) -> Replicas:
    """The new replicas of those of ``partitions`` that don't have ``factor`` yet. ``current`` are all of the cluster's
    partitions: the load to even out. The last replicas in order of preference go first. Raises ConfigError."""
    load = _load(current, brokers)
    changed: Replicas = {}
    for tp in partitions:
        before = current[tp]
        if factor > len(brokers) and factor > len(before):
            raise ConfigError(
                f"{factor} replicas of each partition need {factor} brokers, and there are {len(brokers)}."
            )
        replicas = list(before[:factor])
        load.subtract(b for b in before[factor:] if b in load)
        while len(replicas) < factor:
            replicas.append(_best(replicas, brokers, load))
            load[replicas[-1]] += 1
        if tuple(replicas) != before:
            changed[tp] = tuple(replicas)
    return changed


def away_from(current: Replicas, leaving: int, brokers: Racks) -> Replicas:
    """The new replicas of every partition that broker ``leaving`` holds: another of ``brokers`` takes its place, in the
    same order of preference. Raises ConfigError where there is none."""
    others = {b: rack for b, rack in brokers.items() if b != leaving}
    load = _load(current, others)
    changed: Replicas = {}
    for tp, replicas in sorted(current.items()):
        if leaving not in replicas:
            continue
        kept = [b for b in replicas if b != leaving]
        if not others.keys() - kept:
            raise ConfigError(
                f"{tp} has {len(replicas)} replicas and no other broker is left to take the one on broker {leaving}: "
                "add a broker, or lower the topic's replication factor."
            )
        instead = _best(kept, others, load)
        load[instead] += 1
        changed[tp] = tuple(instead if b == leaving else b for b in replicas)
    return changed


def _load(current: Replicas, brokers: Racks) -> Counter[int]:
    load = Counter(dict.fromkeys(brokers, 0))
    load.update(b for replicas in current.values() for b in replicas if b in brokers)
    return load


def _best(beside: list[int], brokers: Racks, load: Counter[int]) -> int:
    """The broker for one more replica ``beside`` those that there are."""
    racks = {brokers.get(b) for b in beside} - {None}
    return min((b for b in brokers if b not in beside), key=lambda b: (brokers[b] in racks, load[b], b))


def _count(brokers: Racks) -> str:
    return "there is 1 broker" if len(brokers) == 1 else f"there are {len(brokers)} brokers"
