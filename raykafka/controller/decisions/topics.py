"""Creating, growing and deleting topics: plans (``topics``) carried out by the active controller."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raykafka.controller.rules.topics import TopicPlan, TopicRequest, internal_topic, plan_partitions, plan_topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.zookeeper import znodes
from raykafka.zookeeper.znodes import TopicNode

if TYPE_CHECKING:
    from raykafka.controller.controller import Controller

AUTO_CREATE_WITHIN_S = 5.0

logger = logging.getLogger(__name__)

Outcome = KafkaError | None


@dataclass(frozen=True, slots=True)
class Created:
    """What became of one request: a plan that was carried out (or, when only validating, could be), or an error. With
    ``timed_out`` the topic exists but not every broker has said so in time."""

    request: TopicRequest
    plan: TopicPlan | None
    error: KafkaError | None
    timed_out: bool = False


async def create_topics(
    controller: Controller, requests: Sequence[TopicRequest], *, timeout_s: float, validate_only: bool = False
) -> list[Created]:
    """Create what can be created, each topic by itself; returns when every live broker goes by it or time is up."""
    results: list[Created] = []
    sequence = -1
    async with controller.turn:
        for request in requests:
            try:
                plan = _plan(controller, request)
                if not validate_only:
                    node = TopicNode(plan.id, plan.replicas, {}, {})
                    sequence = await controller.create_topic(plan.name, node, plan.config)
                    logger.info("created topic %s with %d partitions", plan.name, len(plan.replicas))
                results.append(Created(request, plan, None))
            except KafkaError as error:
                results.append(Created(request, None, error))
    if sequence >= 0 and not await controller.acknowledged(sequence, timeout_s):
        return [Created(r.request, r.plan, r.error, timed_out=r.error is None) for r in results]
    return results


def _plan(controller: Controller, request: TopicRequest) -> TopicPlan:
    existing = controller.records.keys() | controller.deleting.keys()
    defaults = controller.topic_defaults()
    return plan_topic(request, existing, controller.racks(), defaults, znodes.new_kafka_uuid(), controller.rng)


async def create_automatically(controller: Controller, names: Iterable[str]) -> dict[str, int]:
    """Create topics because a client asked for them. Returns error codes by name, NONE also where a topic is there."""
    codes: dict[str, int] = {}
    requests: list[TopicRequest] = []
    config = controller.broker_config()
    partitions = sum(len(record.states) for record in controller.records.values())
    most = int(config["auto.create.max.partitions.per.broker"]) * len(controller.racks())
    for name in dict.fromkeys(names):
        internal = internal_topic(name, config)
        request = internal or TopicRequest(name, controller.topic_defaults().partitions)
        if name in controller.records:
            codes[name] = ErrorCode.NONE
        elif internal is None and partitions + request.partitions > most:
            codes[name] = ErrorCode.POLICY_VIOLATION
        else:
            requests.append(request)
            partitions += request.partitions
    for created in await create_topics(controller, requests, timeout_s=AUTO_CREATE_WITHIN_S):
        code = created.error.code if created.error else ErrorCode.NONE
        codes[created.request.name] = ErrorCode.NONE if code is ErrorCode.TOPIC_ALREADY_EXISTS else code
    return {name: int(code) for name, code in codes.items()}


async def create_partitions(
    controller: Controller,
    requests: Sequence[tuple[str, int, Sequence[tuple[int, ...]] | None]],
    *,
    timeout_s: float,
    validate_only: bool,
) -> dict[str, Outcome]:
    """Grow topics to (name, count, assignments of the new partitions or None); an outcome for each of them."""
    outcomes: dict[str, Outcome] = {}
    sequence = -1
    async with controller.turn:
        for name, count, assignments in requests:
            try:
                record = controller.records.get(name)
                if record is None:
                    raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
                if record.node.adding or record.node.removing:
                    raise KafkaError(
                        ErrorCode.REASSIGNMENT_IN_PROGRESS,
                        f"A partition reassignment is in progress for the topic '{name}'.",
                    )
                planned = plan_partitions(record.node.replicas, count, assignments, controller.racks())
                if not validate_only:
                    sequence = await controller.grow_topic(name, planned)
                    logger.info("topic %s has %d partitions now", name, count)
                outcomes[name] = None
            except KafkaError as error:
                outcomes[name] = error
    if sequence >= 0 and not await controller.acknowledged(sequence, timeout_s):
        late = KafkaError(ErrorCode.REQUEST_TIMED_OUT)
        return {name: outcome or late for name, outcome in outcomes.items()}
    return outcomes


async def delete_topics(controller: Controller, names: Sequence[str], *, timeout_s: float) -> dict[str, Outcome]:
    """Delete topics; returns when every live broker has let go of them or time is up."""
    outcomes: dict[str, Outcome] = {}
    async with controller.turn:
        if controller.broker_config()["delete.topic.enable"] != "true":
            refused = KafkaError(ErrorCode.TOPIC_DELETION_DISABLED, "Topic deletion is disabled.")
            return dict.fromkeys(names, refused)
        there = [name for name in dict.fromkeys(names) if name in controller.records]
        for name in names:
            missing = KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            outcomes[name] = None if name in there else missing
        sequence = await controller.delete_topics(there) if there else -1
        if there:
            logger.info("deleted topics %s", there)
    if there and not await controller.acknowledged(sequence, timeout_s):
        late = KafkaError(ErrorCode.REQUEST_TIMED_OUT)
        return {name: outcome or late for name, outcome in outcomes.items()}
    return outcomes
