"""The group coordinator of one broker: what the replica actors tell it and what clients ask of it.

The runtime keeps the partitions of ``__consumer_offsets`` that this broker leads; a group belongs to the partition that
its id hashes to.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

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


class KnownTopic(NamedTuple):
    """A topic of the cluster, as far as a coordinator has to know it."""

    id: str
    partition_count: int


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
        self._image = 0
        self._topics: Mapping[str, KnownTopic] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look for expired offsets from time to time."""
        delay_s = self.config.offsets_retention_check_interval_ms / 1000
        self._expiry = asyncio.get_running_loop().call_later(delay_s, self._expire_and_go_on)

    def stop(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._runtime.stop()

    # what the broker asks

    async def answer_broker(self, method: str, args: dict[str, Any]) -> Any:
        """``committed`` {most}: up to so many committed offsets of loaded groups. ``status`` {}."""
        if method == "committed":
            return {"offsets": list(itertools.islice(self._all_committed(), args["most"]))}
        if method == "status":
            return self.status()
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"a coordinator does not know the call {method} of its broker")

    # what actors tell

    async def hear_actor(self, method: str, args: dict[str, Any]) -> Any:
        """``image`` {image, full, topics, deleted, leads, partitions}, as ``take_image`` has it: ``topics`` are {name:
        [id, partition count]}, ``leads`` [[partition, leader epoch], ...]."""
        if method != "image":
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"a coordinator is not told {method} by actors")
        self.take_image(
            args["image"],
            {name: KnownTopic(*told) for name, told in args["topics"].items()},
            args["deleted"],
            dict(args["leads"]),
            args["partitions"],
            full=args["full"],
        )
        return {}

    def take_image(
        self,
        number: int,
        topics: Mapping[str, KnownTopic],
        deleted: Iterable[str],
        leads: Mapping[int, int],
        partition_count: int,
        *,
        full: bool,
    ) -> None:
        """Go by image ``number`` of the cluster, unless that or a later one was heard of before: each actor tells it.
        ``topics`` and ``deleted`` as in ``update_topics``, against the image before unless ``full``; ``leads`` are the
        leader epochs of all partitions of the coordinator's topic that this broker leads, of ``partition_count``."""
        if number <= self._image:
            return
        self._image = number
        self.update_topics(topics, deleted, full=full)
        for shard in self._runtime:
            if shard.partition not in leads:
                self.resign(shard.partition, shard.leader_epoch)
        for partition, leader_epoch in leads.items():
            self.lead(partition, leader_epoch, partition_count)

    def lead(self, partition: int, leader_epoch: int, partition_count: int) -> None:
        """Lead ``partition`` in ``leader_epoch``. Ignored where a later one, or its end, was heard of before."""
        self._runtime.lead(partition, leader_epoch, partition_count)

    def resign(self, partition: int, leader_epoch: int) -> None:
        """Stop leading ``partition`` in ``leader_epoch`` or an earlier one."""
        self._runtime.resign(partition, leader_epoch)

    def update_topics(self, topics: Mapping[str, KnownTopic], deleted: Iterable[str], *, full: bool) -> None:
        """What exists, so that commits to anything else are refused and offsets of deleted topics dropped: ``topics``
        are all if ``full``, else those that changed. A name with another id is a deleted topic and a new one."""
        before = self._topics or {}
        gone = {name for name, topic in topics.items() if name in before and before[name].id != topic.id}
        gone.update(before.keys() - topics.keys() if full else deleted)
        kept = {} if full else {name: topic for name, topic in before.items() if name not in gone}
        self._topics = {**kept, **topics}
        if gone:
            for shard in self._runtime:
                shard.step_all(ForgetTopics(frozenset(gone)))

    def _all_committed(self) -> Iterator[tuple[str, str, int, int]]:
        for group in self._groups():
            for partition, stored in group.offsets.committed.items():
                yield group.group_id, *partition, stored.value.offset

    def exists(self, partition: TopicPartition) -> bool:
        """Whether there is such a partition. True for all until it was told what exists."""
        if self._topics is None:
            return True
        topic = self._topics.get(partition.topic)
        return topic is not None and 0 <= partition.partition < topic.partition_count

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
