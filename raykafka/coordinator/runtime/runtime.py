"""The partitions of one internal topic that this broker leads, as its broker tells.

Nothing here outlives the process: the topic is the state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Generic

from raykafka.cluster.coordinator_partition import partition_for
from raykafka.coordinator.runtime.shard import C, Shard, Surroundings
from raykafka.coordinator.runtime.topic_log import TopicLog
from raykafka.coordinator.step import Now
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.process.clock import boot_clock_ms
from raykafka.process.tasks import TaskSet


def system_clock() -> Now:
    return Now(boot_clock_ms(), time.time_ns() // 1_000_000)


class CoordinatorRuntime(Generic[C]):
    """``make`` makes what a partition coordinates, empty. A key belongs to the partition that it hashes to."""

    def __init__(
        self,
        log: TopicLog,
        make: Callable[[], C],
        *,
        load_bytes: int,
        append_timeout_ms: int,
        clock: Callable[[], Now] = system_clock,
    ) -> None:
        """``load_bytes`` and ``append_timeout_ms`` are as in the shards' Surroundings."""
        self._make = make
        self._tasks = TaskSet(f"coordinator of {log.topic}")
        self._around = Surroundings(log, clock, self._tasks, load_bytes, append_timeout_ms)
        self._shards: dict[int, Shard[C]] = {}
        self._former_shards: dict[int, Shard[C]] = {}
        self._resigned_epochs: dict[int, int] = {}
        self._partition_count = 0

    def __iter__(self) -> Iterator[Shard[C]]:
        """The partitions led now, loaded or not."""
        return iter(tuple(self._shards.values()))

    def lead(self, partition: int, leader_epoch: int, partition_count: int) -> None:
        """Lead ``partition`` from now on. Ignored where a later epoch, or the end of this one, was heard of before."""
        shard = self._shards.get(partition)
        if shard is not None and shard.leader_epoch >= leader_epoch:
            return
        if self._resigned_epochs.get(partition, -1) >= leader_epoch:
            return
        if shard is not None:
            shard.unload()
        predecessor = shard or self._former_shards.pop(partition, None)
        self._partition_count = partition_count
        shard = Shard(partition, leader_epoch, self._make(), self._around, predecessor)
        self._shards[partition] = shard
        shard.start_loading()

    def resign(self, partition: int, leader_epoch: int) -> None:
        """Stop leading ``partition`` in ``leader_epoch`` or an earlier one."""
        self._resigned_epochs[partition] = max(leader_epoch, self._resigned_epochs.get(partition, -1))
        shard = self._shards.get(partition)
        if shard is not None and shard.leader_epoch <= leader_epoch:
            self._former_shards[partition] = self._shards.pop(partition)
            shard.unload()

    def stop(self) -> None:
        for shard in self._shards.values():
            shard.unload()
        self._shards.clear()

    async def loaded(self) -> None:
        """Wait until every partition led now is loaded."""
        for shard in self:
            await shard.loaded()

    def shard_of(self, key: str) -> Shard[C]:
        """The loaded shard of ``key``. Raises KafkaError: NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS."""
        shard = self._shards.get(partition_for(key, self._partition_count)) if self._partition_count else None
        if shard is None:
            raise KafkaError(ErrorCode.NOT_COORDINATOR, f"another broker coordinates {key}")
        if not shard.is_loaded:
            raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, f"{key} is being loaded")
        return shard
