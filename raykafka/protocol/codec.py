"""Kafka messages by API key and version, on kio's schemas. Modules of kio load when first used."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import io
from types import ModuleType
from typing import Any

from raykafka.protocol.kio_schemas import (
    EntityType,
    entity_reader,
    entity_writer,
    load_payload_module,
    load_request_schema,
    load_response_schema,
)

NO_THROTTLE = datetime.timedelta(0)


@functools.cache
def _request_reader(api_key: int, version: int) -> Any:
    return entity_reader(load_request_schema(api_key, version))


@functools.cache
def _response_writer(api_key: int, version: int) -> Any:
    return entity_writer(load_response_schema(api_key, version))


@functools.cache
def response_module(api_key: int, version: int) -> ModuleType:
    """kio's module of that response: its classes are the nested types, named as in Kafka's schema files."""
    return load_payload_module(api_key, version, EntityType.response)


@functools.cache
def response_class(api_key: int, version: int) -> Any:
    """kio's dataclass of that response."""
    return load_response_schema(api_key, version)


def load(api_key: int, version: int) -> None:
    """Import and compile what that version of an API needs; otherwise its first request pays for it."""
    _request_reader(api_key, version)
    _response_writer(api_key, version)
    response_module(api_key, version)


@functools.cache
def request_is_flexible(api_key: int, version: int) -> bool:
    return bool(load_request_schema(api_key, version).__flexible__)


@functools.cache
def response_header_is_flexible(api_key: int, version: int) -> bool:
    """ApiVersions always answers with header v0, so that any client can read it."""
    schema: Any = load_response_schema(api_key, version)
    return bool(schema.__header_schema__.__flexible__)


def decode_request(api_key: int, version: int, body: bytes | bytearray | memoryview) -> Any:
    """The kio dataclass for a request body. Raises whatever kio raises on malformed bytes."""
    entity, _ = _request_reader(api_key, version)(memoryview(body).toreadonly(), 0)
    return entity


def encode_response(api_key: int, version: int, response: Any) -> bytes:
    """The bytes of a response body, without its header."""
    buffer = io.BytesIO()
    _response_writer(api_key, version)(buffer, response)
    return buffer.getvalue()


@functools.cache
def _field_names(cls: type) -> frozenset[str]:
    return frozenset(f.name for f in dataclasses.fields(cls))


def build(cls: type, **values: Any) -> Any:
    """Make a kio dataclass from those ``values`` that its version has: a handler is written once for all versions."""
    names = _field_names(cls)
    return cls(**{k: v for k, v in values.items() if k in names})


def milliseconds(time: datetime.timedelta) -> int:
    """kio's durations as Kafka's number."""
    return time // datetime.timedelta(milliseconds=1)
