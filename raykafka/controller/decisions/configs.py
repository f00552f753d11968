"""Altering the dynamic configs of topics and brokers, as ``rules.configs`` allows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from raykafka.controller.decisions.elections import elect
from raykafka.controller.ledger.ledger import Ledger, Turn
from raykafka.controller.rules.configs import ResourceType, check_broker, check_topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError

APPLY_WITHIN_S = 30.0

logger = logging.getLogger(__name__)


class Resource(NamedTuple):
    """What has configs. ``kind`` is Kafka's number of a resource type, ``name`` a topic, a broker id or "" (all
    brokers)."""

    kind: int
    name: str


# (kind, current configs, texts in force without them) -> the whole new configs. Raises KafkaError.
Alteration = Callable[[ResourceType, Mapping[str, str], Mapping[str, str]], dict[str, str]]


async def alter_configs(
    ledger: Ledger, wanted: Sequence[tuple[Resource, Alteration]], *, validate_only: bool
) -> dict[Resource, KafkaError | None]:
    """Alter each resource's configs by itself; returns when every live broker goes by them, or 30 s have passed."""
    counts = Counter(resource for resource, _ in wanted)
    outcomes: dict[Resource, KafkaError | None] = {}
    sequence = -1
    async with ledger.turn() as turn:
        for resource, alteration in wanted:
            try:
                if counts[resource] > 1:
                    raise KafkaError(ErrorCode.INVALID_REQUEST, "Each resource must appear at most once.")
                made = await _alter(turn, resource, alteration, validate_only)
                sequence = max(sequence, made)
                outcomes[resource] = None
            except KafkaError as error:
                outcomes[resource] = error
    if sequence >= 0:
        await ledger.acknowledged(sequence, APPLY_WITHIN_S)
    return outcomes


async def _alter(turn: Turn, resource: Resource, alteration: Alteration, validate_only: bool) -> int:
    """The number of the image with the new configs, -1 where nothing was to be written."""
    if resource.kind == ResourceType.TOPIC:
        return await _alter_topic(turn, resource.name, alteration, validate_only)
    if resource.kind == ResourceType.BROKER:
        return await _alter_broker(turn, resource.name, alteration, validate_only)
    raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown resource type {resource.kind}")


async def _alter_topic(turn: Turn, name: str, alteration: Alteration, validate_only: bool) -> int:
    if not name:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed.")
    record = turn.state.records.get(name)
    if record is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
    config = alteration(ResourceType.TOPIC, record.config, turn.state.topic_config({}))
    check_topic(name, config)
    if validate_only:
        return -1
    await turn.write_topic_config(name, config)
    logger.info("configs of topic %s: %s", name, config)
    sequence = turn.state.sequence
    await elect(turn, turn.state.partitions_of([name]))
    return sequence


async def _alter_broker(turn: Turn, name: str, alteration: Alteration, validate_only: bool) -> int:
    current = turn.state.image.broker_configs.get(name, {})
    config = alteration(ResourceType.BROKER, current, turn.state.broker_config())
    check_broker(name, config, turn.state.racks())
    if validate_only:
        return -1
    await turn.write_broker_config(name, config)
    logger.info("dynamic configs of %s: %s", f"broker {name}" if name else "all brokers", config)
    sequence = turn.state.sequence
    await elect(turn, turn.state.all_partitions())
    return sequence
