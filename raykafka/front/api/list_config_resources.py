"""ListConfigResources: the names of what has configs.

Versions: 0-1.
v0: the client metrics subscriptions (KIP-714), of which there are none. v1: of the types that are asked for, all that
are known without any (KIP-1142): topics, and brokers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.front.serving import ClusterServer
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.list_config_resources.v1.request import ListConfigResourcesRequest

API_KEY = 74
VERSIONS = (0, 1)
NEEDS = (acl.DESCRIBE_CLUSTER_CONFIGS,)

_TOPIC, _BROKER, _BROKER_LOGGER, _CLIENT_METRICS, _GROUP = 2, 4, 8, 16, 32
_KNOWN = (_TOPIC, _BROKER, _BROKER_LOGGER, _CLIENT_METRICS, _GROUP)


async def handle(context: RequestContext, request: ListConfigResourcesRequest, server: ClusterServer) -> Any:
    context.require(acl.DESCRIBE_CLUSTER_CONFIGS, acl.CLUSTER_NAME)
    asked = (_CLIENT_METRICS,) if context.api_version == 0 else request.resource_types or _KNOWN
    if not set(asked) <= set(_KNOWN):
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, "a type of resource is not known")
    image = server.image
    brokers = [str(broker) for broker in sorted(image.brokers)]
    named = {_TOPIC: sorted(image.topics), _BROKER: brokers, _BROKER_LOGGER: brokers}
    m = response_module(API_KEY, context.api_version)
    resources = tuple(
        build(m.ConfigResource, resource_name=name, resource_type=kind)
        for kind in dict.fromkeys(asked)
        for name in named.get(kind, ())
    )
    return build(
        m.ListConfigResourcesResponse,
        throttle_time=NO_THROTTLE,
        error_code=ErrorCode.NONE,
        config_resources=resources,
    )
