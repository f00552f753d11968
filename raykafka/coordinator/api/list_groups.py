"""ListGroups: the groups that the asked broker coordinates.

Versions: 0-5.
v4: filter by state, and the state in the answer (KIP-518). v5: filter by type and the type, always ``classic``
(KIP-848). Both filters ignore case. Groups that the client may not describe are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.coordinator.group_coordinator import Coordinator
from raykafka.error_code import ErrorCode
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.list_groups.v5.request import ListGroupsRequest

API_KEY = 16
VERSIONS = (0, 5)
NEEDS = (acl.DESCRIBE_CLUSTER, acl.DESCRIBE_GROUP)
CHANGES_NOTHING = True
EVERY_BROKER = True
# librdkafka takes any other code for the final answer
WHILE_UNAVAILABLE = ErrorCode.COORDINATOR_NOT_AVAILABLE
_TYPE = "classic"


async def handle(context: RequestContext, request: ListGroupsRequest, server: Coordinator) -> Any:
    version = context.api_version
    states = {state.lower() for state in request.states_filter} if version >= 4 else set()
    types = {kind.lower() for kind in request.types_filter} if version >= 5 else set()
    error, groups = server.list()
    every_group = context.allows(acl.DESCRIBE_CLUSTER, acl.CLUSTER_NAME)
    m = response_module(API_KEY, version)
    return build(
        m.ListGroupsResponse,
        throttle_time=NO_THROTTLE,
        error_code=error,
        groups=tuple(
            build(
                m.ListedGroup,
                group_id=group.group_id,
                protocol_type=group.protocol_type or "",
                group_state=group.state.value,
                group_type=_TYPE,
            )
            for group in groups
            if (every_group or context.allows(acl.DESCRIBE_GROUP, group.group_id))
            and (not states or group.state.value.lower() in states)
            and (not types or _TYPE in types)
        ),
    )
