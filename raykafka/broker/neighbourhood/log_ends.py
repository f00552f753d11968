"""Where the logs of partitions end, as their leaders know it: asked between brokers, for the lag of consumer groups."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from raykafka.broker.neighbourhood.broker_calls import BrokerCalls
from raykafka.cluster.image import ClusterImage, PartitionState
from raykafka.errors import KafkaError, LinkError
from raykafka.types import TopicPartition

METHOD = "log_ends"

logger = logging.getLogger(__name__)


class _Ends(Protocol):
    @property
    def leader_epoch(self) -> int: ...
    @property
    def high_watermark(self) -> int: ...


class LogEndPartition(Protocol):
    """What this reads of a local partition. The ``leader_epoch`` of a leader's ``ends`` is -1 until its high watermark
    has reached the beginning of its epoch."""

    @property
    def is_leader(self) -> bool: ...
    @property
    def state(self) -> PartitionState: ...
    @property
    def ends(self) -> _Ends | None: ...


class LogEndPartitions(Protocol):
    """The partitions with a replica on this broker."""

    def get(self, tp: tuple[str, int]) -> LogEndPartition | None:
        """The local partition, or None."""


class LogEndsServer(Protocol):
    """What this needs of its broker."""

    broker_id: int

    @property
    def image(self) -> ClusterImage: ...
    @property
    def partitions(self) -> LogEndPartitions: ...
    @property
    def broker_calls(self) -> BrokerCalls: ...

    def holds_lease(self) -> bool:
        """Whether this broker may still tell what it leads (rule 15)."""


def log_end(partition: LogEndPartition | None) -> int | None:
    """The high watermark of a partition that is led here, as it was a second ago at most; None while that is not known
    (rule 9)."""
    if partition is None or not partition.is_leader:
        return None
    ends = partition.ends
    return ends.high_watermark if ends is not None and ends.leader_epoch == partition.state.leader_epoch else None


class LogEnds:
    """Asks the leaders of partitions for their high watermarks, and answers other brokers that ask the same."""

    def __init__(self, server: LogEndsServer) -> None:
        self._server = server
        server.broker_calls.answers[METHOD] = self.answer

    async def answer(self, args: dict[str, Any]) -> list[int | None]:
        """``log_ends`` {partitions: [[topic, partition], ...]}: the end of each in that order, None where unknown."""
        return self._local_ends([TopicPartition(*tp) for tp in args["partitions"]])

    async def ends(self, partitions: Iterable[TopicPartition], within_s: float) -> dict[TopicPartition, int | None]:
        """The high watermark of each partition that somebody leads; None where its leader does not know it, no entry
        where the leader's broker has not answered ``within_s`` seconds."""
        by_leader: dict[int, list[TopicPartition]] = {}
        image = self._server.image
        for tp in partitions:
            state = image.partition(tp)
            if state is not None:
                by_leader.setdefault(state.leader, []).append(tp)
        found: dict[TopicPartition, int | None] = {}
        answers = await asyncio.gather(*(self._ends_at(leader, tps, within_s) for leader, tps in by_leader.items()))
        for tps, ends in zip(by_leader.values(), answers, strict=True):
            found.update(zip(tps, ends, strict=False))
        return found

    def _local_ends(self, partitions: Iterable[TopicPartition]) -> list[int | None]:
        if not self._server.holds_lease():
            return [None for _ in partitions]  # others may lead by now
        return [log_end(self._server.partitions.get(tp)) for tp in partitions]

    async def _ends_at(self, leader: int, partitions: Sequence[TopicPartition], within_s: float) -> list[int | None]:
        if leader == self._server.broker_id:
            return self._local_ends(partitions)
        args = {"partitions": [list(tp) for tp in partitions]}
        try:
            answer: list[int | None] = await self._server.broker_calls.call(leader, METHOD, args, within_s)
            return answer
        except (OSError, KafkaError, LinkError, TimeoutError) as error:
            logger.info("broker %d told no log ends: %s", leader, error or type(error).__name__)
            return []
