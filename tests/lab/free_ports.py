"""Free TCP ports for servers of tests."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

_given: set[int] = set()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on just now."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of ``count`` consecutive free TCP ports on 127.0.0.1.

    They lie between those that a Ray gives its workers and those that the kernel gives outgoing connections: either
    could take one before a server does. None is given twice: two servers of one test would get the same.
    """
    while True:
        first = random.randrange(20_000, 32_000)
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
