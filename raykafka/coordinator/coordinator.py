"""The group coordinator of one broker: the partitions of the offsets topic that it leads, and what clients ask of them.

The broker says which partitions these are (``lead`` and ``resign``, each with a leader epoch); a group belongs to the
partition that its id hashes to. Nothing here outlives the process: the offsets topic is the state.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from raykafka.coordinator.classic.events import (
    UNKNOWN_MEMBER,
    Commit,
    CommittedOffset,
    DeleteGroup,
    DeleteOffsets,
    DeleteOffsetsAnswer,
    ExpireOffsets,
    Heartbeat,
    Join,
    JoinAnswer,
    Leave,
    LeaveAnswer,
    Now,
    Sync,
    SyncAnswer,
)
from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.group.group import Group
from raykafka.coordinator.partitioning import partition_for
from raykafka.coordinator.runtime.shard import Shard
from raykafka.coordinator.runtime.topic_log import OffsetsLog
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.types import TopicPartition

logger = logging.getLogger(__name__)


def system_clock() -> Now:
    return Now(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000, time.time_ns() // 1_000_000)


class Coordinator:
    def __init__(self, config: GroupConfig, log: OffsetsLog, clock: Callable[[], Now] = system_clock) -> None:
        self.config = config
        self.clock = clock
        self._log = log
        self._shards: dict[int, Shard] = {}
        self._former_shards: dict[int, Shard] = {}
        self._resigned_epochs: dict[int, int] = {}
        self._partition_count = 0
        self._topics: dict[str, int] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look for expired offsets from time to time."""
        delay_s = self.config.offsets_retention_check_interval_ms / 1000
        self._expiry = asyncio.get_running_loop().call_later(delay_s, self._expire_and_go_on)

    def stop(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        for shard in self._shards.values():
            shard.unload()
        self._shards.clear()

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
        shard = self._shards.get(partition)
        if shard is not None and shard.leader_epoch >= leader_epoch:
            return
        if self._resigned_epochs.get(partition, -1) >= leader_epoch:
            return
        if shard is not None:
            shard.unload()
        predecessor = shard or self._former_shards.pop(partition, None)
        self._partition_count = partition_count
        shard = Shard(partition, leader_epoch, self.config, self._log, self.clock, predecessor)
        self._shards[partition] = shard
        shard.start_loading()

    def resign(self, partition: int, leader_epoch: int) -> None:
        """Stop leading ``partition`` in ``leader_epoch`` or an earlier one."""
        self._resigned_epochs[partition] = max(leader_epoch, self._resigned_epochs.get(partition, -1))
        shard = self._shards.get(partition)
        if shard is not None and shard.leader_epoch <= leader_epoch:
            self._former_shards[partition] = self._shards.pop(partition)
            shard.unload()

    def update_topics(self, topics: Mapping[str, int], deleted: Iterable[str], *, full: bool) -> None:
        known = {} if full or self._topics is None else self._topics
        gone = set(deleted)
        for name in gone:
            known.pop(name, None)
        known.update(topics)
        self._topics = known
        if gone:
            for shard in self._shards.values():
                shard.forget_topics(frozenset(gone))

    def _all_committed(self) -> Iterator[tuple[str, str, int, int]]:
        for shard, group in self._groups():
            if shard.is_loaded:
                for partition, stored in group.offsets.committed.items():
                    yield group.group_id, *partition, stored.value.offset

    def exists(self, partition: TopicPartition) -> bool:
        """Whether the broker knows ``partition``. True for all until it has said what exists."""
        return self._topics is None or 0 <= partition.partition < self._topics.get(partition.topic, 0)

    def status(self) -> dict[str, Any]:
        return {
            "partitions": {
                str(s.partition): {"leader_epoch": s.leader_epoch, "loaded": s.is_loaded, "groups": len(s.groups)}
                for s in self._shards.values()
            }
        }

    async def loaded(self) -> None:
        """Wait until every partition led now is loaded."""
        for shard in list(self._shards.values()):
            await shard.loaded()

    # what clients ask

    def _shard(self, group_id: str | None, *, may_be_empty: bool = False) -> Shard:
        """The loaded shard of a group. Raises KafkaError."""
        if group_id is None or (not group_id and not may_be_empty):
            raise KafkaError(ErrorCode.INVALID_GROUP_ID, "this request needs a group id")
        shard = self._shards.get(partition_for(group_id, self._partition_count)) if self._partition_count else None
        if shard is None:
            raise KafkaError(ErrorCode.NOT_COORDINATOR, f"another broker coordinates group {group_id}")
        if not shard.is_loaded:
            raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, f"group {group_id} is being loaded")
        return shard

    async def join(self, group_id: str, event: Join) -> JoinAnswer:
        try:
            shard = self._shard(group_id)
        except KafkaError as error:
            return JoinAnswer(error.code, event.member_id)
        limits = self.config.group_min_session_timeout_ms, self.config.group_max_session_timeout_ms
        if not limits[0] <= event.session_timeout_ms <= limits[1]:
            return JoinAnswer(ErrorCode.INVALID_SESSION_TIMEOUT, event.member_id)
        if event.member_id != UNKNOWN_MEMBER and group_id not in shard.groups:
            return JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID, event.member_id)
        return await shard.ask(shard.get_or_create(group_id), event)

    async def sync(self, group_id: str, event: Sync) -> SyncAnswer:
        try:
            shard = self._shard(group_id)
        except KafkaError as error:
            if error.code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
                return SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS)  # the rebalance it belongs to is lost: join again
            return SyncAnswer(error.code)
        group = shard.groups.get(group_id)
        return SyncAnswer(ErrorCode.UNKNOWN_MEMBER_ID) if group is None else await shard.ask(group, event)

    async def heartbeat(self, group_id: str, event: Heartbeat) -> ErrorCode:
        try:
            shard = self._shard(group_id)
        except KafkaError as error:
            # Nobody's session ends while its group is being loaded.
            return ErrorCode.NONE if error.code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS else error.code
        group = shard.groups.get(group_id)
        return ErrorCode.UNKNOWN_MEMBER_ID if group is None else await shard.ask(group, event)

    async def leave(self, group_id: str, event: Leave) -> LeaveAnswer:
        try:
            shard = self._shard(group_id)
        except KafkaError as error:
            return LeaveAnswer(error.code)
        group = shard.groups.get(group_id)
        if group is None:
            return LeaveAnswer(ErrorCode.NONE, tuple((m, ErrorCode.UNKNOWN_MEMBER_ID) for m in event.members))
        return await shard.ask(group, event)

    async def commit(self, group_id: str, event: Commit) -> Mapping[TopicPartition, ErrorCode]:
        try:
            shard = self._shard(group_id, may_be_empty=True)
        except KafkaError as error:
            return dict.fromkeys(event.offsets, error.code)
        if group_id not in shard.groups and event.generation >= 0:
            return dict.fromkeys(event.offsets, ErrorCode.ILLEGAL_GENERATION)
        return await shard.ask(shard.get_or_create(group_id), event)

    def committed(
        self, group_id: str, partitions: Iterable[TopicPartition] | None
    ) -> dict[TopicPartition, CommittedOffset | None]:
        """Committed offsets of ``partitions``, or of all that have one. Raises KafkaError."""
        group = self._shard(group_id, may_be_empty=True).groups.get(group_id)
        if partitions is not None:
            return {p: None if group is None else group.offsets.get(p) for p in partitions}
        return {} if group is None else {p: stored.value for p, stored in group.offsets.committed.items()}

    async def delete(self, group_id: str) -> ErrorCode:
        try:
            shard = self._shard(group_id, may_be_empty=True)
        except KafkaError as error:
            return error.code
        group = shard.groups.get(group_id)
        if group is None:
            return ErrorCode.GROUP_ID_NOT_FOUND
        return await shard.ask(group, DeleteGroup(new_request()))

    async def delete_offsets(self, group_id: str, partitions: tuple[TopicPartition, ...]) -> DeleteOffsetsAnswer:
        try:
            shard = self._shard(group_id)
        except KafkaError as error:
            return DeleteOffsetsAnswer(error.code)
        group = shard.groups.get(group_id)
        if group is None:
            return DeleteOffsetsAnswer(ErrorCode.GROUP_ID_NOT_FOUND)
        return await shard.ask(group, DeleteOffsets(new_request(), partitions))

    def describe(self, group_id: str) -> Group | None:
        """The group, None if it is not known. Raises KafkaError."""
        return self._shard(group_id, may_be_empty=True).groups.get(group_id)

    def list(self) -> tuple[ErrorCode, list[Group]]:
        """All groups of loaded partitions, and COORDINATOR_LOAD_IN_PROGRESS while there are others."""
        loading = any(not shard.is_loaded for shard in self._shards.values())
        error = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS if loading else ErrorCode.NONE
        return error, [group for _, group in self._groups()]

    def _groups(self) -> Iterator[tuple[Shard, Group]]:
        for shard in self._shards.values():
            for group in shard.groups.values():
                yield shard, group

    # expiry

    def _expire_and_go_on(self) -> None:
        self.start()
        self.expire_offsets()

    def expire_offsets(self) -> None:
        retention_ms = self.config.offsets_retention_minutes * 60_000
        for shard, group in list(self._groups()):
            shard.step(group, ExpireOffsets(retention_ms))


def new_request() -> asyncio.Future[Any]:
    """What a request event waits with: resolved with its answer."""
    return asyncio.get_running_loop().create_future()
