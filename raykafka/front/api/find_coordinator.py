"""FindCoordinator: which broker runs a group's coordinator, which is the leader of the group's offsets partition.

Versions: 0-6.
v1: error messages, and the kind of key. v4: several keys in one request. v5, v6: codes for transactions, share groups.
Only groups (key type 0) have coordinators here: transactions are refused with INVALID_REQUEST until they exist, as are
share groups (key type 2).

The first lookup creates ``__consumer_offsets`` and waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from raykafka.cluster.coordinator_partition import partition_for
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.front.api.endpoints import alive_endpoints
from raykafka.front.serving import ClusterServer
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext
from raykafka.types import OFFSETS_TOPIC

if TYPE_CHECKING:
    from kio.schema.find_coordinator.v3.request import FindCoordinatorRequest as FindCoordinatorRequestV3
    from kio.schema.find_coordinator.v6.request import FindCoordinatorRequest

API_KEY = 10
VERSIONS = (0, 6)
NEEDS = (acl.DESCRIBE_GROUP,)

GROUP = 0
_NOWHERE = {"node_id": -1, "host": "", "port": -1}


async def handle(context: RequestContext, request: FindCoordinatorRequest, server: ClusterServer) -> Any:
    m = response_module(API_KEY, context.api_version)
    key_type = getattr(request, "key_type", GROUP)
    if context.api_version >= 4:
        answers = [(key, await _locate(context, key_type, key, server)) for key in request.coordinator_keys]
        coordinators = tuple(build(m.Coordinator, key=key, **answer) for key, answer in answers)
        return build(m.FindCoordinatorResponse, throttle_time=NO_THROTTLE, coordinators=coordinators)
    key = cast("FindCoordinatorRequestV3", request).key
    answer = await _locate(context, key_type, key, server)
    return build(m.FindCoordinatorResponse, throttle_time=NO_THROTTLE, **answer)


async def _locate(context: RequestContext, key_type: int, key: str, server: ClusterServer) -> dict[str, Any]:
    try:
        at, broker_id = await _coordinator(context, key_type, key, server)
    except KafkaError as error:
        return {**_NOWHERE, "error_code": error.code, "error_message": error.message}
    return {
        "node_id": broker_id,
        "host": at.host,
        "port": at.port,
        "error_code": ErrorCode.NONE,
        "error_message": None if context.api_version >= 4 else "NONE",
    }


async def _coordinator(context: RequestContext, key_type: int, key: str, server: ClusterServer) -> tuple[Any, int]:
    if key_type != GROUP:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "this cluster has coordinators for consumer groups only")
    context.require(acl.DESCRIBE_GROUP, key)
    if OFFSETS_TOPIC not in server.image.topics:
        await server.auto_create([OFFSETS_TOPIC], internal=True)
    topic = server.image.topics.get(OFFSETS_TOPIC)
    if topic is None:
        raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"{OFFSETS_TOPIC} is being created")
    state = topic.partitions.get(partition_for(key, len(topic.partitions)))
    if state is not None:
        for broker, at in alive_endpoints(server.image, context.listener):
            if broker.id == state.leader and broker.id not in server.suspects:
                return at, broker.id
    raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"the group's partition of {OFFSETS_TOPIC} has no leader")
