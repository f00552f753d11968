"""InitProducerId: an id and epoch for an idempotent producer.

Versions: 0-5.
v2: flexible. v3: a producer may name its old id and epoch; without a transactional id it gets a new id all the same, as
from Kafka. v4: PRODUCER_FENCED. v5: transaction errors.
Transactional ids are refused with INVALID_REQUEST until transactions exist. Left out: Kafka also serves who may write
to some topic, whichever (KIP-679); here it takes IDEMPOTENT_WRITE on the cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.broker.serving import ProducerIdServer
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.init_producer_id.v5.request import InitProducerIdRequest

API_KEY = 22
VERSIONS = (0, 5)
NEEDS = (acl.IDEMPOTENT_WRITE,)

_NONE = -1


async def handle(context: RequestContext, request: InitProducerIdRequest, server: ProducerIdServer) -> Any:
    if request.transactional_id is not None:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "transactions are not served by this cluster")
    context.require(acl.IDEMPOTENT_WRITE, acl.CLUSTER_NAME)
    known_id, known_epoch = getattr(request, "producer_id", _NONE), getattr(request, "producer_epoch", _NONE)
    if (known_id == _NONE) != (known_epoch == _NONE):
        raise KafkaError(ErrorCode.INVALID_REQUEST, "a producer id and its epoch come together")
    m = response_module(API_KEY, context.api_version)
    return build(
        m.InitProducerIdResponse,
        throttle_time=NO_THROTTLE,
        error_code=ErrorCode.NONE,
        producer_id=await server.next_producer_id(),
        producer_epoch=0,
    )
