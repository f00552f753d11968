"""What CreateTopics and CreatePartitions ask for, checked and turned into an assignment. Pure.

Refusals are KafkaErrors with the codes and words of Kafka 3.9 in ZooKeeper mode. Two are stricter, as Kafka's KRaft
mode is: a manual assignment may name registered brokers only, and no empty list.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from raykafka.cluster.topic_names import check_name
from raykafka.config.definitions import check_topic_config
from raykafka.controller.rules.assignment import assign_replicas, round_of
from raykafka.error_code import ErrorCode
from raykafka.errors import ConfigError, KafkaError
from raykafka.types import OFFSETS_TOPIC, TRANSACTIONS_TOPIC

_MAX_PARTITIONS = 10_000
_PROHIBITED = "__cluster_metadata"
DEFAULT = -1

Assignments = Sequence[tuple[int, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class TopicRequest:
    """A topic that somebody asks for. ``partitions`` and ``replication_factor`` are -1 for the default;
    ``assignments`` are (partition, brokers) pairs, empty for placement by the controller."""

    name: str
    partitions: int = DEFAULT
    replication_factor: int = DEFAULT
    assignments: Assignments = ()
    config: Sequence[tuple[str, str | None]] = ()


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic that can be created as it stands here."""

    name: str
    id: uuid.UUID
    replicas: Mapping[int, tuple[int, ...]]
    config: Mapping[str, str]

    @property
    def replication_factor(self) -> int:
        return len(self.replicas[0])


@dataclass(frozen=True, slots=True)
class Defaults:
    """num.partitions and default.replication.factor."""

    partitions: int
    replication_factor: int


def plan_topic(
    request: TopicRequest,
    existing: Collection[str],
    brokers: Mapping[int, str | None],
    defaults: Defaults,
    topic_id: uuid.UUID,
    rng: random.Random,
) -> TopicPlan:
    """Check ``request`` against the ``existing`` topics and the registered ``brokers`` (id to rack). Raises
    KafkaError."""
    name = request.name
    if name in existing:
        raise KafkaError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
    if name == _PROHIBITED:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Creation of internal topic {name} is prohibited.")
    nulls = [key for key, value in request.config if value is None]
    if nulls:
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"Null value not supported for topic configs: {','.join(nulls)}")
    if request.assignments and (request.partitions != DEFAULT or request.replication_factor != DEFAULT):
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            "Both numPartitions or replicationFactor and replicasAssignments were set. "
            "Both cannot be used at the same time.",
        )
    if request.assignments:
        replicas = _check_assignments(request.assignments, brokers)
    else:
        replicas = _place(request, brokers, defaults, rng)
    check_name(name, existing)
    config = {key: value for key, value in request.config if value is not None}
    try:
        check_topic_config(config)
    except ConfigError as error:
        raise KafkaError(ErrorCode.INVALID_CONFIG, str(error)) from None
    return TopicPlan(name, topic_id, replicas, config)


def _place(
    request: TopicRequest, brokers: Mapping[int, str | None], defaults: Defaults, rng: random.Random
) -> dict[int, tuple[int, ...]]:
    partitions = defaults.partitions if request.partitions == DEFAULT else request.partitions
    factor = defaults.replication_factor if request.replication_factor == DEFAULT else request.replication_factor
    if partitions <= 0:
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, "Number of partitions must be larger than 0.")
    check_count(partitions)
    check_replication_factor(factor, len(brokers))
    start, shift = rng.randrange(len(brokers)), rng.randrange(len(brokers))
    return assign_replicas(brokers, partitions, factor, start=start, shift=shift)


def check_count(partitions: int) -> None:
    """Raise KafkaError(POLICY_VIOLATION) for more partitions than one topic's nodes hold, as Kafka's KRaft mode
    does."""
    if partitions > _MAX_PARTITIONS:
        raise KafkaError(ErrorCode.POLICY_VIOLATION, "Excessively large number of partitions per request.")


