"""Leaders and in-sync replicas after something has ended or come back: brokers, the process of one leader, or a rule
that stood against an election."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raykafka.cluster.image import ImageDelta
from raykafka.controller.decisions.reassignments import go_on
from raykafka.controller.ledger.ledger import Ledger, Turn
from raykafka.controller.ledger.state import State
from raykafka.controller.ledger.turn_queue import Urgency
from raykafka.controller.rules.elections import after_changes
from raykafka.types import NO_LEADER, TopicPartition
from raykafka.zookeeper.znodes import Registration, StateNode

_NAMED = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FailedLeader:
    """A leadership that is over as its replica's process has ended or lost part of its log. ``short_log``: committed
    records are missing from it."""

    tp: TopicPartition
    topic_id: uuid.UUID
    leader_epoch: int
    reason: str
    short_log: bool = False


async def partition_failed(ledger: Ledger, failed: FailedLeader) -> None:
    """End a leadership whose replica process has ended or lost part of its log (rule 1)."""
    tp = failed.tp
    async with ledger.turn(Urgency.FAILED_LEADER) as turn:
        record = turn.state.records.get(tp.topic)
        if record is None or record.node.id != failed.topic_id:
            return
        state = record.states[tp.partition]
        if failed.leader_epoch != state.leader_epoch or state.leader == NO_LEADER:
            return
        logger.warning("%s: leader %d failed in epoch %d: %s", tp, state.leader, state.leader_epoch, failed.reason)
        await elect(turn, [tp], failed=state.leader, short=failed.short_log)


async def elect(
    turn: Turn,
    partitions: Iterable[TopicPartition],
    *,
    failed: int | None = None,
    short: bool = False,
    dead: Sequence[Registration] = (),
    news: ImageDelta | None = None,
) -> None:
    """Settle ``partitions`` as the registered brokers ask for; ``failed`` and ``short`` as in
    ``rules.elections.after_changes``. The registrations of ``dead`` brokers are removed with that; the brokers are told
    of it, and of ``news``, together with the outcome."""
    wanted = list(partitions)
    changes = _outcomes(turn.state, wanted, failed, short)
    await turn.write_states(changes, dead, news)
    await go_on(turn, wanted)


def _outcomes(
    state: State, partitions: Iterable[TopicPartition], failed: int | None, short: bool
) -> dict[TopicPartition, StateNode]:
    """The states that have to change."""
    lives, epoch = state.lives(), state.epoch
    changes: dict[TopicPartition, StateNode] = {}
    offline: list[TopicPartition] = []
    for tp in partitions:
        record = state.records[tp.topic]
        before, replicas = record.states[tp.partition], record.node.replicas[tp.partition]
        after = after_changes(replicas, before, lives, epoch, failed=failed, short=short)
        if (after or before).leader == NO_LEADER and _allows_unclean(state, tp.topic):
            after = after_changes(replicas, before, lives, epoch, failed=failed, short=short, unclean=True)
        if after is None:
            continue
        changes[tp] = after
        if after.unclean_epoch != before.unclean_epoch:
            logger.error("%s: unclean election of broker %d, records may be lost", tp, after.leader)
        elif after.leader == NO_LEADER:
            offline.append(tp)
    if offline:
        named = ", ".join(map(str, offline[:_NAMED])) + (", ..." if len(offline) > _NAMED else "")
        logger.error("offline, as no replica with every acknowledged record lives: %d, %s", len(offline), named)
    return changes


def _allows_unclean(state: State, topic: str) -> bool:
    return state.topic_config(state.records[topic].config)["unclean.leader.election.enable"] == "true"
