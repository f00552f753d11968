"""Giving partitions another leader without a death: preferred elections, asked for or by themselves, and unclean ones
that somebody asks for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from enum import IntEnum

from raykafka.controller.ledger.ledger import Ledger, Turn
from raykafka.controller.ledger.state import State
from raykafka.controller.rules.balance import unbalanced
from raykafka.controller.rules.elections import after_changes, preferred
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.types import NO_LEADER, TopicPartition
from raykafka.zookeeper.znodes import StateNode

# as Kafka: soon after a controller was elected, leadership is looked through once
_FIRST_LOOK_S = 5.0

logger = logging.getLogger(__name__)


class ElectionType(IntEnum):
    """What ElectLeaders asks for (KIP-460)."""

    PREFERRED = 0
    UNCLEAN = 1


async def elect_leaders(
    ledger: Ledger, kind: ElectionType, partitions: Iterable[TopicPartition], timeout_s: float
) -> dict[TopicPartition, KafkaError | None]:
    """Elect ``partitions`` anew, each by itself. Returns when every live broker goes by it or time is up."""
    outcomes: dict[TopicPartition, KafkaError | None] = {}
    changes: dict[TopicPartition, StateNode] = {}
    async with ledger.turn() as turn:
        for tp in partitions:
            try:
                changes[tp] = _elected(turn.state, kind, tp)
                outcomes[tp] = None
            except KafkaError as error:
                outcomes[tp] = error
        await turn.write_states(changes)
        sequence = turn.state.sequence
    if changes and not await ledger.acknowledged(sequence, timeout_s):
        late = KafkaError(ErrorCode.REQUEST_TIMED_OUT, "Not every broker went by the new leader in time.")
        return {tp: late if tp in changes else outcome for tp, outcome in outcomes.items()}
    return outcomes


def _elected(state: State, kind: ElectionType, tp: TopicPartition) -> StateNode:
    found = state.partition(tp)
    if found is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The partition does not exist.")
    before, replicas = found
    needed = before.leader != replicas[0] if kind is ElectionType.PREFERRED else before.leader == NO_LEADER
    if not needed:
        raise KafkaError(ErrorCode.ELECTION_NOT_NEEDED, "Leader election not needed for topic partition.")
    if kind is ElectionType.PREFERRED:
        made = preferred(replicas, before, state.lives(), state.leaving, state.epoch)
        if made is None:
            raise KafkaError(
                ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, f"Broker {replicas[0]} is not alive, or not in sync."
            )
        return made
    made = after_changes(replicas, before, state.lives(), state.epoch, unclean=True)
    if made is None:
        raise KafkaError(
            ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, "No broker that holds a replica of the partition is alive."
        )
    if made.unclean_epoch != before.unclean_epoch:
        logger.error("%s: unclean election of broker %d was asked for, records may be lost", tp, made.leader)
    return made


async def keep_balanced(ledger: Ledger) -> None:
    """Bring leadership back to preferred replicas every now and then, as ``auto.leader.rebalance.enable`` and its two
    companions say. Never returns."""
    delay_s = _FIRST_LOOK_S
    while True:
        await asyncio.sleep(delay_s)
        config = ledger.state.broker_config()
        delay_s = float(config["leader.imbalance.check.interval.seconds"])
        if config["auto.leader.rebalance.enable"] == "true":
            async with ledger.turn() as turn:
                await _balance(turn, int(config["leader.imbalance.per.broker.percentage"]))


async def _balance(turn: Turn, allowed_percent: int) -> None:
    """Preferred elections for the brokers that lead too few of the partitions they are preferred for."""
    state, changes = turn.state, {}
    lives, leaving = state.lives(), state.leaving
    for tp in unbalanced(_leaders(state), allowed_percent):
        record = state.records[tp.topic]
        if tp.partition in record.node.adding or tp.partition in record.node.removing:
            continue
        replicas, before = record.node.replicas[tp.partition], record.states[tp.partition]
        made = preferred(replicas, before, lives, leaving, state.epoch)
        if made is not None and before.leader != NO_LEADER:
            changes[tp] = made
    if changes:
        logger.info("the leadership of %d partitions goes back to their preferred replicas", len(changes))
        await turn.write_states(changes)


def _leaders(state: State) -> dict[TopicPartition, tuple[int, int]]:
    """The preferred and the actual leader of each partition."""
    return {
        TopicPartition(name, p): (record.node.replicas[p][0], partition.leader)
        for name, record in state.records.items()
        for p, partition in record.states.items()
    }