def check_replication_factor(factor: int, brokers: int) -> None:
    """Raise KafkaError(INVALID_REPLICATION_FACTOR) for one that can't be had."""
    if factor <= 0:
        raise KafkaError(ErrorCode.INVALID_REPLICATION_FACTOR, "Replication factor must be larger than 0.")
    if factor > brokers:
        raise KafkaError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"Replication factor: {factor} larger than available brokers: {brokers}.",
        )


def _refuse(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)


def _check_assignments(assignments: Assignments, brokers: Mapping[int, str | None]) -> dict[int, tuple[int, ...]]:
    replicas = dict(assignments)
    check_count(len(replicas))
    if len({len(ids) for ids in replicas.values()}) > 1:
        raise _refuse("All partitions should have the same number of replicas")
    for partition, ids in sorted(replicas.items()):
        _check_replicas(partition, ids, brokers)
    if sorted(replicas) != list(range(len(replicas))):
        raise _refuse("partitions should be a consecutive 0-based integer sequence")
    check_replication_factor(len(replicas[0]), len(brokers))
    return {p: replicas[p] for p in sorted(replicas)}


def _check_replicas(partition: int, ids: tuple[int, ...], brokers: Mapping[int, str | None]) -> None:
    if not ids:
        raise _refuse(f"Cannot have replication factor of 0 for partition id {partition}.")
    if len(set(ids)) != len(ids):
        listed = ", ".join(map(str, ids))
        raise _refuse(f"Duplicate brokers not allowed in replica assignment: {listed} for partition id {partition}.")
    unknown = sorted(set(ids) - brokers.keys())
    if unknown:
        raise _refuse(f"Unknown broker(s) in replica assignment: {', '.join(map(str, unknown))}.")


def plan_partitions(
    current: Mapping[int, tuple[int, ...]],
    count: int,
    assignments: Sequence[tuple[int, ...]] | None,
    brokers: Mapping[int, str | None],
) -> dict[int, tuple[int, ...]]:
    """The replicas of the partitions that take a topic from its ``current`` assignment to ``count`` partitions; with
    ``assignments``, those of the new ones in order. Raises KafkaError."""
    have = len(current)
    if count < have:
        raise KafkaError(
            ErrorCode.INVALID_PARTITIONS,
            f"Topic currently has {have} partitions, which is higher than the requested {count}.",
        )
    if count == have:
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, f"Topic already has {have} partitions.")
    check_count(count)
    first = current[0]
    if assignments is not None:
        if len(assignments) != count - have:
            raise _refuse(
                f"Increasing the number of partitions by {count - have} but {len(assignments)} assignments provided."
            )
        placed = {have + i: tuple(ids) for i, ids in enumerate(assignments)}
        for partition, ids in placed.items():
            _check_replicas(partition, ids, brokers)
            if len(ids) != len(first):
                raise _refuse(
                    f"Inconsistent replication factor between partitions, partition 0 has {len(first)} "
                    f"while partitions [{partition}] have replication factors [{len(ids)}], respectively."
                )
        return placed
    check_replication_factor(len(first), len(brokers))
    start = next((i for i, broker in enumerate(round_of(brokers)) if broker >= first[0]), 0)
    return assign_replicas(brokers, count - have, len(first), start=start, shift=start, first_partition=have)


def internal_topic(name: str, broker_config: Mapping[str, str]) -> TopicRequest | None:
    """How one of Kafka's internal topics is created; None for any other name. ``broker_config`` holds texts in
    force."""
    if name == OFFSETS_TOPIC:
        keys, cleanup = "offsets.topic", {}
    elif name == TRANSACTIONS_TOPIC:
        keys = "transaction.state.log"
        cleanup = {
            "min.insync.replicas": broker_config["transaction.state.log.min.isr"],
            "unclean.leader.election.enable": "false",
        }
    else:
        return None
    config = {
        "cleanup.policy": "compact",
        "compression.type": "producer" if name == OFFSETS_TOPIC else "uncompressed",
        "segment.bytes": broker_config[f"{keys}.segment.bytes"],
        **cleanup,
    }
    factor = int(broker_config[f"{keys}.replication.factor"])
    return TopicRequest(name, int(broker_config[f"{keys}.num.partitions"]), factor, (), tuple(config.items()))
