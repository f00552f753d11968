"""What the APIs share whose requests name partitions, and whose answers have an error code for each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from raykafka.coordinator.group_coordinator import Coordinator
from raykafka.error_code import ErrorCode
from raykafka.protocol import acl
from raykafka.protocol.codec import build
from raykafka.protocol.context import RequestContext
from raykafka.types import TopicPartition

if TYPE_CHECKING:
    from kio.schema.offset_commit.v9.request import OffsetCommitRequest
    from kio.schema.offset_delete.v0.request import OffsetDeleteRequest


NamesPartitions: TypeAlias = "OffsetCommitRequest | OffsetDeleteRequest"


def partitions_of(request: NamesPartitions) -> list[TopicPartition]:
    """The partitions that a request names, in its order."""
    return [TopicPartition(t.name, p.partition_index) for t in request.topics for p in t.partitions]


def refusals(
    context: RequestContext, server: Coordinator, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, ErrorCode]:
    """Those of ``partitions`` whose topic the client may not read, or that do not exist, with the code for each."""
    found: dict[TopicPartition, ErrorCode] = {}
    readable: dict[str, bool] = {}
    for partition in partitions:
        topic = partition.topic
        if topic not in readable:
            readable[topic] = context.allows(acl.READ_TOPIC, topic)
        if not readable[topic]:
            found[partition] = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        elif not server.exists(partition):
            found[partition] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return found


def answered(
    topic_class: type, partition_class: type, request: NamesPartitions, codes: Mapping[TopicPartition, ErrorCode]
) -> Any:
    """The topics of the response: each partition that the request names, with its code."""
    return tuple(
        build(
            topic_class,
            name=topic.name,
            partitions=tuple(
                build(
                    partition_class,
                    partition_index=partition.partition_index,
                    error_code=codes[TopicPartition(topic.name, partition.partition_index)],
                )
                for partition in topic.partitions
            ),
        )
        for topic in request.topics
    )
