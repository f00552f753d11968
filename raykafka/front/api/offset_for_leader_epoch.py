"""OffsetForLeaderEpoch: where the records of a leader epoch end, so that a client notices when its log was cut.

Versions: 2-4.
v2: the client's current leader epoch, for fencing. v3: the id of the replica that asks, which is of no use here. v4:
flexible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.front.serving import PartitionsServer
from raykafka.log import EpochEntry
from raykafka.partition.access import PartitionAccess, led_partition
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.offset_for_leader_epoch.v4.request import OffsetForLeaderEpochRequest

API_KEY = 23
VERSIONS = (2, 4)
NEEDS = (acl.DESCRIBE_TOPIC,)

_UNDEFINED = EpochEntry(-1, -1)


async def handle(context: RequestContext, request: OffsetForLeaderEpochRequest, server: PartitionsServer) -> Any:
    m = response_module(API_KEY, context.api_version)
    topics = []
    for topic in request.topics:
        allowed = context.allows(acl.DESCRIBE_TOPIC, topic.topic)
        partitions = []
        for asked in topic.partitions:
            error, found = ErrorCode.NONE, _UNDEFINED
            try:
                if not allowed:
                    raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
                tp = (topic.topic, asked.partition)
                access = led_partition(server.partitions, tp, asked.current_leader_epoch)
                found = await end_of_epoch(access, asked.leader_epoch)
            except KafkaError as failure:
                error = failure.code
            partitions.append(
                build(
                    m.EpochEndOffset,
                    error_code=error,
                    partition=asked.partition,
                    leader_epoch=found.epoch,
                    end_offset=found.start_offset,
                )
            )
        topics.append(m.OffsetForLeaderTopicResult(topic=topic.topic, partitions=tuple(partitions)))
    return build(m.OffsetForLeaderEpochResponse, throttle_time=NO_THROTTLE, topics=tuple(topics))


async def end_of_epoch(access: PartitionAccess, epoch: int) -> EpochEntry:
    """The largest epoch not above ``epoch`` that the log knows, and the offset behind its last record."""
    view = access.log.view
    # A view from before this broker led may end before what consumers have read: they would take that for a truncation.
    if view is None or view.leader_epoch != access.state.leader_epoch:
        raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, "the log is being opened, or its replica does not lead yet")
    if epoch < 0 or epoch > view.leader_epoch:
        return _UNDEFINED
    found = None if epoch == view.leader_epoch else await access.log.end_of_epoch(epoch, view.log_end_offset)
    return EpochEntry(epoch, view.log_end_offset) if found is None else found
