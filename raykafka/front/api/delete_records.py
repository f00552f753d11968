"""DeleteRecords: records below an offset are gone.

Versions: 0-2.
v2: flexible. An offset of -1 is the high watermark. The partition's log starts at the offset then, for every client at
once; files go when all that they hold is below it. Left out: Kafka answers once every replica starts there, we once the
leader does, and its followers hear of it with the next records or within a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.front.serving import PartitionsServer
from raykafka.partition.access import led_partition
from raykafka.partition.appends import ANY_EPOCH
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext
from raykafka.types import INTERNAL_TOPICS

if TYPE_CHECKING:
    from kio.schema.delete_records.v2.request import DeleteRecordsRequest

API_KEY = 21
VERSIONS = (0, 2)
NEEDS = (acl.DELETE_TOPIC,)

_UNKNOWN = -1


async def handle(context: RequestContext, request: DeleteRecordsRequest, server: PartitionsServer) -> Any:
    m = response_module(API_KEY, context.api_version)
    topics = []
    for topic in request.topics:
        allowed = context.allows(acl.DELETE_TOPIC, topic.name)
        partitions = []
        for asked in topic.partitions:
            error, start = ErrorCode.NONE, _UNKNOWN
            try:
                if not allowed:
                    raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
                start = await _delete(server, topic.name, asked.partition_index, asked.offset)
            except KafkaError as failure:
                error = failure.code
            result = m.DeleteRecordsPartitionResult
            partitions.append(
                build(result, partition_index=asked.partition_index, low_watermark=start, error_code=error)
            )
        topics.append(m.DeleteRecordsTopicResult(name=topic.name, partitions=tuple(partitions)))
    return build(m.DeleteRecordsResponse, throttle_time=NO_THROTTLE, topics=tuple(topics))


async def _delete(server: PartitionsServer, topic: str, partition: int, offset: int) -> int:
    """Where the log starts then. Raises KafkaError."""
    access = led_partition(server.partitions, (topic, partition), ANY_EPOCH)
    if topic in INTERNAL_TOPICS:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"{topic} is the brokers' own")
    return await access.delete_records(offset)
