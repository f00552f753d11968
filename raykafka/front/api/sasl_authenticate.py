"""SaslAuthenticate: what a client shows to prove who it is.

Versions: 0-2. No listener asks for that: ILLEGAL_SASL_STATE, as on a PLAINTEXT listener of Kafka.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from raykafka.error_code import ErrorCode
from raykafka.protocol.codec import build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.sasl_authenticate.v2.request import SaslAuthenticateRequest

API_KEY = 36
VERSIONS = (0, 2)
NEEDS = ()
OPEN_TO_ALL = "It comes before a client has shown who it is."


async def handle(context: RequestContext, request: SaslAuthenticateRequest, server: object) -> Any:
    m = response_module(API_KEY, context.api_version)
    return build(
        m.SaslAuthenticateResponse,
        error_code=ErrorCode.ILLEGAL_SASL_STATE,
        error_message="this listener asks nobody to authenticate",
        auth_bytes=b"",
        session_lifetime=datetime.timedelta(0),
    )
