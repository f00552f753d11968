"""The listener for Prometheus: HTTP/1.1, ``GET /metrics``, on the broker's event loop.

Anybody who reaches the port may read; it answers nothing else. Connections and what they send are bounded.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

from raykafka.process.tasks import TaskSet

MOST_CONNECTIONS = 64
_LONGEST_HEAD_BYTES = 16 * 1024
_IDLE_S = 120.0
_BACKLOG = 16

Answer = Callable[[str], Awaitable[tuple[bytes, str]]]

logger = logging.getLogger(__name__)


class MetricsEndpoint:
    """Bound once made: ``port`` tells where (0 takes a free one). Connections wait until ``start``. Raises OSError."""

    def __init__(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self.host = host
        self.port = int(self._socket.getsockname()[1])
        self._server: asyncio.Server | None = None
        self._connections = TaskSet("metrics")

    async def start(self, answer: Answer) -> None:
        """Serve: ``answer(accept)`` gives the text and its content type for a reader that accepts ``accept``."""

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(self._connections) >= MOST_CONNECTIONS:
                writer.close()
                return
            self._connections.run(_serve(reader, writer, answer))

        self._server = await asyncio.start_server(connected, sock=self._socket, limit=_LONGEST_HEAD_BYTES)

    def stop(self) -> None:
        """Close the port and the connections that are open."""
        if self._server is not None:
            self._server.close()
        else:
            self._socket.close()
        self._connections.cancel()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
    """Answer the requests of one connection until it ends, or asks for something that can't be understood."""
    try:
        while True:
            async with asyncio.timeout(_IDLE_S):
                head = await reader.readuntil(b"\r\n\r\n")
            goes_on = await _respond(writer, head, answer)
            async with asyncio.timeout(_IDLE_S):
                await writer.drain()
            if not goes_on:
                return
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError):
        return
    finally:
        writer.close()


async def _respond(writer: asyncio.StreamWriter, head: bytes, answer: Answer) -> bool:
    """Write one response; whether another request may follow on the connection."""
    request, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, _, target = request.partition(" ")
    path, version = target.partition("?")[0].partition(" ")[0], request.rpartition(" ")[2]
    goes_on = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    # what follows the head of a request with a body is not read
    goes_on = goes_on and headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    status, body, content_type = "200 OK", b"", "text/plain; charset=utf-8"
    if method not in ("GET", "HEAD"):
        status, body = "405 Method Not Allowed", b"GET and HEAD are served\n"
    elif path == "/metrics":
        try:
            body, content_type = await answer(headers.get("accept", ""))
        except Exception:
            logger.exception("metrics could not be gathered")
            status, body = "500 Internal Server Error", b"metrics could not be gathered; the broker's log says why\n"
    elif path != "/":
        status, body = "404 Not Found", b"metrics are at /metrics\n"
    else:
        body = b"A broker of raykafka: metrics are at /metrics\n"
    connection = "" if goes_on else "Connection: close\r\n"
    writer.write(
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{connection}\r\n".encode()
    )
    if method != "HEAD":
        writer.write(body)
    return goes_on
