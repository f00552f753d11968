"""The port of a broker's listener: clients' connections are accepted here and given to replica actors to be served."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

_BACKLOG = 512
_ACCEPTED_AT_ONCE = 64
_OUT_OF_FILES_S = 0.5

logger = logging.getLogger(__name__)


class Acceptor:
    """One named listener: ``host:port`` once it is bound. Port 0 takes a free one, which ``port`` then tells.

    ``take(name, connection)`` gets each connection; it answers whether another may be accepted now. After a no,
    ``go_on`` says when.
    """

    def __init__(self, name: str, host: str, port: int, take: Callable[[str, socket.socket], bool]) -> None:
        self.name = name
        self.host = host
        self.port = port
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._listening = False
        self._accepting = False

    def bind(self) -> None:
        """Take the address, refusing connections until ``start``. Raises OSError when it can't be bound."""
        found = socket.getaddrinfo(self.host or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            self._sockets.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], self.port, *address[2:]))
            self.port = sock.getsockname()[1]

    def start(self) -> None:
        """Accept connections."""
        for sock in self._sockets:
            sock.listen(_BACKLOG)
        self._listening = True
        self.go_on()

    def go_on(self) -> None:
        """Accept again."""
        if self._listening and not self._accepting:
            self._accepting = True
            for sock in self._sockets:
                self._loop.add_reader(sock, self._accept, sock)

    def _pause(self) -> None:
        self._accepting = False
        for sock in self._sockets:
            self._loop.remove_reader(sock)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("listener %s can't accept connections: %s", self.name, error)
                self._pause()
                self._loop.call_later(_OUT_OF_FILES_S, self.go_on)
                return
            if not self._take(self.name, connection):
                self._pause()
                return

    def stop(self) -> None:
        """Close the port."""
        if self._accepting:
            self._pause()
        self._listening = False
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
