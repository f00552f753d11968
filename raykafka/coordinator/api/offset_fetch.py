"""OffsetFetch: how far a group has read.

Versions: 1-9.
v2: null topics mean all, and errors of the group stand beside the partitions. v5: leader epochs (KIP-320). v7:
require_stable, which asks for nothing until transactions commit offsets. v8: several groups in one request.
v9: member id and epoch of newer kinds of groups, which are not looked at.
A partition without a committed offset is answered with offset -1 and no error.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from raykafka.coordinator.coordinator import Coordinator
from raykafka.coordinator.offsets.events import CommittedOffset
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext
from raykafka.types import TopicPartition

API_KEY = 9
VERSIONS = (1, 9)
_NOTHING_COMMITTED = CommittedOffset(-1)


async def handle(context: RequestContext, request: Any, server: Coordinator) -> Any:
    version = context.api_version
    m = response_module(API_KEY, version)
    if version >= 8:
        groups = []
        for group in request.groups:
            error, topics = _fetch(server, m, group.group_id, group.topics, "Topics", "Partitions")
            groups.append(build(m.OffsetFetchResponseGroup, group_id=group.group_id, topics=topics, error_code=error))
        return build(m.OffsetFetchResponse, throttle_time=NO_THROTTLE, groups=tuple(groups))
    error, topics = _fetch(server, m, request.group_id, request.topics, "Topic", "Partition")
    if error and version < 2:
        topics = _topics(m, {p: None for p in _wanted(request.topics) or ()}, error, "Topic", "Partition")
    return build(m.OffsetFetchResponse, throttle_time=NO_THROTTLE, topics=topics, error_code=error)


def _wanted(topics: Any) -> list[TopicPartition] | None:
    if topics is None:
        return None
    return [TopicPartition(topic.name, index) for topic in topics for index in topic.partition_indexes]


def _fetch(
    server: Coordinator, m: ModuleType, group_id: str, topics: Any, *names: str
) -> tuple[ErrorCode, tuple[Any, ...]]:
    try:
        offsets = server.committed(group_id, _wanted(topics))
    except KafkaError as error:
        return error.code, ()
    return ErrorCode.NONE, _topics(m, offsets, ErrorCode.NONE, *names)


def _topics(
    m: ModuleType, offsets: dict[TopicPartition, CommittedOffset | None], error: ErrorCode, topic: str, partition: str
) -> tuple[Any, ...]:
    topic_class = getattr(m, f"OffsetFetchResponse{topic}")
    partition_class = getattr(m, f"OffsetFetchResponse{partition}")
    by_topic: dict[str, list[Any]] = {}
    for (name, index), value in offsets.items():
        committed = value or _NOTHING_COMMITTED
        by_topic.setdefault(name, []).append(
            build(
                partition_class,
                partition_index=index,
                committed_offset=committed.offset,
                committed_leader_epoch=committed.leader_epoch,
                metadata=committed.metadata,
                error_code=error,
            )
        )
    return tuple(build(topic_class, name=name, partitions=tuple(found)) for name, found in by_topic.items())


def error_response(context: RequestContext, request: Any, error: KafkaError) -> Any:
    m = response_module(API_KEY, context.api_version)
    if context.api_version >= 8:
        groups = tuple(
            build(m.OffsetFetchResponseGroup, group_id=group.group_id, topics=(), error_code=error.code)
            for group in request.groups
        )
        return build(m.OffsetFetchResponse, throttle_time=NO_THROTTLE, groups=groups)
    topics: tuple[Any, ...] = ()
    if context.api_version < 2:
        topics = _topics(m, {p: None for p in _wanted(request.topics) or ()}, error.code, "Topic", "Partition")
    return build(m.OffsetFetchResponse, throttle_time=NO_THROTTLE, topics=topics, error_code=error.code)
