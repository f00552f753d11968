"""The one table of the APIs that raykafka serves, built from the modules that serve them.

A module in ``raykafka.broker.api``, ``raykafka.coordinator.api`` or ``raykafka.controller.api`` serves one API:

``API_KEY``, ``VERSIONS``
    the key, and the lowest and highest version served
``ADVERTISED``
    optional: the versions that ApiVersions names, where that differs
``async handle(context, request, server) -> response``
    on kio's dataclasses; ``server`` is the Broker, Coordinator or Controller. A KafkaError that it raises is
    answered by ``error_response(context, request, error)`` if the module has one, else by the response's top-level
    error code with everything else empty
``handle_raw(context, body, server) -> awaitable list of buffers``
    instead of ``handle``, for an API that has its own codec; no buffers: nothing is to be answered. A plain function
    may begin its work at once and return an Answer

A module without ``API_KEY`` is code that several APIs share.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import logging
import pkgutil
import types
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, RaykafkaError
from raykafka.protocol import codec
from raykafka.protocol.answer import Buffer
from raykafka.protocol.context import RequestContext

BROKER = "broker"
COORDINATOR = "coordinator"
CONTROLLER = "controller"
_PACKAGES = {
    BROKER: ("raykafka.front.api", "raykafka.broker.api"),
    COORDINATOR: ("raykafka.coordinator.api",),
    CONTROLLER: ("raykafka.controller.api",),
}

Handler = Callable[[RequestContext, Any, Any], Awaitable[Any]]

logger = logging.getLogger(__name__)


class UnanswerableRequestError(RaykafkaError):
    """A request that has no answer in the protocol: malformed, or failed where its response has no room for an error.
    What is left is to close the connection that it came on."""


@dataclass(frozen=True, slots=True)
class Api:
    """One served API. ``place`` says which process runs its handler."""

    key: int
    name: str
    versions: tuple[int, int]
    advertised: tuple[int, int]
    place: str
    module: types.ModuleType
    handle: Handler | None
    handle_raw: Handler | None

    def serves(self, version: int) -> bool:
        return self.advertised[0] <= version <= self.advertised[1]


@functools.cache
def apis() -> dict[int, Api]:
    """All served APIs by key, in the order of their keys."""
    found: dict[int, Api] = {}
    packages = [(place, name) for place, names in _PACKAGES.items() for name in names]
    for place, package_name in packages:
        package = importlib.import_module(package_name)
        for info in pkgutil.iter_modules(package.__path__, package_name + "."):
            module = importlib.import_module(info.name)
            if not hasattr(module, "API_KEY"):
                continue
            made = _api(module, place)
            if made.key in found:
                raise RuntimeError(f"{info.name} and {found[made.key].module.__name__} both serve API {made.key}")
            found[made.key] = made
    return dict(sorted(found.items()))


def _api(module: types.ModuleType, place: str) -> Api:
    stem = module.__name__.rpartition(".")[2]
    return Api(
        key=module.API_KEY,
        name="".join(word.capitalize() for word in stem.split("_")),
        versions=module.VERSIONS,
        advertised=getattr(module, "ADVERTISED", module.VERSIONS),
        place=place,
        module=module,
        handle=getattr(module, "handle", None),
        handle_raw=getattr(module, "handle_raw", None),
    )


def api(api_key: int) -> Api | None:
    """The served API with that key, or None."""
    return apis().get(api_key)


def load(place: str) -> None:
    """Load all schemas of the APIs of ``place``: some hundred modules, which take seconds on a busy machine. It blocks,
    so run it in a thread; a first request that found them missing would block the event loop as long."""
    for served in apis().values():
        if served.place == place:
            for version in range(served.versions[0], served.versions[1] + 1):
                codec.load(served.key, version)


async def serve(server: Any, context: RequestContext, body: memoryview) -> list[Buffer]:
    """Answer one request in the process that it belongs to: decode, handle, encode.

    Returns the buffers of the response body, none when nothing is to be answered. Raises UnanswerableRequestError. A
    process that serves forwarded requests answers such an error with an empty body (``serve_forwarded``).
    """
    served = api(context.api_key)
    if served is None or not served.serves(context.api_version):
        raise UnanswerableRequestError(f"API {context.api_key} version {context.api_version} is not served here")
    if served.handle_raw is not None:
        return await served.handle_raw(context, body, server)
    assert served.handle is not None
    try:
        request = codec.decode_request(served.key, context.api_version, body)
    except Exception as error:
        raise UnanswerableRequestError(f"malformed {served.name} request: {error}") from error
    try:
        response = await served.handle(context, request, server)
    except KafkaError as error:
        response = error_response(served, context, request, error)
    except UnanswerableRequestError:
        raise
    except Exception as error:
        logger.exception("%s v%d failed", served.name, context.api_version)
        failure = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"{type(error).__name__}: {error}")
        response = error_response(served, context, request, failure)
    return [codec.encode_response(served.key, context.api_version, response)]


async def serve_forwarded(server: Any, context: RequestContext, body: memoryview) -> list[Buffer]:
    """``serve`` for the far end of a forward: no buffers tell the broker to close the client's connection."""
    try:
        return await serve(server, context, body)
    except UnanswerableRequestError as error:
        logger.warning("%s from %s: %s", context.client_id, context.client_host, error)
        return []


def error_response(served: Api, context: RequestContext, request: Any, error: KafkaError) -> Any:
    """The response that carries ``error``. Raises UnanswerableRequestError where the response has no place for it."""
    own = getattr(served.module, "error_response", None)
    if own is not None:
        return own(context, request, error)
    schema = codec.response_class(served.key, context.api_version)
    fields = {field.name: field for field in dataclasses.fields(schema)}
    if "error_code" not in fields:
        raise UnanswerableRequestError(f"{served.name} failed: {error}") from error
    values = {name: _empty(field) for name, field in fields.items()}
    values["error_code"] = error.code
    if "error_message" in fields:
        values["error_message"] = error.message or None
    return schema(**values)


def _empty(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    options = typing.get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,)
    if types.NoneType in options:
        return None
    kind = field.metadata.get("kafka_type", "")
    if kind.startswith("timedelta"):
        return codec.NO_THROTTLE
    if kind.startswith(("int", "uint")):
        return -1
    if kind == "bool":
        return False
    return {"string": "", "bytes": b""}.get(kind, ())
