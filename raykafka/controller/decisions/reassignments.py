"""Moving partitions between brokers: the steps of ``rules.reassignment``, written."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from raykafka.controller.ledger.ledger import Ledger, Turn
from raykafka.controller.ledger.state import State
from raykafka.controller.rules.reassignment import Assignment, Step, asked, next_step, with_assignments
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.types import TopicPartition

APPLY_WITHIN_S = 5.0
# steps that are written in one transaction
_STEPS_AT_ONCE = 400

logger = logging.getLogger(__name__)


async def alter_reassignments(
    ledger: Ledger, wanted: Mapping[TopicPartition, Sequence[int] | None]
) -> dict[TopicPartition, KafkaError | None]:
    """Begin to move each partition to the replicas wanted for it, or with None cancel its move. Returns once the moves
    stand in ZooKeeper and the live brokers go by them (or 5 s have passed: they will)."""
    outcomes: dict[TopicPartition, KafkaError | None] = {}
    steps: dict[TopicPartition, Step] = {}
    async with ledger.turn() as turn:
        for tp, brokers in wanted.items():
            try:
                steps[tp] = _asked(turn.state, tp, brokers)
                outcomes[tp] = None
            except KafkaError as error:
                outcomes[tp] = error
        await _take(turn, steps)
        sequence = turn.state.sequence
    if steps:
        await ledger.acknowledged(sequence, APPLY_WITHIN_S)
    return outcomes


def _asked(state: State, tp: TopicPartition, brokers: Sequence[int] | None) -> Step:
    record = state.records.get(tp.topic)
    if record is None or tp.partition not in record.states:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The partition does not exist.")
    current, before = Assignment.of(record.node, tp.partition), record.states[tp.partition]
    return asked(current, before, brokers, state.lives(), state.leaving, state.epoch)


def reassignments(state: State, wanted: Iterable[TopicPartition] | None) -> dict[TopicPartition, Assignment]:
    """The moves under way, of ``wanted`` partitions (None: of all)."""
    found = {}
    for tp in _all_moving(state) if wanted is None else wanted:
        record = state.records.get(tp.topic)
        if record is not None and (tp.partition in record.node.adding or tp.partition in record.node.removing):
            found[tp] = Assignment.of(record.node, tp.partition)
    return found


def _all_moving(state: State) -> list[TopicPartition]:
    return [
        TopicPartition(name, partition)
        for name, record in sorted(state.records.items())
        for partition in sorted(record.node.adding.keys() | record.node.removing.keys())
    ]


async def go_on(turn: Turn, partitions: Iterable[TopicPartition]) -> None:
    """End the moves of ``partitions`` that can be ended now."""
    steps: dict[TopicPartition, Step] = {}
    state = turn.state
    lives, leaving = state.lives(), state.leaving
    for tp, current in reassignments(state, partitions).items():
        step = next_step(current, state.records[tp.topic].states[tp.partition], lives, leaving, state.epoch)
        if step is not None:
            steps[tp] = step
    await _take(turn, steps)


async def _take(turn: Turn, steps: Mapping[TopicPartition, Step]) -> None:
    """Write steps, the assignment and the states of some partitions of one topic at a time, and make them known."""
    by_topic: dict[str, list[TopicPartition]] = {}
    for tp in steps:
        by_topic.setdefault(tp.topic, []).append(tp)
    for name, partitions in by_topic.items():
        for start in range(0, len(partitions), _STEPS_AT_ONCE):
            part = {tp.partition: steps[tp] for tp in partitions[start : start + _STEPS_AT_ONCE]}
            before = turn.state.records[name]
            states = {partition: step.state for partition, step in part.items()}
            await turn.write_assignment(name, with_assignments(before.node, part), states)
            for partition, step in part.items():
                _log(TopicPartition(name, partition), step, before.states[partition].leader)


def _log(tp: TopicPartition, step: Step, leader_before: int) -> None:
    moved = step.assignment
    what = f"moves to {moved.target} from {moved.origin}" if moved.is_moving else f"has the replicas {moved.replicas}"
    lead = "" if step.state.leader == leader_before else f", broker {step.state.leader} leads"
    logger.info("%s %s%s", tp, what, lead)
