"""DeleteAcls: take away the ACLs that match filters.

Versions: 1-3. There is no authorizer: each of them is SECURITY_DISABLED, as on a Kafka broker without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.errors import KafkaError
from raykafka.front.api.acls import refuse
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.delete_acls.v3.request import DeleteAclsRequest

API_KEY = 31
VERSIONS = (1, 3)
NEEDS = (acl.ALTER_CLUSTER,)


async def handle(context: RequestContext, request: DeleteAclsRequest, server: object) -> Any:
    refuse(context, acl.ALTER_CLUSTER)


def error_response(context: RequestContext, request: DeleteAclsRequest, error: KafkaError) -> Any:
    m = response_module(API_KEY, context.api_version)
    result = build(m.DeleteAclsFilterResult, error_code=error.code, error_message=error.message, matching_acls=())
    return build(m.DeleteAclsResponse, throttle_time=NO_THROTTLE, filter_results=(result,) * len(request.filters))
