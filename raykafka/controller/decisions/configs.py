"""Altering the dynamic configs of topics and brokers: plans (``configs``) carried out by the active controller."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from raykafka.cluster.image import ImageDelta
from raykafka.controller.rules.configs import ResourceType, check_broker, check_topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError

if TYPE_CHECKING:
    from raykafka.controller.controller import Controller

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
    controller: Controller, wanted: Sequence[tuple[Resource, Alteration]], *, validate_only: bool
) -> dict[Resource, KafkaError | None]:
    """Alter each resource's configs by itself; returns when every live broker goes by them, or 30 s have passed."""
    counts = Counter(resource for resource, _ in wanted)
    outcomes: dict[Resource, KafkaError | None] = {}
    sequence = -1
    async with controller.turn:
        for resource, alteration in wanted:
            try:
                if counts[resource] > 1:
                    raise KafkaError(ErrorCode.INVALID_REQUEST, "Each resource must appear at most once.")
                made = await _alter(controller, resource, alteration, validate_only)
                sequence = max(sequence, made)
                outcomes[resource] = None
            except KafkaError as error:
                outcomes[resource] = error
    if sequence >= 0:
        await controller.acknowledged(sequence, APPLY_WITHIN_S)
    return outcomes


async def _alter(controller: Controller, resource: Resource, alteration: Alteration, validate_only: bool) -> int:
    if resource.kind == ResourceType.TOPIC:
        return await _alter_topic(controller, resource.name, alteration, validate_only)
    if resource.kind == ResourceType.BROKER:
        return await _alter_broker(controller, resource.name, alteration, validate_only)
    raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown resource type {resource.kind}")


async def _alter_topic(controller: Controller, name: str, alteration: Alteration, validate_only: bool) -> int:
    if not name:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed.")
    record = controller.records.get(name)
    if record is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
    config = alteration(ResourceType.TOPIC, record.config, controller.topic_config({}))
    check_topic(name, config)
    if validate_only:
        return -1
    await controller.in_store(controller.store.write_topic_config, name, config)
    record.config = config
    logger.info("configs of topic %s: %s", name, config)
    sequence = controller.publish_topics([name])
    await controller.elect_again([name])
    return sequence


async def _alter_broker(controller: Controller, name: str, alteration: Alteration, validate_only: bool) -> int:
    current = controller.image.broker_configs.get(name, {})
    config = alteration(ResourceType.BROKER, current, controller.broker_config())
    check_broker(name, config, controller.racks())
    if validate_only:
        return -1
    await controller.in_store(controller.store.write_broker_config, name, config)
    logger.info("dynamic configs of %s: %s", f"broker {name}" if name else "all brokers", config)
    sequence = controller.publish(ImageDelta(broker_configs={name: config}))
    await controller.elect_again(list(controller.records))
    return sequence
