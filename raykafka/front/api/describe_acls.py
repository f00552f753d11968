"""DescribeAcls: which ACLs there are.

Versions: 1-3. There is no authorizer: SECURITY_DISABLED, as on a Kafka broker without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.describe_acls.v3.request import DescribeAclsRequest

API_KEY = 29
VERSIONS = (1, 3)
NEEDS = (acl.DESCRIBE_CLUSTER,)


async def handle(context: RequestContext, request: DescribeAclsRequest, server: object) -> Any:
    context.require(acl.DESCRIBE_CLUSTER, acl.CLUSTER_NAME)
    raise KafkaError(ErrorCode.SECURITY_DISABLED, "there is no authorizer")
