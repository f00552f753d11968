"""DescribeCluster: the brokers, the controller and the cluster id.

Versions: 0-1.
v1: the client says whether it asks about brokers (1) or controllers (2). There is no controller quorum to describe, so
2 is MISMATCHED_ENDPOINT_TYPE, as on a Kafka broker in ZooKeeper mode. Everybody may see the brokers, as in Kafka; only
who may describe the cluster is told the operations allowed on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.front.api.endpoints import alive_endpoints
from raykafka.front.serving import ClusterServer
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.describe_cluster.v1.request import DescribeClusterRequest

API_KEY = 60
VERSIONS = (0, 1)
NEEDS = (acl.DESCRIBE_CLUSTER,)

_BROKERS = 1
_CONTROLLERS = 2


async def handle(context: RequestContext, request: DescribeClusterRequest, server: ClusterServer) -> Any:
    asked = getattr(request, "endpoint_type", _BROKERS)
    if asked != _BROKERS:
        known = asked == _CONTROLLERS
        code = ErrorCode.MISMATCHED_ENDPOINT_TYPE if known else ErrorCode.UNSUPPORTED_ENDPOINT_TYPE
        raise KafkaError(code, "this is a broker's listener; ask for endpoint type 1")
    m = response_module(API_KEY, context.api_version)
    operations = acl.NOT_ASKED
    if request.include_cluster_authorized_operations:
        operations = acl.NONE
        if context.allows(acl.DESCRIBE_CLUSTER, acl.CLUSTER_NAME):
            operations = context.authorized_operations(acl.ResourceType.CLUSTER, acl.CLUSTER_NAME)
    return build(
        m.DescribeClusterResponse,
        throttle_time=NO_THROTTLE,
        error_code=ErrorCode.NONE,
        endpoint_type=_BROKERS,
        cluster_id=server.image.cluster_id,
        controller_id=server.image.controller_id,
        brokers=tuple(
            build(m.DescribeClusterBroker, broker_id=broker.id, host=at.host, port=at.port, rack=broker.rack)
            for broker, at in alive_endpoints(server.image, context.listener)
        ),
        cluster_authorized_operations=operations,
    )
