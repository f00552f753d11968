"""Heartbeat: a member is alive, and learns whether its group rebalances.

Versions: 0-4.
v3: group instance id (KIP-345).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.coordinator.classic.events import Heartbeat
from raykafka.coordinator.group_coordinator import Coordinator, new_request
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.heartbeat.v4.request import HeartbeatRequest

API_KEY = 12
VERSIONS = (0, 4)
NEEDS = (acl.READ_GROUP,)


async def handle(context: RequestContext, request: HeartbeatRequest, server: Coordinator) -> Any:
    context.require(acl.READ_GROUP, request.group_id)
    instance_id = request.group_instance_id if context.api_version >= 3 else None
    event = Heartbeat(new_request(), request.member_id, instance_id, request.generation_id)
    error = await server.heartbeat(request.group_id, event)
    m = response_module(API_KEY, context.api_version)
    return build(m.HeartbeatResponse, throttle_time=NO_THROTTLE, error_code=error)
