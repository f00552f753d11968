"""Handing an open connection to another process of the same node: a descriptor in a datagram on a Unix socket
(SCM_RIGHTS), with the identity that its peer proved.

Whoever reads the Unix socket trusts what comes: its file has mode 0600 (rule 27).
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

SUFFIX = ".streams"
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


def hand_over(path: str, connection: socket.socket, peer: dict[str, Any]) -> None:
    """Give ``connection`` to the process that listens at ``path``; the caller closes its own copy. Raises OSError, also
    when that process has too much to take already."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(path)
        socket.send_fds(sock, [json.dumps(peer).encode()], [connection.fileno()])


def take(sock: socket.socket) -> tuple[socket.socket, dict[str, Any]] | None:
    """The next connection and its peer's identity; None when there is none now."""
    try:
        data, descriptors, _, _ = socket.recv_fds(sock, _PEER_BYTES, 1)
    except BlockingIOError:
        return None
    return socket.socket(fileno=descriptors[0]), json.loads(data)
