"""The ISRs that leaders propose (rule 7): one proposal waits for a partition at most, and those that wait are decided
together."""

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from raykafka.controller.decisions.reassignments import go_on
from raykafka.controller.ledger.ledger import Ledger, Turn
from raykafka.controller.ledger.state import State
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.types import TopicPartition
from raykafka.zookeeper.znodes import StateNode

# while they are written nothing else is decided
ISRS_AT_ONCE = 250
_NAMED = 5

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


Outcome = KafkaError | None


class _Asked(NamedTuple):
    """A proposal and what becomes of it; the outcome is cancelled when whoever asked is gone."""

    proposal: IsrProposal
    outcome: asyncio.Future[Outcome]


class IsrChanges:
    """The proposals that wait for a turn, whichever brokers they are of: the newest of each partition. An older one is
    refused when a newer comes, and one that speaks of another state than the newest at once, so that no more than one
    for each partition is kept while ZooKeeper is away and nothing can be decided.

    ``run`` begins a task of this controller (``Tenure.run``): one is there while proposals wait. It takes up to
    ISRS_AT_ONCE of them in a turn, and lets deaths and failed leaders go first.
    """

    def __init__(self, ledger: Ledger, run: Callable[[Callable[[], Coroutine[Any, Any, None]]], Any]) -> None:
        self._ledger = ledger
        self._run = run
        self._waiting: dict[TopicPartition, _Asked] = {}
        self._under_way: list[_Asked] = []
        self._deciding = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def ask(self, proposals: Sequence[IsrProposal]) -> list[Outcome]:
        """Write the ISRs that leaders propose, each if it speaks of the state as it is and of brokers that live. For
        each in order None, once it is written, or why it is not. The states go to the brokers like every other; a
        leader that was refused hears of what made its proposal old.

        Raises KafkaError(NOT_CONTROLLER) when this controller is over.
        """
        return list(await asyncio.gather(*map(self._enter, proposals)))

    def _enter(self, proposal: IsrProposal) -> asyncio.Future[Outcome]:
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        try:
            _spoken_of(self._ledger.state, proposal)
        except KafkaError as refusal:
            outcome.set_result(refusal)
            return outcome
        older = self._waiting.get(proposal.tp)
        if older is not None and not older.outcome.done():
            newer = KafkaError(ErrorCode.INVALID_UPDATE_VERSION, f"{proposal.tp}: another ISR was proposed after that")
            older.outcome.set_result(newer)
        self._waiting[proposal.tp] = _Asked(proposal, outcome)
        if not self._deciding:
            self._deciding = True
            self._run(self._decide)
        return outcome

    async def _decide(self) -> None:
        """Decide what waits, until nothing does."""
        try:
            while self._waiting:
                async with self._ledger.turn() as turn:
                    taken = [*itertools.islice(self._waiting.values(), ISRS_AT_ONCE)]
                    for asked in taken:
                        del self._waiting[asked.proposal.tp]
                    self._under_way = taken
                    await _decide_all(turn, [asked for asked in taken if not asked.outcome.done()])
                    self._under_way = []
        except BaseException as error:
            over = error if isinstance(error, KafkaError) else KafkaError(ErrorCode.NOT_CONTROLLER, "it has ended")
            for asked in (*self._under_way, *self._waiting.values()):
                if not asked.outcome.done():
                    asked.outcome.set_exception(over)
            self._waiting.clear()
            raise
        finally:
            self._deciding = False


async def _decide_all(turn: Turn, waiting: Sequence[_Asked]) -> None:
    """Write those ISRs that may be written, in one transaction, and say to each what has become of it."""
    changes: dict[TopicPartition, StateNode] = {}
    lives = _epochs(turn.state)
    refusals: dict[TopicPartition, KafkaError] = {}
    for asked in waiting:
        try:
            changes[asked.proposal.tp] = _proposed(turn.state, asked.proposal, lives)
        except KafkaError as refusal:
            refusals[asked.proposal.tp] = refusal
    before = {tp: turn.state.records[tp.topic].states[tp.partition].isr for tp in changes}
    if changes and not await _write(turn, changes):
        for tp, after in changes.items():
            refusals[tp] = KafkaError(ErrorCode.INELIGIBLE_REPLICA, f"{tp}: one of {after.isr} lives another life")
        changes = {}
    for asked in waiting:
        if not asked.outcome.done():
            asked.outcome.set_result(refusals.get(asked.proposal.tp))
    for tp in itertools.islice(changes, _NAMED):
        logger.info("%s: the ISR is %s, was %s", tp, changes[tp].isr, before[tp])
    if len(changes) > _NAMED:
        logger.info("%d ISRs are written in all", len(changes))
    if refusals:
        logger.info("%d ISRs are not written: %s", len(refusals), next(iter(refusals.values())))


def _epochs(state: State) -> dict[int, int]:
    """The broker epoch of each registered broker."""
    return {broker: registration.info.epoch for broker, registration in state.registrations.items()}


def _spoken_of(state: State, proposal: IsrProposal) -> StateNode:
    """The partition's state. Raises KafkaError when ``proposal`` speaks of another one."""
    tp = proposal.tp
    record = state.records.get(tp.topic)
    if record is None or record.node.id != proposal.topic_id or tp.partition not in record.states:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID, f"{tp} is not of that topic any more")
    before = record.states[tp.partition]
    if (proposal.leader_epoch, proposal.version) != (before.leader_epoch, before.version):
        raise KafkaError(ErrorCode.INVALID_UPDATE_VERSION, f"{tp} is at version {before.version} by now")
    return before


def _proposed(state: State, proposal: IsrProposal, lives: Mapping[int, int]) -> StateNode:
    """The partition's state with the proposed ISR, ``lives`` being the epochs of registered brokers. Raises KafkaError
    for one that may not be written."""
    tp, isr, epochs = proposal.tp, proposal.isr, proposal.broker_epochs
    before = _spoken_of(state, proposal)
    dead = [b for b, e in zip(isr, epochs, strict=True) if lives.get(b) != e]
    dead += [b for b in isr if b not in before.isr and b in state.leaving]
    replicas = state.records[tp.topic].node.replicas[tp.partition]
    if dead or before.leader not in isr or not set(isr) <= {*replicas, *before.isr}:
        raise KafkaError(ErrorCode.INELIGIBLE_REPLICA, f"{tp}: of {isr}, {dead} live another life or none")
    return replace(before, isr=isr, isr_epochs=epochs, controller_epoch=state.epoch)


async def _write(turn: Turn, changes: Mapping[TopicPartition, StateNode]) -> bool:
    """Write ISRs in one transaction, and end the moves that they complete; False if one of their members lives another
    life by now."""
    if not await turn.write_isrs(changes):
        return False
    await go_on(turn, changes)
    return True
