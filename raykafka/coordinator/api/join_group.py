"""JoinGroup: become a member of a group, or stay one through a rebalance.

Versions: 0-9.
v0: no rebalance timeout of its own, the session timeout serves. v4: the first join of a dynamic member gets
MEMBER_ID_REQUIRED and its id (KIP-394). v5: static members by group instance id (KIP-345). v7: the protocol type is in
the answer, and the protocol's name may be null. v8: a reason, which is only logged. v9: a returning static leader is
told to skip the assignment (KIP-814).
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any

from raykafka.coordinator.classic.events import Join
from raykafka.coordinator.group_coordinator import Coordinator, new_request
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, milliseconds, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.join_group.v9.request import JoinGroupRequest

API_KEY = 11
VERSIONS = (0, 9)
NEEDS = (acl.READ_GROUP,)

logger = logging.getLogger(__name__)


async def handle(context: RequestContext, request: JoinGroupRequest, server: Coordinator) -> Any:
    context.require(acl.READ_GROUP, request.group_id)
    version = context.api_version
    session_timeout_ms = milliseconds(request.session_timeout)
    instance_id = request.group_instance_id if version >= 5 else None
    reason = request.reason if version >= 8 else None
    if reason:
        logger.info("member %r of group %s joins: %s", request.member_id, request.group_id, reason)
    answer = await server.join(
        request.group_id,
        Join(
            new_request(),
            request.member_id,
            instance_id,
            f"{instance_id or context.client_id or ''}-{uuid.uuid4()}",
            context.client_id or "",
            f"/{context.client_host}",
            session_timeout_ms,
            milliseconds(request.rebalance_timeout) if version >= 1 else session_timeout_ms,
            request.protocol_type,
            tuple((protocol.name, bytes(protocol.metadata)) for protocol in request.protocols),
            require_known_member_id=version >= 4 and instance_id is None,
            can_skip_assignment=version >= 9,
        ),
    )
    m = response_module(API_KEY, version)
    return build(
        m.JoinGroupResponse,
        throttle_time=NO_THROTTLE,
        error_code=answer.error,
        generation_id=answer.generation,
        protocol_type=answer.protocol_type,
        protocol_name=answer.protocol if version >= 7 else answer.protocol or "",
        leader=answer.leader,
        skip_assignment=answer.skip_assignment,
        member_id=answer.member_id,
        members=tuple(
            build(
                m.JoinGroupResponseMember,
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                metadata=member.metadata,
            )
            for member in answer.members
        ),
    )
