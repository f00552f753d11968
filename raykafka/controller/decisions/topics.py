"""Creating, growing and deleting topics: the plans of ``rules.topics``, written."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from raykafka.controller.ledger.ledger import Ledger, Turn
from raykafka.controller.ledger.state import State
from raykafka.controller.rules.topics import TopicPlan, TopicRequest, internal_topic, plan_partitions, plan_topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.zookeeper.znodes import TopicNode, new_kafka_uuid

AUTO_CREATE_WITHIN_S = 5.0

logger = logging.getLogger(__name__)

# on which broker the first partition of a topic begins
_placement = random.Random()

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
    ledger: Ledger, requests: Sequence[TopicRequest], *, timeout_s: float, validate_only: bool = False
) -> list[Created]:
    """Create what can be created, each topic by itself; returns when every live broker goes by it or time is up."""
    results: list[Created] = []
    sequence = -1
    async with ledger.turn() as turn:
        for request in requests:
            try:
                plan = _plan(turn.state, request)
                if not validate_only:
                    node = TopicNode(plan.id, plan.replicas, {}, {})
                    await turn.create_topic(plan.name, node, plan.config, turn.state.first_states(plan.replicas))
                    sequence = turn.state.sequence
                    logger.info("created topic %s with %d partitions", plan.name, len(plan.replicas))
                results.append(Created(request, plan, None))
            except KafkaError as error:
                results.append(Created(request, None, error))
    if sequence >= 0 and not await ledger.acknowledged(sequence, timeout_s):
        return [Created(r.request, r.plan, r.error, timed_out=r.error is None) for r in results]
    return results


def _plan(state: State, request: TopicRequest) -> TopicPlan:
    existing = state.records.keys() | state.deleting.keys()
    return plan_topic(request, existing, state.racks(), state.topic_defaults(), new_kafka_uuid(), _placement)


async def create_automatically(ledger: Ledger, names: Iterable[str]) -> dict[str, int]:
    """Create topics because a client asked for them. Returns error codes by name, NONE also where a topic is there."""
    codes: dict[str, int] = {}
    requests: list[TopicRequest] = []
    state = ledger.state
    config = state.broker_config()
    partitions = sum(len(record.states) for record in state.records.values())
    most = int(config["auto.create.max.partitions.per.broker"]) * len(state.racks())
    for name in dict.fromkeys(names):
        internal = internal_topic(name, config)
        request = internal or TopicRequest(name, state.topic_defaults().partitions)
        if name in state.records:
            codes[name] = ErrorCode.NONE
        elif internal is None and partitions + request.partitions > most:
            codes[name] = ErrorCode.POLICY_VIOLATION
        else:
            requests.append(request)
            partitions += request.partitions
    for created in await create_topics(ledger, requests, timeout_s=AUTO_CREATE_WITHIN_S):
        code = created.error.code if created.error else ErrorCode.NONE
        codes[created.request.name] = ErrorCode.NONE if code is ErrorCode.TOPIC_ALREADY_EXISTS else code
    return {name: int(code) for name, code in codes.items()}


@dataclass(frozen=True, slots=True)
class Growth:
    """A topic that is to have ``count`` partitions. ``assignments`` are the replicas of the new ones, None for
    placement by the controller."""

    name: str
    count: int
    assignments: Sequence[tuple[int, ...]] | None = None


async def create_partitions(
    ledger: Ledger, requests: Sequence[Growth], *, timeout_s: float, validate_only: bool
) -> dict[str, Outcome]:
    """Grow topics, each by itself; an outcome for each of them. Returns when every live broker goes by it or time is
    up."""
    outcomes: dict[str, Outcome] = {}
    sequence = -1
    async with ledger.turn() as turn:
        for request in requests:
            name, count = request.name, request.count
            try:
                record = turn.state.records.get(name)
                if record is None:
                    raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
                if record.node.adding or record.node.removing:
                    raise KafkaError(
                        ErrorCode.REASSIGNMENT_IN_PROGRESS,
                        f"A partition reassignment is in progress for the topic '{name}'.",
                    )
                racks = turn.state.racks()
                planned = plan_partitions(record.node.replicas, count, request.assignments, racks)
                if not validate_only:
                    node = replace(record.node, replicas={**record.node.replicas, **planned})
                    await turn.grow_topic(name, node, turn.state.first_states(planned))
                    sequence = turn.state.sequence
                    logger.info("topic %s has %d partitions now", name, count)
                outcomes[name] = None
            except KafkaError as error:
                outcomes[name] = error
    if sequence >= 0 and not await ledger.acknowledged(sequence, timeout_s):
        late = KafkaError(ErrorCode.REQUEST_TIMED_OUT)
        return {name: outcome or late for name, outcome in outcomes.items()}
    return outcomes


async def delete_topics(ledger: Ledger, names: Sequence[str], *, timeout_s: float) -> dict[str, Outcome]:
    """Delete topics; returns when every live broker has let go of them or time is up."""
    outcomes: dict[str, Outcome] = {}
    async with ledger.turn() as turn:
        if turn.state.broker_config()["delete.topic.enable"] != "true":
            refused = KafkaError(ErrorCode.TOPIC_DELETION_DISABLED, "Topic deletion is disabled.")
            return dict.fromkeys(names, refused)
        there = [name for name in dict.fromkeys(names) if name in turn.state.records]
        for name in names:
            missing = KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            outcomes[name] = None if name in there else missing
        if there:
            await turn.delete_topics(there)
            logger.info("deleted topics %s", there)
        sequence = turn.state.sequence
    if there and not await ledger.acknowledged(sequence, timeout_s):
        late = KafkaError(ErrorCode.REQUEST_TIMED_OUT)
        return {name: outcome or late for name, outcome in outcomes.items()}
    return outcomes


async def begin_partitions(turn: Turn) -> None:
    """Give their first states to partitions that were created but not yet begun when a controller died."""
    for name, record in turn.state.records.items():
        missing = {p: replicas for p, replicas in record.node.replicas.items() if p not in record.states}
        if missing:
            await turn.add_first_states(name, turn.state.first_states(missing))


async def finish_deletion(ledger: Ledger, name: str) -> None:
    """End a deletion that a controller before this one has begun."""
    async with ledger.turn() as turn:
        await turn.finish_deleting(name)
