"""The ISRs that leaders propose (rule 7)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from raykafka.controller.decisions.reassignments import go_on
from raykafka.controller.ledger.ledger import Ledger, Turn
from raykafka.controller.ledger.state import State
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.types import TopicPartition
from raykafka.zookeeper.znodes import StateNode

# while they are written nothing else is decided
ISRS_AT_ONCE = 250

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IsrProposal:
    """The ISR that a leader proposes, with the broker epoch of each member, for the state that it knows: its leader
    epoch and version."""

    tp: TopicPartition
    topic_id: uuid.UUID
    isr: tuple[int, ...]
    broker_epochs: tuple[int, ...]
    leader_epoch: int
    version: int


async def alter_partition(ledger: Ledger, proposal: IsrProposal) -> None:
    """Write the ISR that a leader proposes, if it speaks of the state as it is and of brokers that live. The state goes
    to its broker like every other; a leader that was refused hears of what made its proposal old."""
    async with ledger.turn() as turn:
        tp, after = proposal.tp, _proposed(turn.state, proposal, _epochs(turn.state))
        before = turn.state.records[tp.topic].states[tp.partition].isr
        if not await _write(turn, {tp: after}):
            raise KafkaError(ErrorCode.INELIGIBLE_REPLICA, f"{tp}: one of {after.isr} lives another life by now")
        logger.info("%s: the ISR is %s, was %s", tp, after.isr, before)


async def alter_partitions(ledger: Ledger, proposals: Sequence[IsrProposal]) -> int:
    """The same for many partitions, in one transaction for some hundred of them; how many were written. Whose was not
    hears of what made its proposal old."""
    written = 0
    for start in range(0, len(proposals), ISRS_AT_ONCE):
        async with ledger.turn() as turn:
            changes: dict[TopicPartition, StateNode] = {}
            refusals: list[KafkaError] = []
            lives = _epochs(turn.state)
            for proposal in proposals[start : start + ISRS_AT_ONCE]:
                try:
                    changes[proposal.tp] = _proposed(turn.state, proposal, lives)
                except KafkaError as refusal:
                    refusals.append(refusal)
            if refusals:
                logger.info("%d ISRs are not written: %s, and the like", len(refusals), refusals[0])
            if changes and await _write(turn, changes):
                written += len(changes)
                logger.info("%d ISRs are written, that of %s and others", len(changes), next(iter(changes)))
    return written


def _epochs(state: State) -> dict[int, int]:
    """The broker epoch of each registered broker."""
    return {broker: registration.info.epoch for broker, registration in state.registrations.items()}


def _proposed(state: State, proposal: IsrProposal, lives: Mapping[int, int]) -> StateNode:
    """The partition's state with the proposed ISR, ``lives`` being the epochs of registered brokers. Raises KafkaError
    for one that may not be written."""
    tp, isr, epochs = proposal.tp, proposal.isr, proposal.broker_epochs
    record = state.records.get(tp.topic)
    if record is None or record.node.id != proposal.topic_id:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID, f"{tp} is not of that topic any more")
    before = record.states[tp.partition]
    if (proposal.leader_epoch, proposal.version) != (before.leader_epoch, before.version):
        raise KafkaError(ErrorCode.INVALID_UPDATE_VERSION, f"{tp} is at version {before.version} by now")
    dead = [b for b, e in zip(isr, epochs, strict=True) if lives.get(b) != e]
    dead += [b for b in isr if b not in before.isr and b in state.leaving]
    if dead or before.leader not in isr or not set(isr) <= {*record.node.replicas[tp.partition], *before.isr}:
        raise KafkaError(ErrorCode.INELIGIBLE_REPLICA, f"{tp}: of {isr}, {dead} live another life or none")
    return replace(before, isr=isr, isr_epochs=epochs, controller_epoch=state.epoch)


async def _write(turn: Turn, changes: Mapping[TopicPartition, StateNode]) -> bool:
    """Write ISRs in one transaction, and end the moves that they complete; False if one of their members lives another
    life by now."""
    if not await turn.write_isrs(changes):
        return False
    await go_on(turn, changes)
    return True
