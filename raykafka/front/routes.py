"""The header of a request, and which API it belongs to."""

from __future__ import annotations

import struct
from typing import NamedTuple

from raykafka.errors import UnanswerableRequestError
from raykafka.front.api import api_versions
from raykafka.protocol import codec
from raykafka.protocol.registry import Api, Registry
from raykafka.protocol.wire import MalformedError, skip_tags

_HEADER = struct.Struct(">hhih")


class Route(NamedTuple):
    """How requests of one API version are read and answered. ``serves`` is false for a strange ApiVersions version."""

    api: Api
    serves: bool
    flexible_request: bool
    flexible_response: bool


class Routes:
    """The routes of ``apis``. ``found`` has those that were asked for before, by ``key << 16 | version``."""

    def __init__(self, apis: Registry) -> None:
        self.apis = apis
        self.found: dict[int, Route] = {}

    def find(self, key: int, version: int) -> Route:
        """Raises UnanswerableRequestError for an API or version that is not served."""
        api = self.apis.get(key)
        if api is None:
            raise UnanswerableRequestError(f"API {key} is not served")
        if api.serves(version):
            known = max(version, api.versions[0])
            if api.flexible_from is not None:
                flexible = known >= api.flexible_from
                route = Route(api, True, flexible, flexible)
            else:
                route = Route(
                    api, True, codec.request_is_flexible(key, known), codec.response_header_is_flexible(key, known)
                )
            self.found[key << 16 | version] = route
            return route
        if key == api_versions.API_KEY:
            return Route(api, False, False, False)
        raise UnanswerableRequestError(f"{api.name} is served in versions {api.versions}, not in {version}")


def parse_header(frame: memoryview, routes: Routes) -> tuple[int, int, int, str | None, int, Route]:
    """API key, version, correlation id and client id of a request, where its body begins, and its route. Raises
    MalformedError, and UnanswerableRequestError for an API or version that is not served."""
    if len(frame) < _HEADER.size:
        raise MalformedError("a request ends within its header")
    key, version, correlation, length = _HEADER.unpack_from(frame)
    route = routes.found.get(key << 16 | version) or routes.find(key, version)
    client_id, end = None, _HEADER.size
    if length >= 0:
        end += length
        if end > len(frame):
            raise MalformedError("a request ends within its client id")
        try:
            client_id = str(frame[_HEADER.size : end], "utf-8")
        except UnicodeDecodeError as error:
            raise MalformedError(f"a client id is not UTF-8: {error}") from None
    elif length != -1:
        raise MalformedError("a client id has a negative length")
    if route.flexible_request:
        end = skip_tags(frame, end)
    return key, version, correlation, client_id, end, route
