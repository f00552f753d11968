"""The rules of a replica that sleeps: it has no process, and its broker goes by its seal (rule 17)."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import NamedTuple

from raykafka.cluster.image import PartitionState
from raykafka.replica.rules.events import Propose, Seal
from raykafka.types import NO_EPOCH

# what a partition that was never written is sealed with
NEVER_WRITTEN = Seal(NO_EPOCH, False, 0, 0, 0, 0)


class SealedEnd(NamedTuple):
    """What a sealed replica answers to a leader that sleeps too: the epoch it follows, the end of its log, the epoch of
    its last record."""

    epoch: int
    log_end: int
    last_epoch: int


def told_asleep(seal: Seal, broker: int, state: PartitionState) -> Seal:
    """The seal once the controller's decision is written to it. A newer epoch begins where the sealed log ends; nothing
    is waiting for it there, so the replica sleeps on."""
    if state.leader_epoch <= seal.epoch:
        return seal
    return Seal(state.leader_epoch, state.leader == broker, seal.log_end, seal.log_end, seal.high_watermark, 0)


def behind(broker: int, state: PartitionState, alive: Container[int]) -> tuple[int, ...]:
    """The live replicas that a sleeping leader has to get back into the ISR; none at a follower."""
    if state.leader != broker:
        return ()
    return tuple(r for r in state.replicas if r in alive and r not in state.isr)


def must_wake(broker: int, state: PartitionState, seal: Seal) -> bool:
    """Whether a sleeping leader is needed before anybody writes: it does not know yet that all of its log is
    committed, or it may not lead this epoch and has to say so (rule 1)."""
    return state.leader == broker and (seal.high_watermark < seal.log_end or not seal.leading)


def ask_asleep(
    broker: int,
    seal: Seal,
    own: SealedEnd,
    state: PartitionState,
    broker_epochs: Mapping[int, int],
    found: Mapping[int, SealedEnd],
) -> Propose | None:
    """The ISR to ask for in a sleeping leader's name: with every replica outside of it that sleeps on the same log, of
    those that were ``found`` in the lives that ``broker_epochs`` names. None if there is none. Its members count for
    the leader once it is awake (rule 5)."""
    if not seal.leading:
        return None
    joining = [b for b in behind(broker, state, broker_epochs) if b in found and may_join_asleep(own, found[b])]
    if not joining:
        return None
    isr = (*state.isr, *joining)
    return Propose(isr, tuple(broker_epochs.get(member, -1) for member in isr), own.epoch, state.version)


def may_join_asleep(leader: SealedEnd, follower: SealedEnd) -> bool:
    """Whether a sleeping follower may be proposed for the ISR of a sleeping leader (rules 6, 11): it follows this very
    epoch, and its log is the leader's, of which a common last record is the proof (rule 1)."""
    return follower == leader
