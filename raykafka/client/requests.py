"""Requests that librdkafka has no call for, over a connection of their own: any broker answers them.

PLAINTEXT only, as every listener is for now.
"""

from __future__ import annotations

import io
import socket
from contextlib import closing
from types import ModuleType
from typing import Any

from raykafka.errors import ClientError
from raykafka.protocol.kio_schemas import (
    EntityType,
    entity_reader,
    entity_writer,
    load_payload_module,
    load_response_schema,
)

_CLIENT_ID = "raykafka-admin"
_CONNECT_WITHIN_S = 5.0
_ANSWER_WITHIN_S = 90.0


def request_module(api_key: int, version: int) -> ModuleType:
    """kio's module of that request: its classes are the nested types, named as in Kafka's schema files."""
    return load_payload_module(api_key, version, EntityType.request)


def ask(addresses: str, request: Any) -> Any:
    """What the first of ``host:port,...`` that can be reached answers. Raises ClientError."""
    problem = ""
    for address in addresses.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            connection = socket.create_connection((host.strip("[]"), int(port)), _CONNECT_WITHIN_S)
        except OSError as error:
            problem = f"{address}: {error.strerror or error}"
            continue
        with closing(connection):
            connection.settimeout(_ANSWER_WITHIN_S)
            try:
                return _exchange(connection, request)
            except TimeoutError:
                raise ClientError("The cluster gave no answer in time.") from None
            except (OSError, EOFError) as error:
                problem = f"{address}: {error}"
    raise ClientError(f"No broker answers: is the cluster up, and are the addresses right? ({problem})")


def _exchange(connection: socket.socket, request: Any) -> Any:
    header_class, version = request.__header_schema__, request.__version__
    header = header_class(
        request_api_key=request.__api_key__, request_api_version=version, correlation_id=1, client_id=_CLIENT_ID
    )
    buffer = io.BytesIO()
    entity_writer(header_class)(buffer, header)
    entity_writer(type(request))(buffer, request)
    body = buffer.getvalue()
    connection.sendall(len(body).to_bytes(4, "big") + body)
    frame = memoryview(_read(connection, int.from_bytes(_read(connection, 4), "big"))).toreadonly()
    schema: Any = load_response_schema(request.__api_key__, version)
    _, header_length = entity_reader(schema.__header_schema__)(frame, 0)
    response, _ = entity_reader(schema)(frame, header_length)
    return response


def _read(connection: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(min(length - len(parts), 1 << 20))
        if not part:
            raise EOFError("the broker closed the connection")
        parts += part
    return bytes(parts)
