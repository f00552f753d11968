"""What brokers ask of the active controller about their partitions: another ISR, another leader for a replica that
failed, and to be let go."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raykafka.cluster.image import ImageDelta
from raykafka.controller.decisions import reassignments as reassignment_admin
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.types import NO_LEADER, TopicPartition
from raykafka.zookeeper.znodes import StateNode

if TYPE_CHECKING:
    from raykafka.controller.controller import Controller

LET_GO_WITHIN_S = 3.0
# while they are written nothing else is decided
ISRS_AT_ONCE = 250

logger = logging.getLogger(__name__)


async def alter_partition(controller: Controller, args: dict[str, Any]) -> None:
    """Write the ISR that a leader asks for (rule 7), if it speaks of the state as it is and of brokers that live. The
    state goes to its broker like every other; a leader that was refused hears of what made its question old."""
    async with controller.turn:
        tp, after = _proposed(controller, args, _epochs(controller))
        before = controller.records[tp.topic].states[tp.partition].isr
        if not await _write_isrs(controller, {tp: after}):
            raise KafkaError(ErrorCode.INELIGIBLE_REPLICA, f"{tp}: one of {after.isr} lives another life by now")
        logger.info("%s: the ISR is %s, was %s", tp, after.isr, before)


async def alter_partitions(controller: Controller, args: dict[str, Any]) -> int:
    """The same for many partitions, in one transaction for some hundred of them; how many were written. Who asked for
    another hears of what made its question old."""
    written = 0
    asked: list[dict[str, Any]] = args["partitions"]
    for start in range(0, len(asked), ISRS_AT_ONCE):
        async with controller.turn:
            changes: dict[TopicPartition, StateNode] = {}
            refusals: list[KafkaError] = []
            lives = _epochs(controller)
            for proposal in asked[start : start + ISRS_AT_ONCE]:
                try:
                    tp, after = _proposed(controller, proposal, lives)
                    changes[tp] = after
                except KafkaError as refusal:
                    refusals.append(refusal)
            if refusals:
                logger.info("%d ISRs are not written: %s, and the like", len(refusals), refusals[0])
            if changes and await _write_isrs(controller, changes):
                written += len(changes)
                logger.info("%d ISRs are written, that of %s and others", len(changes), next(iter(changes)))
    return written


def _epochs(controller: Controller) -> dict[int, int]:
    """The broker epoch of each registered broker."""
    return {broker: life.epoch for broker, life in controller.lives().items()}


def _proposed(
    controller: Controller, args: dict[str, Any], lives: Mapping[int, int]
) -> tuple[TopicPartition, StateNode]:
    """The state that a proposal asks for, ``lives`` being the epochs of registered brokers. Raises KafkaError for one
    that may not be written."""
    tp = TopicPartition(args["topic"], args["partition"])
    isr, epochs = tuple(args["isr"]), tuple(args["broker_epochs"])
    record = controller.records.get(tp.topic)
    if record is None or str(record.node.id) != args["topic_id"]:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID, f"{tp} is not of that topic any more")
    state = record.states[tp.partition]
    if (args["leader_epoch"], args["version"]) != (state.leader_epoch, state.version):
        raise KafkaError(ErrorCode.INVALID_UPDATE_VERSION, f"{tp} is at version {state.version} by now")
    dead = [b for b, e in zip(isr, epochs, strict=True) if lives.get(b) != e]
    dead += [b for b in isr if b not in state.isr and b in controller.leaving]
    if dead or state.leader not in isr or not set(isr) <= {*record.node.replicas[tp.partition], *state.isr}:
        raise KafkaError(ErrorCode.INELIGIBLE_REPLICA, f"{tp}: of {isr}, {dead} live another life or none")
    return tp, replace(state, isr=isr, isr_epochs=epochs, controller_epoch=controller.epoch)


async def _write_isrs(controller: Controller, changes: Mapping[TopicPartition, StateNode]) -> bool:
    """Write and publish ISRs in one transaction; False if one of their members lives another life by now."""
    written = await controller.in_store(controller.store.write_isrs, changes)
    if written is None:
        return False
    for tp, state in written.items():
        controller.records[tp.topic].states[tp.partition] = state
    controller.publish_partitions(written)
    await reassignment_admin.go_on(controller, written)
    return True


async def let_go(controller: Controller, broker: int) -> None:
    """A broker is about to stop: everything that others can do without it moves to them first, so that no write has to
    wait for its end. This life of it gets into no ISR any more."""
    async with controller.turn:
        info = controller.note_leaving(broker)
        if info is None:
            return
        others = controller.lives().keys() - controller.leaving

        def replaceable(tp: TopicPartition) -> bool:
            isr = controller.records[tp.topic].states[tp.partition].isr
            return broker in isr and any(b in others for b in isr)

        news = ImageDelta(brokers={broker: replace(info, stopping=True)})
        await controller.elect([tp for tp in controller.all_partitions() if replaceable(tp)], failed=broker, news=news)
        sequence = controller.sequence
        logger.info("broker %d is stopping", broker)
    await controller.acknowledged(sequence, LET_GO_WITHIN_S)


async def partition_failed(controller: Controller, args: dict[str, Any]) -> None:
    """End a leadership whose replica process has ended or lost part of its log (rule 1)."""
    tp = TopicPartition(args["topic"], args["partition"])
    async with controller.turn:
        record = controller.records.get(tp.topic)
        if record is None or str(record.node.id) != args["topic_id"]:
            return
        state = record.states[tp.partition]
        if args["leader_epoch"] != state.leader_epoch or state.leader == NO_LEADER:
            return
        logger.warning("%s: leader %d failed in epoch %d: %s", tp, state.leader, state.leader_epoch, args["reason"])
        await controller.elect([tp], failed=state.leader, short=args.get("short_log", False))
