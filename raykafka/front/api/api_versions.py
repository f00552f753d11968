"""ApiVersions: which versions of which APIs this broker serves.

Versions: 0-4.
v1: throttle time, and a request of an unknown version is answered with version 0 and UNSUPPORTED_VERSION (done by the
connection, which cannot parse such a request). v3: flexible; the client tells its software's name and version, and one
whose name is malformed gets INVALID_REQUEST. v4: feature ranges may begin at 0. We finalize no features.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from raykafka.error_code import ErrorCode
from raykafka.front.serving import GatedServer
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext
from raykafka.protocol.registry import Registry

if TYPE_CHECKING:
    from kio.schema.api_versions.v4.request import ApiVersionsRequest

API_KEY = 18
VERSIONS = (0, 4)
NEEDS = ()
OPEN_TO_ALL = "A client has to know the versions before it can authenticate."

_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?\Z")


async def handle(context: RequestContext, request: ApiVersionsRequest, server: GatedServer) -> Any:
    if context.api_version >= 3 and not (
        _SOFTWARE.match(request.client_software_name) and _SOFTWARE.match(request.client_software_version)
    ):
        return response(server.gate.apis, context.api_version, ErrorCode.INVALID_REQUEST)
    if context.api_version >= 3:
        context.session.software_name = request.client_software_name
        context.session.software_version = request.client_software_version
    return response(server.gate.apis, context.api_version, ErrorCode.NONE)


def response(apis: Registry, version: int, error: ErrorCode) -> Any:
    """All of ``apis`` for an answer without error; UNSUPPORTED_VERSION names ApiVersions alone, as Kafka does."""
    m = response_module(API_KEY, version)
    named = {
        ErrorCode.NONE: tuple(apis),
        ErrorCode.UNSUPPORTED_VERSION: tuple(a for a in apis if a.key == API_KEY),
    }.get(error, ())
    return build(
        m.ApiVersionsResponse,
        error_code=error,
        api_keys=tuple(
            build(m.ApiVersion, api_key=a.key, min_version=a.advertised[0], max_version=a.advertised[1]) for a in named
        ),
        throttle_time=NO_THROTTLE,
    )
