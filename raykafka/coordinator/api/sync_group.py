"""SyncGroup: the leader hands in who gets what, and every member learns its part.

Versions: 0-5.
v3: group instance id (KIP-345). v5: protocol type and name must be there, and must be the group's (KIP-559).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.coordinator.classic.events import Sync, SyncAnswer
from raykafka.coordinator.group_coordinator import Coordinator, new_request
from raykafka.error_code import ErrorCode
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.sync_group.v5.request import SyncGroupRequest

API_KEY = 14
VERSIONS = (0, 5)
NEEDS = (acl.READ_GROUP,)


async def handle(context: RequestContext, request: SyncGroupRequest, server: Coordinator) -> Any:
    context.require(acl.READ_GROUP, request.group_id)
    version = context.api_version
    protocol_type, protocol = (request.protocol_type, request.protocol_name) if version >= 5 else (None, None)
    if version >= 5 and (protocol_type is None or protocol is None):
        answer = SyncAnswer(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    else:
        answer = await server.sync(
            request.group_id,
            Sync(
                new_request(),
                request.member_id,
                request.group_instance_id if version >= 3 else None,
                request.generation_id,
                protocol_type,
                protocol,
                {a.member_id: bytes(a.assignment) for a in request.assignments},
            ),
        )
    return build(
        response_module(API_KEY, version).SyncGroupResponse,
        throttle_time=NO_THROTTLE,
        error_code=answer.error,
        protocol_type=answer.protocol_type,
        protocol_name=answer.protocol,
        assignment=answer.assignment,
    )
