"""Giving partitions another leader without a death: preferred elections, asked for or by themselves, and unclean ones
that somebody asks for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING

from raykafka.controller.rules.elections import after_changes, preferred
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.types import NO_LEADER, TopicPartition
from raykafka.zookeeper.znodes import StateNode

if TYPE_CHECKING:
    from raykafka.controller.controller import Controller

# as Kafka: soon after a controller was elected, leadership is looked through once
_FIRST_LOOK_S = 5.0

logger = logging.getLogger(__name__)


class ElectionType(IntEnum):
    """What ElectLeaders asks for (KIP-460)."""

    PREFERRED = 0
    UNCLEAN = 1


async def elect_leaders(
    controller: Controller, kind: ElectionType, partitions: Iterable[TopicPartition], timeout_s: float
) -> dict[TopicPartition, KafkaError | None]:
    """Elect ``partitions`` anew, each by itself. Returns when every live broker goes by it or time is up."""
    outcomes: dict[TopicPartition, KafkaError | None] = {}
    changes: dict[TopicPartition, StateNode] = {}
    async with controller.turn:
        for tp in partitions:
            try:
                changes[tp] = _elected(controller, kind, tp)
                outcomes[tp] = None
            except KafkaError as error:
                outcomes[tp] = error
        await controller.write_states(changes)
        sequence = controller.sequence
    if changes and not await controller.acknowledged(sequence, timeout_s):
        late = KafkaError(ErrorCode.REQUEST_TIMED_OUT, "Not every broker went by the new leader in time.")
        return {tp: late if tp in changes else outcome for tp, outcome in outcomes.items()}
    return outcomes


def _elected(controller: Controller, kind: ElectionType, tp: TopicPartition) -> StateNode:
    record = controller.records.get(tp.topic)
    if record is None or tp.partition not in record.states:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The partition does not exist.")
    state, replicas = record.states[tp.partition], record.node.replicas[tp.partition]
    needed = state.leader != replicas[0] if kind is ElectionType.PREFERRED else state.leader == NO_LEADER
    if not needed:
        raise KafkaError(ErrorCode.ELECTION_NOT_NEEDED, "Leader election not needed for topic partition.")
    lives = controller.lives()
    if kind is ElectionType.PREFERRED:
        made = preferred(replicas, state, lives, controller.leaving, controller.epoch)
        if made is None:
            raise KafkaError(
                ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, f"Broker {replicas[0]} is not alive, or not in sync."
            )
        return made
    made = after_changes(replicas, state, lives, controller.epoch, unclean=True)
    if made is None:
        raise KafkaError(
            ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, "No broker that holds a replica of the partition is alive."
        )
    if made.unclean_epoch != state.unclean_epoch:
        logger.error("%s: unclean election of broker %d was asked for, records may be lost", tp, made.leader)
    return made


async def keep_balanced(controller: Controller) -> None:
    """Bring leadership back to preferred replicas every now and then, as ``auto.leader.rebalance.enable`` and its two
    companions say. Never returns."""
    delay_s = _FIRST_LOOK_S
    while True:
        await asyncio.sleep(delay_s)
        config = controller.broker_config()
        delay_s = float(config["leader.imbalance.check.interval.seconds"])
        if config["auto.leader.rebalance.enable"] == "true":
            async with controller.turn:
                await balance(controller, int(config["leader.imbalance.per.broker.percentage"]))


async def balance(controller: Controller, allowed_percent: int) -> None:
    """Preferred elections for the brokers that lead too few of the partitions they are preferred for. Within
    ``turn``."""
    lives, changes = controller.lives(), {}
    for tp in unbalanced(_leaders(controller), allowed_percent):
        record = controller.records[tp.topic]
        if tp.partition in record.node.adding or tp.partition in record.node.removing:
            continue
        replicas, state = record.node.replicas[tp.partition], record.states[tp.partition]
        made = preferred(replicas, state, lives, controller.leaving, controller.epoch)
        if made is not None and state.leader != NO_LEADER:
            changes[tp] = made
    if changes:
        logger.info("the leadership of %d partitions goes back to their preferred replicas", len(changes))
        await controller.write_states(changes)


def _leaders(controller: Controller) -> dict[TopicPartition, tuple[int, int]]:
    return {
        TopicPartition(name, p): (record.node.replicas[p][0], state.leader)
        for name, record in controller.records.items()
        for p, state in record.states.items()
    }


def unbalanced(leaders: Mapping[TopicPartition, tuple[int, int]], allowed_percent: int) -> list[TopicPartition]:
    """The partitions, given with (preferred, actual leader), that are led by another than their preferred broker, of
    those brokers of whose preferred partitions more than ``allowed_percent`` are. Pure."""
    by_broker: dict[int, list[TopicPartition]] = {}
    for tp, (first, _) in leaders.items():
        by_broker.setdefault(first, []).append(tp)
    found = []
    for _, partitions in sorted(by_broker.items()):
        elsewhere = [tp for tp in partitions if leaders[tp][0] != leaders[tp][1]]
        if 100 * len(elsewhere) > allowed_percent * len(partitions):
            found += elsewhere
    return found
