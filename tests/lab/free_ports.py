"""Free TCP ports on the loopback address, for servers that must not meet others on the same machine."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

_given: set[int] = set()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on just now."""
    return free_ports(1)


def addresses(first: int, count: int) -> str:
    """``host:port`` of ``count`` consecutive ports from ``first`` on, as clients take them for their bootstrap."""
    return ",".join(f"127.0.0.1:{port}" for port in range(first, first + count))


def free_ports(count: int) -> int:
    """The first of ``count`` consecutive free TCP ports on 127.0.0.1.

    They lie between those that a Ray gives its workers and those that the kernel gives outgoing connections: either
    could take one before a server does. None is given twice: two servers of one test would get the same.
    """
    while True:
        first = random.randrange(20_000, 32_000 - count)
        ports = range(first, first + count)
        if not _given.isdisjoint(ports):
            continue
        with ExitStack() as held:
            try:
                for port in ports:
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.update(ports)
            return first
