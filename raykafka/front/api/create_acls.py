"""CreateAcls: more ACLs.

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
    from kio.schema.create_acls.v3.request import CreateAclsRequest

API_KEY = 30
VERSIONS = (1, 3)
NEEDS = (acl.ALTER_CLUSTER,)


async def handle(context: RequestContext, request: CreateAclsRequest, server: object) -> Any:
    refuse(context, acl.ALTER_CLUSTER)


def error_response(context: RequestContext, request: CreateAclsRequest, error: KafkaError) -> Any:
    m = response_module(API_KEY, context.api_version)
    result = build(m.AclCreationResult, error_code=error.code, error_message=error.message)
    return build(m.CreateAclsResponse, throttle_time=NO_THROTTLE, results=(result,) * len(request.creations))
