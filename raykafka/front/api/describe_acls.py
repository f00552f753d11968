"""DescribeAcls: which ACLs there are.

Versions: 1-3. There is no authorizer: SECURITY_DISABLED, as on a Kafka broker without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.front.api.acls import refuse
from raykafka.protocol import acl
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.describe_acls.v3.request import DescribeAclsRequest

API_KEY = 29
VERSIONS = (1, 3)
NEEDS = (acl.DESCRIBE_CLUSTER,)


async def handle(context: RequestContext, request: DescribeAclsRequest, server: object) -> Any:
    refuse(context, acl.DESCRIBE_CLUSTER)
