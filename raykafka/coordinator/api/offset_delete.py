"""OffsetDelete: forget a group's offsets of some partitions.

Versions: 0.
A group with members may lose only offsets of topics that it does not subscribe to (KIP-496).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.coordinator.api.by_partition import answered, partitions_of, refusals
from raykafka.coordinator.group_coordinator import Coordinator
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.offset_delete.v0.request import OffsetDeleteRequest

API_KEY = 47
VERSIONS = (0, 0)
NEEDS = (acl.DELETE_GROUP, acl.READ_TOPIC)


async def handle(context: RequestContext, request: OffsetDeleteRequest, server: Coordinator) -> Any:
    context.require(acl.DELETE_GROUP, request.group_id)
    asked = partitions_of(request)
    codes = refusals(context, server, asked)
    answer = await server.delete_offsets(request.group_id, tuple(p for p in asked if p not in codes))
    codes.update(answer.partitions)
    m = response_module(API_KEY, context.api_version)
    topics = ()
    if not answer.error:
        topics = answered(m.OffsetDeleteResponseTopic, m.OffsetDeleteResponsePartition, request, codes)
    return build(m.OffsetDeleteResponse, error_code=answer.error, throttle_time=NO_THROTTLE, topics=topics)
