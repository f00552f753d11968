"""DeleteGroups: forget empty groups and their offsets.

Versions: 0-2.
Answered after the tombstones are committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.coordinator.group_coordinator import Coordinator
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.delete_groups.v2.request import DeleteGroupsRequest

API_KEY = 42
VERSIONS = (0, 2)
NEEDS = (acl.DELETE_GROUP,)


async def handle(context: RequestContext, request: DeleteGroupsRequest, server: Coordinator) -> Any:
    m = response_module(API_KEY, context.api_version)
    results = []
    for group_id in dict.fromkeys(request.groups_names):
        code = ErrorCode.GROUP_AUTHORIZATION_FAILED
        if context.allows(acl.DELETE_GROUP, group_id):
            code = await server.delete(group_id)
        results.append(build(m.DeletableGroupResult, group_id=group_id, error_code=code))
    return build(m.DeleteGroupsResponse, throttle_time=NO_THROTTLE, results=tuple(results))


def error_response(context: RequestContext, request: DeleteGroupsRequest, error: KafkaError) -> Any:
    m = response_module(API_KEY, context.api_version)
    results = tuple(
        build(m.DeletableGroupResult, group_id=group_id, error_code=error.code)
        for group_id in dict.fromkeys(request.groups_names)
    )
    return build(m.DeleteGroupsResponse, throttle_time=NO_THROTTLE, results=results)
