"""Who leads a partition and who is in sync, after something has died or come back. Pure.

A partition's ISR is remembered with the broker epoch that each member had (``StateNode.isr_epochs``): a member with
another epoch now has died since, whether or not anybody saw it. Such a member holds every acknowledged record as long
as nothing cut its log (``BrokerLife``), so it may lead if no survivor can; as a follower it leaves the ISR and
catches up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from raykafka.controller.znodes import Registration, StateNode
from raykafka.types import NO_LEADER

# As a member's broker epoch: it has never led, so whichever life comes holds everything there is.
_NOTHING_TO_LOSE = (1 << 31) - 1


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

    ``failed`` is a live broker whose replica process of this partition ended or had its log cut: it leads no further
    in this epoch (rule 1); ``short`` says that its log has lost committed records. ``unclean`` allows a leader that is
    not known to hold every acknowledged record; an only replica is always allowed: there is nobody to wait for.
    """
    known = dict(zip(state.isr, state.isr_epochs, strict=True))
    survivors = [b for b in state.isr if b in lives and lives[b].epoch == known[b] and b != failed]
    if state.leader in survivors:
        if len(survivors) == len(state.isr):
            return None
        return _next(state, state.leader, state.leader_epoch, survivors, lives, controller_epoch)

    epoch = state.leader_epoch + 1
    clean = next((b for b in replicas if b in survivors), None)
    if clean is None:
        whole = (b for b in replicas if not (short and b == failed) and _holds_everything(b, known, replicas, lives))
        clean = next(whole, None)
    if clean is not None:
        return _next(state, clean, epoch, survivors if clean in survivors else [clean], lives, controller_epoch)
    last_resort = next((b for b in replicas if b in lives), None)
    alone = short and replicas == (failed,)
    if (unclean or alone) and last_resort is not None:
        chosen = _next(state, last_resort, epoch, [last_resort], lives, controller_epoch)
        return replace(chosen, unclean_epoch=epoch)
    if state.leader == NO_LEADER:
        return None
    return replace(state, leader=NO_LEADER, leader_epoch=epoch, controller_epoch=controller_epoch)


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
