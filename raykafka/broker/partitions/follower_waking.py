"""Followers wake beside their leader: its broker tells theirs, before its stream comes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from raykafka.broker.partitions.calls import OtherBrokers
from raykafka.broker.partitions.partition_host import PartitionHost
from raykafka.errors import KafkaError, LinkError
from raykafka.process.tasks import TaskSet
from raykafka.types import TopicPartition

METHOD = "wake_follower"
ANSWER_WITHIN_S = 2.0


class FollowerWaking:
    """``get`` gives a local partition. Its work runs in ``tasks``."""

    def __init__(
        self, calls: OtherBrokers, get: Callable[[tuple[str, int]], PartitionHost | None], tasks: TaskSet
    ) -> None:
        self._calls = calls
        self._get = get
        self._tasks = tasks
        calls.answers[METHOD] = self.answer

    def wake(self, tp: TopicPartition, topic_id: uuid.UUID, leader_epoch: int, brokers: Iterable[int]) -> None:
        """Have the replicas at ``brokers`` wake; their leader does in ``leader_epoch``."""
        args = {"topic": tp.topic, "topic_id": str(topic_id), "partition": tp.partition, "epoch": leader_epoch}
        for broker in brokers:
            self._tasks.run(self._wake_at(broker, args))

    async def _wake_at(self, broker: int, args: dict[str, Any]) -> None:
        # nobody has to hear of it: the leader's stream wakes a replica as well, a little later
        with suppress(OSError, KafkaError, LinkError, TimeoutError):
            await self._calls.call(broker, METHOD, args, ANSWER_WITHIN_S)

    async def answer(self, args: dict[str, Any]) -> None:
        """``wake_follower`` {topic, topic_id, partition, epoch}: the leader of that epoch wakes."""
        host = self._get((args["topic"], args["partition"]))
        if host is not None and str(host.topic_id) == args["topic_id"]:
            host.wake_follower(args["epoch"])
