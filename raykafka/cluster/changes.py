"""How often leaders and in-sync replicas have changed, ever. Pure.

Each partition's state carries its own counts, written in the same transaction as the change: whoever is controller, and
whoever dies, none is lost or counted twice. Those of deleted topics are kept in ``/cluster/deleted_topics``.
"""

from __future__ import annotations

from typing import NamedTuple


class Changes(NamedTuple):
    """``elections``: leader epochs that began with a leader, unclean ones among them. ``isr_shrinks`` and
    ``isr_expands``: writes of the state by which the ISR lost or gained a member, whoever decided it."""

    elections: int = 0
    unclean_elections: int = 0
    isr_shrinks: int = 0
    isr_expands: int = 0

    def plus(self, other: Changes) -> Changes:
        return Changes(*map(sum, zip(self, other, strict=True)))


class Stored(NamedTuple):
    """A partition's state as it stands in ZooKeeper: what the next one is compared with."""

    version: int
    leader_epoch: int
    unclean_epoch: int
    isr: tuple[int, ...]
    changes: Changes

    def followed_by(self, *, leader: int, leader_epoch: int, unclean_epoch: int, isr: tuple[int, ...]) -> Changes:
        """The counts once a state with these values has been written."""
        return self.changes.plus(
            Changes(
                int(leader_epoch != self.leader_epoch and leader >= 0),
                int(unclean_epoch != self.unclean_epoch),
                int(not set(self.isr) <= set(isr)),
                int(not set(isr) <= set(self.isr)),
            )
        )
