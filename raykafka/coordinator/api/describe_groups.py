"""DescribeGroups: state, members and assignments of groups that the asked broker coordinates.

Versions: 0-5.
v3: authorized operations. v4: group instance ids (KIP-345). A group that is not known is answered as ``Dead`` without
an error; protocol, subscriptions and assignments are shown for a stable group only.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from raykafka.coordinator.classic.membership import Member
from raykafka.coordinator.classic.rebalance import State
from raykafka.coordinator.group.group import Group
from raykafka.coordinator.group_coordinator import Coordinator
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.describe_groups.v5.request import DescribeGroupsRequest

API_KEY = 15
VERSIONS = (0, 5)
NEEDS = (acl.DESCRIBE_GROUP,)
CHANGES_NOTHING = True


async def handle(context: RequestContext, request: DescribeGroupsRequest, server: Coordinator) -> Any:
    version = context.api_version
    m = response_module(API_KEY, version)
    asked = version >= 3 and request.include_authorized_operations
    groups = tuple(_describe(m, context, server, group_id, asked) for group_id in request.groups)
    return build(m.DescribeGroupsResponse, throttle_time=NO_THROTTLE, groups=groups)


def _describe(m: ModuleType, context: RequestContext, server: Coordinator, group_id: str, asked: bool) -> Any:
    group, state, error, operations = None, "", ErrorCode.NONE, acl.NOT_ASKED
    try:
        context.require(acl.DESCRIBE_GROUP, group_id)
        group = server.describe(group_id)
        state = State.DEAD.value if group is None else group.state.value
    except KafkaError as failure:
        error = failure.code
    if asked and not error:
        operations = context.authorized_operations(acl.ResourceType.GROUP, group_id)
    stable = group is not None and group.state is State.STABLE
    return build(
        m.DescribedGroup,
        error_code=error,
        group_id=group_id,
        group_state=state,
        protocol_type=(group.protocol_type or "") if group else "",
        protocol_data=(group.protocol or "") if group and stable else "",
        members=tuple(_member(m, group, member, stable) for member in group.members.values()) if group else (),
        authorized_operations=operations,
    )


def _member(m: ModuleType, group: Group, member: Member, stable: bool) -> Any:
    return build(
        m.DescribedGroupMember,
        member_id=member.member_id,
        group_instance_id=member.instance_id,
        client_id=member.client_id,
        client_host=member.client_host,
        member_metadata=member.metadata(group.protocol) if stable else b"",
        member_assignment=member.assignment if stable else b"",
    )


def error_response(context: RequestContext, request: DescribeGroupsRequest, error: KafkaError) -> Any:
    m = response_module(API_KEY, context.api_version)
    groups = tuple(
        build(
            m.DescribedGroup,
            error_code=error.code,
            group_id=group_id,
            group_state="",
            protocol_type="",
            protocol_data="",
            members=(),
            authorized_operations=acl.NOT_ASKED,
        )
        for group_id in request.groups
    )
    return build(m.DescribeGroupsResponse, throttle_time=NO_THROTTLE, groups=groups)
