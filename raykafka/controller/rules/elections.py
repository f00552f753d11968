"""Who leads a partition and who is in sync, after something has died or come back. Pure.

A partition's ISR is remembered with the broker epoch that each member had (``StateNode.isr_epochs``): a member with
another epoch now has died since, whether or not anybody saw it. Such a member holds every acknowledged record as long
as nothing cut its log (``BrokerLife``), so it may lead if no survivor can; as a follower it leaves the ISR and
catches up.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from raykafka.types import NO_LEADER
from raykafka.zookeeper.znodes import Registration, StateNode

# As a member's broker epoch: it has never led, so whichever life comes holds everything there is.
_NOTHING_TO_LOSE = (1 << 31) - 1
# As a member's broker epoch: its log was found to lack committed records, so no life of it may lead (rule 18).
UNTRUSTED = -1


@dataclass(frozen=True, slots=True)
class BrokerLife:
    """What elections need to know of a registered broker; all three are broker epochs (``znodes.Registration``)."""

    epoch: int
    directory_since: int
    intact_since: int

    @staticmethod
    def of(registration: Registration) -> BrokerLife:
        return BrokerLife(registration.info.epoch, registration.directory_since, registration.intact_since)


Lives = Mapping[int, BrokerLife]


def first_state(replicas: tuple[int, ...], lives: Lives, controller_epoch: int) -> StateNode:
    """The state of a new partition: every live replica is in sync, the first of them leads. With none alive it waits,
    offline, for its first replica."""
    alive = tuple(b for b in replicas if b in lives)
    isr = alive or replicas[:1]
    epochs = tuple(lives[b].epoch if b in lives else _NOTHING_TO_LOSE for b in isr)
    return StateNode(alive[0] if alive else NO_LEADER, 0, isr, epochs, controller_epoch)


def survivors(state: StateNode, lives: Lives) -> list[int]:
    """The ISR members that still live the life in which they got into it."""
    known = zip(state.isr, state.isr_epochs, strict=True)
    return [broker for broker, epoch in known if broker in lives and lives[broker].epoch == epoch]


def preferred(
    replicas: tuple[int, ...], state: StateNode, lives: Lives, leaving: Container[int], controller_epoch: int
) -> StateNode | None:
    """The state in which the first replica leads; None if it can't: it is not in sync, not alive, or about to stop."""
    first = replicas[0]
    if first not in survivors(state, lives) or first in leaving:
        return None
    return replace(state, leader=first, leader_epoch=state.leader_epoch + 1, controller_epoch=controller_epoch)


def after_changes(
    replicas: tuple[int, ...],
    state: StateNode,
    lives: Lives,
    controller_epoch: int,
    *,
    failed: int | None = None,
    short: bool = False,
    unclean: bool = False,
) -> StateNode | None:
    """The partition's next state now that ``lives`` are the registered brokers; None when nothing has to change.

    ``failed`` is a live broker whose replica of this partition was closed, lost its actor or had its log cut: it leads
    no further in this epoch (rule 1); ``short`` says that its log has lost committed records: where nobody else can
    lead, that it may not either is kept in the state. ``unclean`` allows a leader that is not known to hold every
    acknowledged record; an only replica is always allowed: there is nobody to wait for.
    """
    known = dict(zip(state.isr, state.isr_epochs, strict=True))
    alive = [b for b in survivors(state, lives) if b != failed]
    if state.leader in alive:
        if len(alive) == len(state.isr):
            return None
        return _next(state, state.leader, state.leader_epoch, alive, lives, controller_epoch)

    epoch = state.leader_epoch + 1
    clean = next((b for b in replicas if b in alive), None)
    if clean is None:
        whole = (b for b in replicas if not (short and b == failed) and _holds_everything(b, known, replicas, lives))
        clean = next(whole, None)
    if clean is not None:
        return _next(state, clean, epoch, alive if clean in alive else [clean], lives, controller_epoch)
    last_resort = next((b for b in replicas if b in lives), None)
    alone = short and replicas == (failed,)
    if (unclean or alone) and last_resort is not None:
        chosen = _next(state, last_resort, epoch, [last_resort], lives, controller_epoch)
        return replace(chosen, unclean_epoch=epoch)
    if state.leader == NO_LEADER:
        return None
    epochs = tuple(UNTRUSTED if short and b == failed else known[b] for b in state.isr)
    return replace(state, leader=NO_LEADER, leader_epoch=epoch, isr_epochs=epochs, controller_epoch=controller_epoch)


def _holds_everything(broker: int, known: Mapping[int, int], replicas: tuple[int, ...], lives: Lives) -> bool:
    """Whether an ISR member that died has come back with its log: on the same directory and, unless nobody else ever
    had the records, with no tail lost to a crash of the machine (rule 18)."""
    if broker not in known or broker not in lives:
        return False
    life = lives[broker]
    return known[broker] >= (life.directory_since if len(replicas) == 1 else life.intact_since)


def _next(
    state: StateNode, leader: int, leader_epoch: int, isr: list[int], lives: Lives, controller_epoch: int
) -> StateNode:
    return replace(
        state,
        leader=leader,
        leader_epoch=leader_epoch,
        isr=tuple(isr),
        isr_epochs=tuple(lives[b].epoch for b in isr),
        controller_epoch=controller_epoch,
    )
