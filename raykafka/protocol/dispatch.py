"""How a request is answered in the process that it belongs to: decode, handle, encode."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import types
import typing
from collections.abc import Awaitable
from typing import Any

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, UnanswerableRequestError
from raykafka.protocol import codec
from raykafka.protocol.answer import Buffer
from raykafka.protocol.context import RequestContext
from raykafka.protocol.gate import Gate
from raykafka.protocol.registry import Api

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
    request = decode(api, context, body)
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


def refusal(api: Api, context: RequestContext, body: memoryview, error: KafkaError) -> list[Buffer]:
    """The response body that carries ``error`` to a request that no handler has seen. Raises
    UnanswerableRequestError."""
    response = error_response(api, context, decode(api, context, body), error)
    return [_encoded(api, context, response)]


def _encoded(api: Api, context: RequestContext, response: Any) -> bytes:
    """The response body, with the throttle time that the request earned where its version has room for that."""
    if context.throttle_ms and hasattr(response, "throttle_time"):
        throttle_time = datetime.timedelta(milliseconds=context.throttle_ms)
        response = dataclasses.replace(response, throttle_time=throttle_time)
    return codec.encode_response(api.key, context.api_version, response)


def decode(api: Api, context: RequestContext, body: memoryview) -> Any:
    """kio's dataclass of the request. Raises UnanswerableRequestError."""
    try:
        return codec.decode_request(api.key, context.api_version, body)
    except Exception as error:
        raise UnanswerableRequestError(f"malformed {api.name} request: {error}") from error


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
