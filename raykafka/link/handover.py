"""Handing an open connection to another process of the same node: a descriptor in a datagram on a Unix socket
(SCM_RIGHTS), with the identity that its peer proved.

Whoever reads the Unix socket trusts what comes: its file has mode 0600 (rule 27).
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

SUFFIX = ".fds"
# in what is said of a connection: the name of the listener by which a client came
CLIENT = "client"
_PEER_BYTES = 64 * 1024


def listen(path: str) -> socket.socket:
    """A socket at ``path`` on which connections are handed to this process; ``take`` one when it is readable."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    previous = os.umask(0o177)
    try:
        sock.bind(path)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(previous)
    sock.setblocking(False)
    return sock


class Giver:
    """Gives connections to the process that listens at ``path``, in order. What it has no room for yet waits; ``lost``
    is called with what can't be given since that process has ended."""

    def __init__(self, path: str, lost: Callable[[socket.socket, dict[str, Any]], None]) -> None:
        """Raises OSError when nobody listens there."""
        self._lost = lost
        self._waiting: deque[tuple[socket.socket, dict[str, Any]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._sock.setblocking(False)
            self._sock.connect(path)
        except OSError:
            self._sock.close()
            raise

    def give(self, connection: socket.socket, peer: dict[str, Any]) -> None:
        """Give ``connection`` away; it is closed here once it was given. ``peer`` is plain data."""
        self._waiting.append((connection, peer))
        if len(self._waiting) == 1:
            self._send()

    def _send(self) -> None:
        while self._waiting:
            connection, peer = self._waiting[0]
            try:
                socket.send_fds(self._sock, [json.dumps(peer).encode()], [connection.fileno()])
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._send)
                return
            except OSError:
                self._waiting.popleft()
                self._lost(connection, peer)
                continue
            self._waiting.popleft()
            connection.close()
        self._loop.remove_writer(self._sock)

    def close(self) -> None:
        """Give no more; ``lost`` gets what waits."""
        if self._sock.fileno() < 0:
            return
        self._loop.remove_writer(self._sock)
        self._sock.close()
        while self._waiting:
            self._lost(*self._waiting.popleft())


def take(sock: socket.socket) -> tuple[socket.socket, dict[str, Any]] | None:
    """The next connection and its peer's identity; None when there is none now. Raises OSError where this process has
    no descriptor left for it: it is lost then."""
    try:
        data, descriptors, _, _ = socket.recv_fds(sock, _PEER_BYTES, 1)
    except BlockingIOError:
        return None
    if not descriptors:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return socket.socket(fileno=descriptors[0]), json.loads(data)
