"""ZooKeeper and controllers, as far as one partition sees them: conditional transactions, and deciders with stale
views."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from raykafka.cluster.image import PartitionState
from raykafka.replica.rules.events import Propose


class Registration(NamedTuple):
    """``/brokers/ids/N``: the broker epoch of the life that registered."""

    broker_epoch: int


@dataclass(slots=True)
class ControllerRules:
    """The conditions of the controller's transactions. Tests switch single ones off."""

    check_controller_epoch: bool = True
    check_version: bool = True
    check_broker_epochs: bool = True
    check_removed_epoch: bool = True


@dataclass(slots=True)
class Lives:
    """The znodes that all partitions share: the brokers' lives, and the controller's epoch."""

    controller_epoch: int = 0
    broker_epochs: dict[int, int] = field(default_factory=dict)
    ids: dict[int, Registration] = field(default_factory=dict)

    def register(self, broker: int) -> int:
        """Rule 13's transaction. A predecessor's registration goes: the data directory's lock is held."""
        epoch = self.broker_epochs.get(broker, -1) + 1
        self.broker_epochs[broker] = epoch
        self.ids[broker] = Registration(epoch)
        return epoch


@dataclass(slots=True)
class Register:
    """The znodes of a partition. ``tainted`` holds the lives that registered after an unclean boot or on another
    directory and have not left the ISR since (rule 18)."""

    state: PartitionState
    rules: ControllerRules
    lives: Lives
    tainted: dict[int, int] = field(default_factory=dict)
    writes: list[PartitionState] = field(default_factory=list)

    def registered(self, broker: int, tainted: bool) -> None:
        """A life of ``broker`` has registered."""
        if tainted or broker in self.tainted:
            self.tainted[broker] = self.lives.broker_epochs[broker]

    def remove(self, controller_epoch: int, broker: int, epoch_seen: int) -> bool:
        """Rule 13's removal by a controller."""
        lives = self.lives
        if self.rules.check_controller_epoch and controller_epoch != lives.controller_epoch:
            return False
        if self.rules.check_removed_epoch and lives.broker_epochs.get(broker) != epoch_seen:
            return False
        return lives.ids.pop(broker, None) is not None

    def write(self, controller_epoch: int, version: int, state: PartitionState, cleared: frozenset[int]) -> bool:
        """Set the partition's state if controller epoch and version are as named. ``cleared`` lives, which left the
        ISR, lose their taint in the same transaction."""
        if self.rules.check_controller_epoch and controller_epoch != self.lives.controller_epoch:
            return False
        if self.rules.check_version and version != self.state.version:
            return False
        self.state = replace(state, version=self.state.version + 1)
        self.writes.append(self.state)
        for broker in cleared:
            self.tainted.pop(broker, None)
        return True

    def propose(self, controller_epoch: int, proposal: Propose) -> bool:
        """Rule 7's transaction."""
        state = self.state
        if proposal.leader_epoch != state.leader_epoch:
            return False
        joining = frozenset(proposal.isr).difference(state.isr)
        if self.rules.check_broker_epochs:
            for broker, epoch in zip(proposal.isr, proposal.broker_epochs, strict=True):
                known, alive = self.lives.broker_epochs.get(broker), broker in self.lives.ids
                if known != epoch or (broker in joining and not alive):
                    return False
        return self.write(controller_epoch, proposal.version, replace(state, isr=proposal.isr), joining)


class Controller:
    """One controller, as far as one partition goes: decides from what it last read, which may be old; others may have
    taken its place. Its epoch is the newest when it begins."""

    def __init__(self, register: Register, unclean: bool) -> None:
        self.epoch = register.lives.controller_epoch
        self.register = register
        self.unclean = unclean
        self.failed: set[tuple[int, int]] = set()
        self.read()

    def read(self) -> None:
        self.state = self.register.state
        self.read_brokers()

    def read_brokers(self) -> None:
        """Learn who lives, and nothing new about the partition."""
        self.ids = dict(self.register.lives.ids)
        self.tainted = dict(self.register.tainted)

    @property
    def broker_epochs(self) -> dict[int, int]:
        return {broker: registration.broker_epoch for broker, registration in self.ids.items()}

    def is_fit(self, broker: int) -> bool:
        return broker in self.ids and broker not in self.tainted

    def decide(self) -> tuple[PartitionState, frozenset[int]] | None:
        """The state that is due now, and the lives whose taint that ends; None when all is as it should be."""
        state = self.state
        fit = tuple(b for b in state.isr if self.is_fit(b))
        failed = (state.leader, state.leader_epoch) in self.failed
        if state.leader in fit and not failed:
            due = replace(state, isr=fit)
        elif fit:
            elected = next((b for b in fit if b != state.leader), fit[0])
            due = replace(state, leader=elected, leader_epoch=state.leader_epoch + 1, isr=fit)
        elif self.unclean and self.ids:
            elected = next(b for b in state.replicas if b in self.ids)
            epoch = state.leader_epoch + 1
            due = replace(state, leader=elected, leader_epoch=epoch, isr=(elected,), unclean_epoch=epoch)
            return due, frozenset(self.tainted)
        else:
            trusted = tuple(b for b in state.isr if b not in self.tainted) or state.isr
            due = replace(state, isr=trusted)
            if state.leader >= 0:
                due = replace(due, leader=-1, leader_epoch=state.leader_epoch + 1)
        cleared = frozenset(b for b in self.tainted if b not in due.isr)
        return (due, cleared) if due != state or cleared else None

    def may_tell(self, broker: int) -> bool:
        """A life whose log is not what it was is told nothing that could make it lead, until it has left the ISR."""
        return broker not in self.tainted or broker not in self.state.isr
