"""SaslHandshake: which SASL mechanisms a client may choose from.

Versions: 0-1. No listener asks clients to authenticate, so there is nothing to choose: ILLEGAL_SASL_STATE, as on a
PLAINTEXT listener of Kafka.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.error_code import ErrorCode
from raykafka.protocol.codec import build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.sasl_handshake.v1.request import SaslHandshakeRequest

API_KEY = 17
VERSIONS = (0, 1)
NEEDS = ()
OPEN_TO_ALL = "It comes before a client has shown who it is."


async def handle(context: RequestContext, request: SaslHandshakeRequest, server: object) -> Any:
    m = response_module(API_KEY, context.api_version)
    return build(m.SaslHandshakeResponse, error_code=ErrorCode.ILLEGAL_SASL_STATE, mechanisms=())
