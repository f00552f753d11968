"""A client's side of a connection, on asyncio's streams: requests and responses as frames of bytes."""

from __future__ import annotations

import asyncio
import struct

from raykafka.protocol import codec


def request(key: int, version: int, correlation: int, body: bytes = b"", client_id: str = "test") -> bytes:
    """A frame as a client sends it: length, header, and a body that is already encoded."""
    flexible = codec.request_is_flexible(key, version)
    name = client_id.encode()
    head = struct.pack(">hhih", key, version, correlation, len(name)) + name + (b"\0" if flexible else b"")
    return struct.pack(">i", len(head) + len(body)) + head + body


async def read_response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The correlation id of the next response, and what follows it."""
    (length,) = struct.unpack(">i", await reader.readexactly(4))
    frame = await reader.readexactly(length)
    return struct.unpack(">i", frame[:4])[0], frame[4:]
