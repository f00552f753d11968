"""How a request is answered in the process that it belongs to: decode, handle, encode."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import logging
import types
import typing
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, UnanswerableRequestError
from raykafka.protocol import codec
from raykafka.protocol.answer import Buffer
from raykafka.protocol.context import RequestContext
from raykafka.protocol.gate import Gate
from raykafka.protocol.registry import Api
from raykafka.protocol.wire import MOST_ELEMENTS

# What a request may have that is not handed on as it came (records, or what members of groups tell each other): its
# elements become objects. And what is large: it is read in a thread, one such request at a time.
MOST_BYTES = 4 * 1024 * 1024
_LARGE_BYTES = 32 * 1024
_CARRY_BYTES = frozenset((11, 14))  # JoinGroup, SyncGroup
_large_requests = ThreadPoolExecutor(1, thread_name_prefix="large-request")

logger = logging.getLogger(__name__)


def answer(api: Api, server: Any, context: RequestContext, body: memoryview) -> Awaitable[list[Buffer]]:
    """Begin to answer a request that a gate has admitted. An API with its own codec may have begun its work before this
    returns.

    The buffers of the response body, none when nothing is to be answered. Raises UnanswerableRequestError, at once or
    when awaited.
    """
    if api.handle_raw is not None:
        return api.handle_raw(context, body, server)
    return _handled(api, server, context, body)


async def _handled(api: Api, server: Any, context: RequestContext, body: memoryview) -> list[Buffer]:
    assert api.handle is not None
    is_large = len(body) > _LARGE_BYTES
    request = await _decoded(api, context, body)
    try:
        response = await api.handle(context, request, server)
    except KafkaError as error:
        response = error_response(api, context, request, error)
    except UnanswerableRequestError:
        raise
    except Exception as error:
        logger.exception("%s v%d failed", api.name, context.api_version)
        failure = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"{type(error).__name__}: {error}")
        response = error_response(api, context, request, failure)
    if is_large:
        return [await asyncio.get_running_loop().run_in_executor(_large_requests, _encoded, api, context, response)]
    return [_encoded(api, context, response)]


async def serve(gate: Gate, server: Any, context: RequestContext, body: memoryview) -> list[Buffer]:
    """Admit a request and ``answer`` it, by the API that the context names. Raises UnanswerableRequestError also where
    that is not served."""
    api = gate.apis.get(context.api_key)
    if api is None or not api.serves(context.api_version):
        raise UnanswerableRequestError(f"API {context.api_key} version {context.api_version} is not served here")
    gate.admit(api, context, len(body))
    return await answer(api, server, context, body)


async def serve_forwarded(gate: Gate, server: Any, context: RequestContext, body: memoryview) -> list[Buffer]:
    """``serve`` for the far end of a forward: no buffers tell the broker to close the client's connection."""
    try:
        return await serve(gate, server, context, body)
    except UnanswerableRequestError as error:
        logger.warning("%s from %s: %s", context.client_id, context.client_host, error)
        return []


async def _decoded(api: Api, context: RequestContext, body: memoryview) -> Any:
    if len(body) <= _LARGE_BYTES:
        return decode(api, context, body)
    return await asyncio.get_running_loop().run_in_executor(_large_requests, decode, api, context, body)


async def refusal(api: Api, context: RequestContext, body: memoryview, error: KafkaError) -> list[Buffer]:
    """The response body that carries ``error`` to a request that no handler has seen. Raises
    UnanswerableRequestError."""
    response = error_response(api, context, await _decoded(api, context, body), error)
    return [_encoded(api, context, response)]


def _encoded(api: Api, context: RequestContext, response: Any) -> bytes:
    """The response body, with the throttle time that the request earned where its version has room for that; as it is,
    if the handler has encoded it."""
    if isinstance(response, bytes):
        return response
    if context.throttle_ms and hasattr(response, "throttle_time"):
        throttle_time = datetime.timedelta(milliseconds=context.throttle_ms)
        response = dataclasses.replace(response, throttle_time=throttle_time)
    return codec.encode_response(api.key, context.api_version, response)


def decode(api: Api, context: RequestContext, body: memoryview) -> Any:
    """kio's dataclass of the request. Raises UnanswerableRequestError, also for a request that asks for more than
    anybody would."""
    if len(body) > MOST_BYTES and api.key not in _CARRY_BYTES:
        raise UnanswerableRequestError(f"{api.name} request of {len(body)} bytes; {MOST_BYTES} are taken")
    try:
        request = codec.decode_request(api.key, context.api_version, body)
    except Exception as error:
        raise UnanswerableRequestError(f"malformed {api.name} request: {error}") from error
    if len(body) > _LARGE_BYTES and _elements(request) > MOST_ELEMENTS:
        raise UnanswerableRequestError(f"{api.name} request with more than {MOST_ELEMENTS} elements")
    return request


def _elements(request: Any) -> int:
    """How many elements all arrays of a request have, or more than MOST_ELEMENTS."""
    count, left = 0, [request]
    while left and count <= MOST_ELEMENTS:
        entity = left.pop()
        for field in dataclasses.fields(entity):
            value = getattr(entity, field.name)
            if isinstance(value, tuple):
                count += len(value)
                if value and dataclasses.is_dataclass(value[0]):
                    left += value
    return count


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
