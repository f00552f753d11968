"""Leaders' connections that wait for the replica process of their follower (rules 3, 11)."""

from __future__ import annotations

import logging

from raykafka.broker.partitions.replica_process import ReplicaChild
from raykafka.errors import LinkError
from raykafka.link import Link
from raykafka.process.tasks import TaskSet
from raykafka.types import TopicPartition

logger = logging.getLogger(__name__)


class WaitingStreams:
    """Of one partition. Each names the leader epoch that its follower has to know of before it may take it."""

    def __init__(self, tp: TopicPartition, tasks: TaskSet) -> None:
        self._tp = tp
        self._tasks = tasks
        self._streams: dict[Link, int] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, link: Link, leader_epoch: int) -> None:
        self._streams[link] = leader_epoch
        link.ended.add_done_callback(lambda _: self._streams.pop(link, None))

    def hand_over(self, child: ReplicaChild, known_epoch: int) -> None:
        """Give ``child`` the connections of leaders up to ``known_epoch``, which it knows of."""
        for link, leader_epoch in list(self._streams.items()):
            if leader_epoch <= known_epoch:
                del self._streams[link]
                self._tasks.run(self._hand_over(link, child))

    async def _hand_over(self, link: Link, child: ReplicaChild) -> None:
        try:
            with await link.detach() as connection:
                child.hand_over(connection, link.peer)
        except (LinkError, OSError) as error:
            logger.warning("%s: a leader's connection could not be handed over: %s", self._tp, error)

    def close(self) -> None:
        for stream in list(self._streams):
            stream.close()
