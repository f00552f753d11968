"""Where the logs of partitions end, as their leaders know it: asked between brokers, for the lag of consumer groups."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from raykafka.broker.neighbourhood.broker_calls import BrokerCalls
from raykafka.cluster.image import ClusterImage
from raykafka.errors import KafkaError, LinkError
from raykafka.types import TopicPartition

METHOD = "log_ends"
_LOCALLY_WITHIN_S = 0.3

logger = logging.getLogger(__name__)


class LocalEnds(Protocol):
    """The replica actors of this broker."""

    async def ends(self, partitions: Iterable[TopicPartition], within_s: float) -> Mapping[TopicPartition, int]:
        """The high watermarks of those partitions that are led here, as their replicas know them; none of those that
        are not known (rule 9)."""


class LogEndsServer(Protocol):
    """What this needs of its broker."""

    broker_id: int

    @property
    def image(self) -> ClusterImage: ...
    @property
    def local_ends(self) -> LocalEnds: ...
    @property
    def broker_calls(self) -> BrokerCalls: ...

    def holds_lease(self) -> bool:
        """Whether this broker may still tell what it leads (rule 15)."""


class LogEnds:
    """Asks the leaders of partitions for their high watermarks, and answers other brokers that ask the same."""

    def __init__(self, server: LogEndsServer) -> None:
        self._server = server
        server.broker_calls.answers[METHOD] = self.answer

    async def answer(self, args: dict[str, Any]) -> list[int | None]:
        """``log_ends`` {partitions: [[topic, partition], ...]}: the end of each in that order, None where unknown."""
        return await self._local_ends([TopicPartition(*tp) for tp in args["partitions"]], _LOCALLY_WITHIN_S)

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

    async def _local_ends(self, partitions: Sequence[TopicPartition], within_s: float) -> list[int | None]:
        if not self._server.holds_lease():
            return [None for _ in partitions]  # others may lead by now
        found = await self._server.local_ends.ends(partitions, within_s)
        return [found.get(tp) for tp in partitions]

    async def _ends_at(self, leader: int, partitions: Sequence[TopicPartition], within_s: float) -> list[int | None]:
        if leader == self._server.broker_id:
            return await self._local_ends(partitions, within_s)
        args = {"partitions": [list(tp) for tp in partitions]}
        try:
            answer: list[int | None] = await self._server.broker_calls.call(leader, METHOD, args, within_s)
            return answer
        except (OSError, KafkaError, LinkError, TimeoutError) as error:
            logger.info("broker %d told no log ends: %s", leader, error or type(error).__name__)
            return []
