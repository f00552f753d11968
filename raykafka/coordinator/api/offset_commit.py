"""OffsetCommit: write down how far a group has read.

Versions: 2-9.
v2-4: a retention time that overrides the cluster's. v6: the leader epoch of the last record read (KIP-320). v7: group
instance id (KIP-345). v9: errors of newer kinds of groups, which are not served here.
Partitions that do not exist are refused one by one; the others are committed in one batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from raykafka.coordinator.api.by_partition import answered, partitions_of, refusals
from raykafka.coordinator.group_coordinator import Coordinator, new_request
from raykafka.coordinator.offsets.events import Commit, CommittedOffset
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, milliseconds, response_module
from raykafka.protocol.context import RequestContext
from raykafka.types import NO_EPOCH, TopicPartition

if TYPE_CHECKING:
    from kio.schema.offset_commit.v4.request import OffsetCommitRequest as OffsetCommitRequestV4
    from kio.schema.offset_commit.v9.request import OffsetCommitRequest

API_KEY = 8
VERSIONS = (2, 9)
NEEDS = (acl.READ_GROUP, acl.READ_TOPIC)
_DEFAULT_RETENTION_MS = -1


async def handle(context: RequestContext, request: OffsetCommitRequest, server: Coordinator) -> Any:
    context.require(acl.READ_GROUP, request.group_id)
    version = context.api_version
    now_ms = server.clock().wall_ms
    retention_ms = _DEFAULT_RETENTION_MS
    if version <= 4:
        retention_ms = milliseconds(cast("OffsetCommitRequestV4", request).retention_time)
    expires_ms = None if retention_ms == _DEFAULT_RETENTION_MS else now_ms + retention_ms
    offsets = {
        TopicPartition(topic.name, partition.partition_index): CommittedOffset(
            partition.committed_offset,
            partition.committed_leader_epoch if version >= 6 else NO_EPOCH,
            partition.committed_metadata or "",
            now_ms,
            expires_ms,
        )
        for topic in request.topics
        for partition in topic.partitions
    }
    codes = refusals(context, server, offsets)
    wanted = {p: value for p, value in offsets.items() if p not in codes}
    if wanted:
        commit = Commit(
            new_request(),
            request.member_id,
            request.group_instance_id if version >= 7 else None,
            request.generation_id_or_member_epoch,
            wanted,
        )
        codes.update(await server.commit(request.group_id, commit))
    return _response(context, request, codes)


def _response(context: RequestContext, request: OffsetCommitRequest, codes: Mapping[TopicPartition, ErrorCode]) -> Any:
    m = response_module(API_KEY, context.api_version)
    topics = answered(m.OffsetCommitResponseTopic, m.OffsetCommitResponsePartition, request, codes)
    return build(m.OffsetCommitResponse, throttle_time=NO_THROTTLE, topics=topics)


def error_response(context: RequestContext, request: OffsetCommitRequest, error: KafkaError) -> Any:
    return _response(context, request, dict.fromkeys(partitions_of(request), error.code))
