"""A replica that sleeps has no process: its broker holds the seal, and obeys these rules in its name (rule 17)."""

from __future__ import annotations

from collections.abc import Container

from raykafka.cluster.image import PartitionState
from raykafka.replica.events import Seal


def told_asleep(seal: Seal, broker: int, state: PartitionState) -> Seal:
    """The seal once the controller's decision is written to it. A newer epoch begins where the sealed log ends; nothing
    is waiting for it there, so the replica sleeps on."""
    if state.leader_epoch <= seal.epoch:
        return seal
    return Seal(state.leader_epoch, state.leader == broker, seal.log_end, seal.log_end, seal.high_watermark, 0)


def must_wake(broker: int, state: PartitionState, alive: Container[int]) -> bool:
    """Whether a sleeping leader is needed before anybody writes: a live replica has to catch up."""
    return state.leader == broker and any(r in alive and r not in state.isr for r in state.replicas)
