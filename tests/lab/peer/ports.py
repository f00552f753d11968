"""Free TCP ports on the loopback address, for clusters that must not meet others on the same machine."""

from __future__ import annotations

import random
import socket

# Above the ports that Ray gives its workers (10002 to 19999), and below those that Linux gives outgoing connections
# (from 32768), so that nobody takes one in between.
FIRST, LAST = 20000, 32000


def free_port_block(count: int) -> int:
    """The first of ``count`` ports in a row that nobody listens on now. Raises ``OSError`` when there are none."""
    for _ in range(200):
        base = random.randrange(FIRST, LAST - count)
        if all(_is_free(port) for port in range(base, base + count)):
            return base
    raise OSError(f"no {count} free ports in a row between {FIRST} and {LAST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
