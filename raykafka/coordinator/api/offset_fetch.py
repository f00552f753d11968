"""OffsetFetch: how far a group has read.

Versions: 1-9.
v2: null topics mean all, and errors of the group stand beside the partitions. v5: leader epochs (KIP-320). v7:
require_stable, which asks for nothing until transactions commit offsets. v8: several groups in one request.
v9: member id and epoch of newer kinds of groups, which are not looked at.
A partition without a committed offset is answered with offset -1 and no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from raykafka.coordinator.group_coordinator import Coordinator
from raykafka.coordinator.offsets.events import CommittedOffset
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext
from raykafka.types import TopicPartition

if TYPE_CHECKING:
    from kio.schema.offset_fetch.v7.request import OffsetFetchRequest as OffsetFetchRequestV7
    from kio.schema.offset_fetch.v7.request import OffsetFetchRequestTopic
    from kio.schema.offset_fetch.v9.request import OffsetFetchRequest, OffsetFetchRequestTopics

API_KEY = 9
VERSIONS = (1, 9)
NEEDS = (acl.DESCRIBE_GROUP, acl.DESCRIBE_TOPIC)
CHANGES_NOTHING = True
# librdkafka takes any other code for the final answer
WHILE_UNAVAILABLE = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
# v8 has the same fields in another class
Topics: TypeAlias = "tuple[OffsetFetchRequestTopic, ...] | tuple[OffsetFetchRequestTopics, ...]"

_NOTHING_COMMITTED = CommittedOffset(-1)


async def handle(context: RequestContext, request: OffsetFetchRequest, server: Coordinator) -> Any:
    version = context.api_version
    m = response_module(API_KEY, version)
    if version >= 8:
        groups = []
        for group in request.groups:
            error, topics = _fetch(context, server, m, group.group_id, group.topics, "Topics", "Partitions")
            groups.append(build(m.OffsetFetchResponseGroup, group_id=group.group_id, topics=topics, error_code=error))
        return build(m.OffsetFetchResponse, throttle_time=NO_THROTTLE, groups=tuple(groups))
    one = cast("OffsetFetchRequestV7", request)
    error, topics = _fetch(context, server, m, one.group_id, one.topics, "Topic", "Partition")
    if error and version < 2:
        topics = _topics(m, {p: None for p in _wanted(one.topics) or ()}, error, "Topic", "Partition")
    return build(m.OffsetFetchResponse, throttle_time=NO_THROTTLE, topics=topics, error_code=error)


def _wanted(topics: Topics | None) -> list[TopicPartition] | None:
    if topics is None:
        return None
    return [TopicPartition(topic.name, index) for topic in topics for index in topic.partition_indexes]


def _fetch(
    context: RequestContext, server: Coordinator, m: ModuleType, group_id: str, topics: Topics | None, *names: str
) -> tuple[ErrorCode, tuple[Any, ...]]:
    """The error of the group, and the response's topics. Of all topics, those that the client may not describe are
    left out; of topics that it names, they are refused."""
    wanted = _wanted(topics)
    try:
        context.require(acl.DESCRIBE_GROUP, group_id)
        offsets = server.committed(group_id, wanted)
    except KafkaError as error:
        return error.code, ()
    shown = {topic for topic in {p.topic for p in offsets} if context.allows(acl.DESCRIBE_TOPIC, topic)}
    answered = _topics(m, {p: value for p, value in offsets.items() if p.topic in shown}, ErrorCode.NONE, *names)
    if wanted is not None:
        hidden = {p: None for p in wanted if p.topic not in shown}
        answered += _topics(m, hidden, ErrorCode.TOPIC_AUTHORIZATION_FAILED, *names)
    return ErrorCode.NONE, answered


def _topics(
    m: ModuleType,
    offsets: Mapping[TopicPartition, CommittedOffset | None],
    error: ErrorCode,
    topic: str,
    partition: str,
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


def error_response(context: RequestContext, request: OffsetFetchRequest, error: KafkaError) -> Any:
    m = response_module(API_KEY, context.api_version)
    if context.api_version >= 8:
        groups = tuple(
            build(m.OffsetFetchResponseGroup, group_id=group.group_id, topics=(), error_code=error.code)
            for group in request.groups
        )
        return build(m.OffsetFetchResponse, throttle_time=NO_THROTTLE, groups=groups)
    topics: tuple[Any, ...] = ()
    if context.api_version < 2:
        wanted = _wanted(cast("OffsetFetchRequestV7", request).topics) or ()
        topics = _topics(m, dict.fromkeys(wanted), error.code, "Topic", "Partition")
    return build(m.OffsetFetchResponse, throttle_time=NO_THROTTLE, topics=topics, error_code=error.code)
