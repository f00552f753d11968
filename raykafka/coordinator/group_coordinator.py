"""The group coordinator of one broker: what the broker tells it and what clients ask of it.

The runtime keeps the partitions of ``__consumer_offsets`` that this broker leads; a group belongs to the partition that
its id hashes to.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from raykafka.coordinator.classic.events import Heartbeat, Join, JoinAnswer, Leave, LeaveAnswer, Sync, SyncAnswer
from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.group.events import DeleteGroup, ExpireOffsets, ForgetTopics
from raykafka.coordinator.group.group import Group
from raykafka.coordinator.group.groups import Groups
from raykafka.coordinator.offsets.events import Commit, CommittedOffset, DeleteOffsets, DeleteOffsetsAnswer
from raykafka.coordinator.runtime.runtime import CoordinatorRuntime, system_clock
from raykafka.coordinator.runtime.shard import Shard
from raykafka.coordinator.runtime.topic_log import TopicLog
from raykafka.coordinator.step import Now
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.types import TopicPartition


class Coordinator:
    def __init__(self, config: GroupConfig, log: TopicLog, clock: Callable[[], Now] = system_clock) -> None:
        self.config = config
        self.clock = clock
        self._runtime = CoordinatorRuntime(
            log,
            lambda: Groups(config),
            load_bytes=config.offsets_load_buffer_size,
            append_timeout_ms=config.offsets_commit_timeout_ms,
            clock=clock,
        )
        self._topics: dict[str, int] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look for expired offsets from time to time."""
        delay_s = self.config.offsets_retention_check_interval_ms / 1000
        self._expiry = asyncio.get_running_loop().call_later(delay_s, self._expire_and_go_on)

    def stop(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._runtime.stop()

    # what the broker says

    async def on_call(self, method: str, args: dict[str, Any]) -> Any:
        """``lead`` {partition, leader_epoch, partitions}, ``resign`` {partition, leader_epoch}: both idempotent, and a
        lower epoch than the last is ignored. ``topics`` {full, topics: {name: partition count}, deleted: [names]}: what
        exists, so that commits to anything else are refused and offsets of deleted topics dropped. ``committed``
        {most}: up to so many committed offsets of loaded groups. ``status`` {}."""
        if method == "lead":
            self.lead(args["partition"], args["leader_epoch"], args["partitions"])
        elif method == "resign":
            self.resign(args["partition"], args["leader_epoch"])
        elif method == "topics":
            self.update_topics(args["topics"], args.get("deleted", ()), full=args.get("full", False))
        elif method == "committed":
            return {"offsets": list(itertools.islice(self._all_committed(), args["most"]))}
        elif method == "status":
            return self.status()
        else:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"a coordinator does not know the call {method}")
        return {}

    def lead(self, partition: int, leader_epoch: int, partition_count: int) -> None:
        self._runtime.lead(partition, leader_epoch, partition_count)

    def resign(self, partition: int, leader_epoch: int) -> None:
        """Stop leading ``partition`` in ``leader_epoch`` or an earlier one."""
        self._runtime.resign(partition, leader_epoch)

    def update_topics(self, topics: Mapping[str, int], deleted: Iterable[str], *, full: bool) -> None:
        known = {} if full or self._topics is None else self._topics
        gone = frozenset(deleted)
        for name in gone:
            known.pop(name, None)
        known.update(topics)
        self._topics = known
        if gone:
            for shard in self._runtime:
                shard.step_all(ForgetTopics(gone))

    def _all_committed(self) -> Iterator[tuple[str, str, int, int]]:
        for group in self._groups():
            for partition, stored in group.offsets.committed.items():
                yield group.group_id, *partition, stored.value.offset

    def exists(self, partition: TopicPartition) -> bool:
        """Whether the broker knows ``partition``. True for all until it has said what exists."""
        return self._topics is None or 0 <= partition.partition < self._topics.get(partition.topic, 0)

    def status(self) -> dict[str, Any]:
        return {
            "partitions": {
                str(shard.partition): {
                    "leader_epoch": shard.leader_epoch,
                    "loaded": shard.is_loaded,
                    "groups": len(shard.coordinated.groups),
                }
                for shard in self._runtime
            }
        }

    async def loaded(self) -> None:
        """Wait until every partition led now is loaded."""
        await self._runtime.loaded()

    # what clients ask

    def _shard(self, group_id: str | None, *, may_be_empty: bool = False) -> Shard[Groups]:
        """The loaded shard of a group. Raises KafkaError."""
        if group_id is None or (not group_id and not may_be_empty):
            raise KafkaError(ErrorCode.INVALID_GROUP_ID, "this request needs a group id")
        return self._runtime.shard_of(group_id)

    async def join(self, group_id: str, event: Join) -> JoinAnswer:
        try:
            shard = self._shard(group_id)
        except KafkaError as error:
            return JoinAnswer(error.code, event.member_id)
        return await shard.ask(group_id, event)

    async def sync(self, group_id: str, event: Sync) -> SyncAnswer:
        try:
            shard = self._shard(group_id)
        except KafkaError as error:
            if error.code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
                return SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS)  # the rebalance it belongs to is lost: join again
            return SyncAnswer(error.code)
        return await shard.ask(group_id, event)

    async def heartbeat(self, group_id: str, event: Heartbeat) -> ErrorCode:
        try:
            shard = self._shard(group_id)
        except KafkaError as error:
            # Nobody's session ends while its group is being loaded.
            return ErrorCode.NONE if error.code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS else error.code
        return await shard.ask(group_id, event)

    async def leave(self, group_id: str, event: Leave) -> LeaveAnswer:
        try:
            shard = self._shard(group_id)
        except KafkaError as error:
            return LeaveAnswer(error.code)
        return await shard.ask(group_id, event)

    async def commit(self, group_id: str, event: Commit) -> Mapping[TopicPartition, ErrorCode]:
        try:
            shard = self._shard(group_id, may_be_empty=True)
        except KafkaError as error:
            return dict.fromkeys(event.offsets, error.code)
        return await shard.ask(group_id, event)

    def committed(
        self, group_id: str, partitions: Iterable[TopicPartition] | None
    ) -> dict[TopicPartition, CommittedOffset | None]:
        """Committed offsets of ``partitions``, or of all that have one. Raises KafkaError."""
        group = self.describe(group_id)
        if partitions is not None:
            return {p: None if group is None else group.offsets.get(p) for p in partitions}
        return {} if group is None else {p: stored.value for p, stored in group.offsets.committed.items()}

    async def delete(self, group_id: str) -> ErrorCode:
        try:
            shard = self._shard(group_id, may_be_empty=True)
        except KafkaError as error:
            return error.code
        return await shard.ask(group_id, DeleteGroup(new_request()))

    async def delete_offsets(self, group_id: str, partitions: tuple[TopicPartition, ...]) -> DeleteOffsetsAnswer:
        try:
            shard = self._shard(group_id)
        except KafkaError as error:
            return DeleteOffsetsAnswer(error.code)
        return await shard.ask(group_id, DeleteOffsets(new_request(), partitions))

    def describe(self, group_id: str) -> Group | None:
        """The group, None if it is not known. Raises KafkaError."""
        return self._shard(group_id, may_be_empty=True).coordinated.groups.get(group_id)

    def list(self) -> tuple[ErrorCode, list[Group]]:
        """All groups of loaded partitions, and COORDINATOR_LOAD_IN_PROGRESS while there are others."""
        loading = any(not shard.is_loaded for shard in self._runtime)
        error = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS if loading else ErrorCode.NONE
        return error, list(self._groups())

    def _groups(self) -> Iterator[Group]:
        """The groups of loaded partitions."""
        for shard in self._runtime:
            yield from shard.coordinated.groups.values()

    # expiry

    def _expire_and_go_on(self) -> None:
        self.start()
        self.expire_offsets()

    def expire_offsets(self) -> None:
        event = ExpireOffsets(self.config.offsets_retention_minutes * 60_000)
        for shard in self._runtime:
            if shard.is_loaded:
                shard.step_all(event)


def new_request() -> asyncio.Future[Any]:
    """What a request event waits with: resolved with its answer."""
    return asyncio.get_running_loop().create_future()
