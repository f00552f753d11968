"""Consumer lag: committed offsets are with this broker's coordinator, the ends of the logs with the leaders.

Both are asked at the scrape, the commits first, so that a lag is never taken from an end older than its commit. What is
not known gives no lag, which is not the same as none: while a group's coordinator moves or loads, while a partition has
no leader or that leader's high watermark has not reached its epoch (rule 9), while a broker does not answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from raykafka.broker.partitions.partition_host import PartitionHost
from raykafka.errors import KafkaError, LinkError
from raykafka.metrics.catalogue import MOST_SAMPLES
from raykafka.types import TopicPartition

if TYPE_CHECKING:
    from raykafka.broker.broker import Broker

METHOD = "log_ends"
ANSWER_WITHIN_S = 0.4

logger = logging.getLogger(__name__)


class Lag(NamedTuple):
    group: str
    tp: TopicPartition
    records: int


def log_end(host: PartitionHost | None) -> int | None:
    """The high watermark of a partition that is led here; None while that is not known."""
    if host is None or not host.is_leader:
        return None
    view = host.log.view
    if view is None or view.leader_epoch != host.state.leader_epoch or view.high_watermark < view.epoch_start_offset:
        return None
    return view.high_watermark


class ConsumerLag:
    """Asks for ``broker``, and answers other brokers that ask the same way (``answer``)."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        broker.peers.answers[METHOD] = self.answer

    async def answer(self, args: dict[str, Any]) -> list[int | None]:
        """``log_ends`` {partitions: [[topic, partition], ...]}: the end of each in that order, None where unknown."""
        return self._local_ends([TopicPartition(*tp) for tp in args["partitions"]])

    def _local_ends(self, partitions: Iterable[TopicPartition]) -> list[int | None]:
        if not self._broker.holds_lease():
            return [None for _ in partitions]  # others may lead by now
        return [log_end(self._broker.partitions.get(tp)) for tp in partitions]

    async def lags(self) -> list[Lag]:
        """All that is known, of the groups that this broker coordinates."""
        committed = await self._broker.coordination.committed(MOST_SAMPLES, ANSWER_WITHIN_S)
        ends = await self._ends({tp for _, tp, _ in committed})
        lags = []
        for group, tp, offset in committed:
            end = ends.get(tp)
            if end is not None:
                lags.append(Lag(group, tp, max(end - offset, 0)))
        return lags

    async def _ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        by_leader: dict[int, list[TopicPartition]] = {}
        image = self._broker.image
        for tp in partitions:
            state = image.partition(tp)
            if state is not None:
                by_leader.setdefault(state.leader, []).append(tp)
        found: dict[TopicPartition, int | None] = {}
        answers = await asyncio.gather(*(self._ends_at(leader, tps) for leader, tps in by_leader.items()))
        for tps, ends in zip(by_leader.values(), answers, strict=True):
            found.update(zip(tps, ends, strict=False))
        return found

    async def _ends_at(self, leader: int, partitions: Sequence[TopicPartition]) -> list[int | None]:
        if leader == self._broker.broker_id:
            return self._local_ends(partitions)
        args = {"partitions": [list(tp) for tp in partitions]}
        try:
            answer: list[int | None] = await self._broker.peers.call(leader, METHOD, args, ANSWER_WITHIN_S)
            return answer
        except (OSError, KafkaError, LinkError, TimeoutError) as error:
            logger.info("broker %d told no log ends: %s", leader, error or type(error).__name__)
            return []
