"""LeaveGroup: members go, or an administrator removes static ones.

Versions: 0-5.
v0-2: one member, whose error is the answer's. v3: several, by member id or by group instance id (KIP-345).
v5: a reason for each, which is only logged.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from raykafka.coordinator.classic.events import Leave, Leaving
from raykafka.coordinator.group_coordinator import Coordinator, new_request
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.leave_group.v2.request import LeaveGroupRequest as LeaveGroupRequestV2
    from kio.schema.leave_group.v5.request import LeaveGroupRequest

API_KEY = 13
VERSIONS = (0, 5)
NEEDS = (acl.READ_GROUP,)

logger = logging.getLogger(__name__)


async def handle(context: RequestContext, request: LeaveGroupRequest, server: Coordinator) -> Any:
    context.require(acl.READ_GROUP, request.group_id)
    version = context.api_version
    if version >= 3:
        leaving = tuple(Leaving(member.member_id, member.group_instance_id) for member in request.members)
    else:
        leaving = (Leaving(cast("LeaveGroupRequestV2", request).member_id, None),)
    if version >= 5:
        for member in filter(lambda m: m.reason, request.members):
            logger.info("member %r of group %s leaves: %s", member.member_id, request.group_id, member.reason)
    answer = await server.leave(request.group_id, Leave(new_request(), leaving))
    error = answer.error
    if version < 3 and not error and answer.members:
        error = answer.members[0][1]
    m = response_module(API_KEY, version)
    members = ()
    if version >= 3:
        members = tuple(
            build(
                m.MemberResponse,
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                error_code=code,
            )
            for member, code in answer.members
        )
    return build(m.LeaveGroupResponse, throttle_time=NO_THROTTLE, error_code=error, members=members)
