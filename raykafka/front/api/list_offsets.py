"""ListOffsets: an offset by its timestamp, or by one of the special timestamps.

Versions: 1-9.
v2: isolation level. v4: leader epochs. v5: OFFSET_NOT_AVAILABLE (LEADER_NOT_AVAILABLE before). v6: flexible. v7: the
record with the largest timestamp (-3). v8: the earliest offset on local disk (-4), which is the earliest here. v9: the
latest offset in tiered storage (-5), which is none here.

The latest offset (-1) is the high watermark, or the last stable offset for a client that reads committed records only.
A new leader does not tell it before its high watermark has reached the start of its epoch (rule 9).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.front.serving import PartitionsServer
from raykafka.log import FoundOffset
from raykafka.partition.access import LogAccess, PartitionAccess, led_partition
from raykafka.partition.appends import ANY_EPOCH
from raykafka.partition.view import View
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext
from raykafka.types import LogPosition

if TYPE_CHECKING:
    from kio.schema.list_offsets.v9.request import ListOffsetsRequest

API_KEY = 2
VERSIONS = (1, 9)
NEEDS = (acl.DESCRIBE_TOPIC,)

LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3
EARLIEST_LOCAL = -4
LATEST_TIERED = -5
_SPECIAL_SINCE = {LATEST: 1, EARLIEST: 1, MAX_TIMESTAMP: 7, EARLIEST_LOCAL: 8, LATEST_TIERED: 9}
_UNAVAILABLE_SINCE = 5
_READ_COMMITTED = 1
_NOTHING = FoundOffset(-1, -1, -1)


class _End(NamedTuple):
    """How far a client may look."""

    offset: int
    position: LogPosition


async def handle(context: RequestContext, request: ListOffsetsRequest, server: PartitionsServer) -> Any:
    m = response_module(API_KEY, context.api_version)
    committed = getattr(request, "isolation_level", 0) == _READ_COMMITTED
    named = Counter((topic.name, p.partition_index) for topic in request.topics for p in topic.partitions)
    topics = []
    for topic in request.topics:
        allowed = context.allows(acl.DESCRIBE_TOPIC, topic.name)
        partitions = []
        for asked in topic.partitions:
            error, found = ErrorCode.NONE, _NOTHING
            try:
                if not allowed:
                    raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
                if named[topic.name, asked.partition_index] > 1:
                    raise KafkaError(ErrorCode.INVALID_REQUEST, "a partition is named twice")
                tp, epoch = (topic.name, asked.partition_index), getattr(asked, "current_leader_epoch", ANY_EPOCH)
                access = led_partition(server.partitions, tp, epoch)
                found = await _find(access, asked.timestamp, committed, context.api_version)
            except KafkaError as failure:
                error = failure.code
            partitions.append(
                build(
                    m.ListOffsetsPartitionResponse,
                    partition_index=asked.partition_index,
                    error_code=error,
                    timestamp=found.timestamp,
                    offset=found.offset,
                    leader_epoch=found.leader_epoch,
                )
            )
        topics.append(m.ListOffsetsTopicResponse(name=topic.name, partitions=tuple(partitions)))
    return build(m.ListOffsetsResponse, throttle_time=NO_THROTTLE, topics=tuple(topics))


async def _find(access: PartitionAccess, timestamp: int, committed: bool, version: int) -> FoundOffset:
    """What was asked for; offset -1 where there is no such record. Raises KafkaError."""
    if timestamp < 0 and version < _SPECIAL_SINCE.get(timestamp, 1 << 15):
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION)
    view = access.log.view
    if view is None:
        raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, "the log is being opened")
    if timestamp == LATEST_TIERED:
        return _NOTHING
    if timestamp in (EARLIEST, EARLIEST_LOCAL):
        return FoundOffset(-1, view.log_start_offset, await _epoch_at_start(access.log, view))
    unsettled = view.leader_epoch != access.state.leader_epoch or view.high_watermark < view.epoch_start_offset
    unavailable = ErrorCode.OFFSET_NOT_AVAILABLE if version >= _UNAVAILABLE_SINCE else ErrorCode.LEADER_NOT_AVAILABLE
    end = (
        _End(view.last_stable_offset, view.last_stable_position)
        if committed
        else _End(view.high_watermark, view.high_watermark_position)
    )
    if timestamp == LATEST:
        if unsettled:
            raise KafkaError(unavailable)
        return FoundOffset(-1, end.offset, view.leader_epoch)
    found = None
    if end.offset > view.log_start_offset:
        found = await _search(access.log, timestamp, end, view.log_start_offset)
    if found is None and unsettled:
        raise KafkaError(unavailable)
    return found or _NOTHING


async def _search(log: LogAccess, timestamp: int, end: _End, log_start: int) -> FoundOffset | None:
    if timestamp == MAX_TIMESTAMP:
        return await log.offset_of_max_timestamp(end.position, log_start)
    return await log.offset_for_timestamp(timestamp, end.position, log_start)


async def _epoch_at_start(log: LogAccess, view: View) -> int:
    """The epoch of the first record, or -1 where the log's epochs do not reach back so far."""
    epoch = await log.epoch_at(view.log_start_offset)
    return view.leader_epoch if epoch is None else epoch
