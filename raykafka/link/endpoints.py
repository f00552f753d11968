"""How links are made: by connecting, by listening, or by taking over a connection that another process opened."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from raykafka.errors import LinkError
from raykafka.link.link import Link

_HANDSHAKE_TIMEOUT_S = 10.0
_BACKLOG = 128


async def connect_unix(path: str, secret: bytes, identity: dict[str, Any]) -> Link:
    """Open a link to who listens on ``path``. Raises OSError or LinkError. Call ``start`` on the result."""
    loop = asyncio.get_running_loop()
    _, link = await loop.create_unix_connection(lambda: Link(secret, identity, server_side=False), path)
    return await _opened(link)


async def connect_tcp(host: str, port: int, secret: bytes, identity: dict[str, Any]) -> Link:
    """Open a link to ``host:port``. Raises OSError or LinkError. Call ``start`` on the result."""
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: Link(secret, identity, server_side=False), host, port)
    return await _opened(link)


async def adopt(sock: socket.socket, peer: dict[str, Any]) -> Link:
    """The open link of a socket that another process detached; ``peer`` is the identity that it saw. Call ``start``."""
    sock.setblocking(False)
    link = Link(b"", {}, server_side=False)
    link.adopted(peer)  # first: what the peer has sent meanwhile is no handshake
    await asyncio.get_running_loop().connect_accepted_socket(lambda: link, sock)
    return link


async def _opened(link: Link) -> Link:
    try:
        async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):  # wait_for may forget that its task was cancelled
            return await asyncio.shield(link.opened)
    except TimeoutError:
        raise LinkError("the peer did not finish the handshake") from None
    finally:
        if not link.opened.done():  # whoever gives up leaves no connection behind
            link.opened.cancel()
            link.transport.abort()


def _server_factory(secret: bytes, identity: dict[str, Any], accept: Callable[[Link], None]) -> Callable[[], Link]:
    def make() -> Link:
        link = Link(secret, identity, server_side=True)

        def opened(future: asyncio.Future[Link]) -> None:
            if not future.cancelled() and future.exception() is None:
                accept(link)

        link.opened.add_done_callback(opened)
        asyncio.get_running_loop().call_later(_HANDSHAKE_TIMEOUT_S, _abort_unopened, link)
        return link

    return make


def _abort_unopened(link: Link) -> None:
    if not link.opened.done() and link.transport is not None:
        link.transport.abort()


async def serve_unix(
    path: str, secret: bytes, identity: dict[str, Any], accept: Callable[[Link], None]
) -> asyncio.Server:
    """Listen on ``path`` (mode 0600); ``accept`` gets each link whose peer proved the secret, and calls ``start``."""
    if os.path.exists(path):
        os.unlink(path)
    previous = os.umask(0o177)
    try:
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(_server_factory(secret, identity, accept), path)
    finally:
        os.umask(previous)


async def serve_tcp(
    host: str, port: int, secret: bytes, identity: dict[str, Any], accept: Callable[[Link], None]
) -> asyncio.Server:
    """Listen on ``host:port``; ``accept`` gets each link whose peer proved the secret, and calls ``start``."""
    return await serve_socket(open_port(host, port), secret, identity, accept)


def open_port(host: str, port: int) -> socket.socket:
    """A listening socket whose connections wait, unanswered, until ``serve_socket`` takes them. Port 0: any free
    one."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


async def serve_socket(
    sock: socket.socket, secret: bytes, identity: dict[str, Any], accept: Callable[[Link], None]
) -> asyncio.Server:
    """``serve_tcp`` on a socket of ``open_port``."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(_server_factory(secret, identity, accept), sock=sock)
