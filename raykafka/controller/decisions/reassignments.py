"""Moving partitions between brokers: steps (``reassignment``) carried out by the active controller."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from raykafka.controller.rules.reassignment import Assignment, Step, asked, next_step, with_assignments
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.types import TopicPartition

if TYPE_CHECKING:
    from raykafka.controller.controller import Controller

APPLY_WITHIN_S = 5.0
# steps that are written in one transaction
_STEPS_AT_ONCE = 400

logger = logging.getLogger(__name__)


async def alter_reassignments(
    controller: Controller, wanted: Mapping[TopicPartition, Sequence[int] | None]
) -> dict[TopicPartition, KafkaError | None]:
    """Begin to move each partition to the replicas wanted for it, or with None cancel its move. Returns once the moves
    stand in ZooKeeper and the live brokers go by them (or 5 s have passed: they will)."""
    outcomes: dict[TopicPartition, KafkaError | None] = {}
    steps: dict[TopicPartition, Step] = {}
    async with controller.turn:
        for tp, brokers in wanted.items():
            try:
                steps[tp] = _asked(controller, tp, brokers)
                outcomes[tp] = None
            except KafkaError as error:
                outcomes[tp] = error
        await _take(controller, steps)
        sequence = controller.sequence
    if steps:
        await controller.acknowledged(sequence, APPLY_WITHIN_S)
    return outcomes


def _asked(controller: Controller, tp: TopicPartition, brokers: Sequence[int] | None) -> Step:
    record = controller.records.get(tp.topic)
    if record is None or tp.partition not in record.states:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The partition does not exist.")
    current, state = Assignment.of(record.node, tp.partition), record.states[tp.partition]
    return asked(current, state, brokers, controller.lives(), controller.leaving, controller.epoch)


def reassignments(controller: Controller, wanted: Iterable[TopicPartition] | None) -> dict[TopicPartition, Assignment]:
    """The moves under way, of ``wanted`` partitions (None: of all)."""
    found = {}
    for tp in _all_moving(controller) if wanted is None else wanted:
        record = controller.records.get(tp.topic)
        if record is not None and (tp.partition in record.node.adding or tp.partition in record.node.removing):
            found[tp] = Assignment.of(record.node, tp.partition)
    return found


def _all_moving(controller: Controller) -> list[TopicPartition]:
    return [
        TopicPartition(name, partition)
        for name, record in sorted(controller.records.items())
        for partition in sorted(record.node.adding.keys() | record.node.removing.keys())
    ]


async def go_on(controller: Controller, partitions: Iterable[TopicPartition] | None = None) -> None:
    """End the moves that can be ended now. Call it within ``turn``."""
    steps: dict[TopicPartition, Step] = {}
    lives, leaving = controller.lives(), controller.leaving
    for tp, current in reassignments(controller, partitions).items():
        state = controller.records[tp.topic].states[tp.partition]
        step = next_step(current, state, lives, leaving, controller.epoch)
        if step is not None:
            steps[tp] = step
    await _take(controller, steps)


async def _take(controller: Controller, steps: Mapping[TopicPartition, Step]) -> None:
    """Write steps, the assignment and the states of some partitions of one topic at a time, and make them known."""
    by_topic: dict[str, list[TopicPartition]] = {}
    for tp in steps:
        by_topic.setdefault(tp.topic, []).append(tp)
    for name, partitions in by_topic.items():
        for start in range(0, len(partitions), _STEPS_AT_ONCE):
            part = {tp.partition: steps[tp] for tp in partitions[start : start + _STEPS_AT_ONCE]}
            record = controller.records[name]
            node = with_assignments(record.node, part)
            states = {partition: step.state for partition, step in part.items()}
            before = {partition: record.states[partition] for partition in part}
            controller.records[name] = await controller.in_store(
                controller.store.write_assignment, record, node, states
            )
            controller.publish_partitions([TopicPartition(name, partition) for partition in part])
            for partition, step in part.items():
                _log(TopicPartition(name, partition), step, before[partition].leader)


def _log(tp: TopicPartition, step: Step, leader_before: int) -> None:
    moved = step.assignment
    what = f"moves to {moved.target} from {moved.origin}" if moved.is_moving else f"has the replicas {moved.replicas}"
    lead = "" if step.state.leader == leader_before else f", broker {step.state.leader} leads"
    logger.info("%s %s%s", tp, what, lead)
