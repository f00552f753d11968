"""Leaders and in-sync replicas after something has ended or come back: brokers, leaderships of one that lives on, or a
rule that stood against an election."""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Container, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

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


class FailedReplica(NamedTuple):
    """A replica that was closed or lost part of its log, in a leader epoch. ``short_log``: it lacks committed
    records."""

    tp: TopicPartition
    topic_id: uuid.UUID
    leader_epoch: int
    reason: str
    short_log: bool = False


_NONE: Mapping[TopicPartition, int] = MappingProxyType({})


async def partitions_failed(ledger: Ledger, broker: int, failures: Sequence[FailedReplica]) -> None:
    """Replicas of ``broker`` failed though it lives: end the leaderships of those that lead (rule 1), and take the
    others out of their ISRs, so that no write waits for them. All in one turn and one update to the brokers. What had
    ended before is passed over."""
    async with ledger.turn(Urgency.FAILED_LEADER) as turn:
        over = [failure for failure in failures if _goes_on(turn.state, failure)]
        for tp, _, epoch, reason, _ in over[:_NAMED]:
            logger.warning("%s: the replica on broker %d failed in leader epoch %d: %s", tp, broker, epoch, reason)
        if len(over) > _NAMED:
            logger.warning("%d replicas on broker %d failed in all", len(over), broker)
        if over:
            failed = {failure.tp: broker for failure in over}
            await elect(turn, failed, failed=failed, short={failure.tp for failure in over if failure.short_log})


def _goes_on(state: State, failure: FailedReplica) -> bool:
    """Whether that leader epoch is the newest of its partition, and not over yet."""
    record = state.records.get(failure.tp.topic)
    if record is None or record.node.id != failure.topic_id:
        return False
    current = record.states.get(failure.tp.partition)
    return current is not None and current.leader_epoch == failure.leader_epoch and current.leader != NO_LEADER


async def elect(
    turn: Turn,
    partitions: Iterable[TopicPartition],
    *,
    failed: Mapping[TopicPartition, int] = _NONE,
    short: Container[TopicPartition] = (),
    dead: Sequence[Registration] = (),
    news: ImageDelta | None = None,
) -> None:
    """Settle ``partitions`` as the registered brokers ask for; ``failed`` says of some on which broker the
    replica failed, ``short`` of which of those the log lacks committed records (``rules.elections.after_changes``). The
    registrations of ``dead`` brokers are removed with that; the brokers are told of it, and of ``news``, together with
    the outcome."""
    wanted = list(partitions)
    changes = _outcomes(turn.state, wanted, failed, short)
    await turn.write_states(changes, dead, news)
    await go_on(turn, wanted)


def _outcomes(
    state: State,
    partitions: Iterable[TopicPartition],
    failed: Mapping[TopicPartition, int],
    short: Container[TopicPartition],
) -> dict[TopicPartition, StateNode]:
    """The states that have to change."""
    lives, epoch = state.lives(), state.epoch
    changes: dict[TopicPartition, StateNode] = {}
    offline: list[TopicPartition] = []
    allows_unclean = functools.cache(lambda topic: _allows_unclean(state, topic))
    for tp in partitions:
        record = state.records[tp.topic]
        before, replicas = record.states[tp.partition], record.node.replicas[tp.partition]
        failure, is_short = failed.get(tp), tp in short
        after = after_changes(replicas, before, lives, epoch, failed=failure, short=is_short)
        if (after or before).leader == NO_LEADER and allows_unclean(tp.topic):
            after = after_changes(replicas, before, lives, epoch, failed=failure, short=is_short, unclean=True)
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
