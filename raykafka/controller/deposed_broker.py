"""The end of a broker that stands still and has been taken for dead.

A process that was stopped can't find out that it is deposed, and what it holds stays held: its clients' connections,
which they would wait on for half a minute, its data directory, its listeners. Its controller process, beside it on
the same node, ends it, and Ray starts its next life (rules 14, 15).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

from raykafka.errors import LinkError
from raykafka.link import Link

SILENT_AFTER_S = 3.0
_LOOK_EVERY_S = 0.2
_CREDENTIALS = struct.Struct("3i")

logger = logging.getLogger(__name__)


async def end_deposed_broker(link: Link, is_deposed: Callable[[], Awaitable[bool]]) -> None:
    """Kill the broker at the other end of the Unix socket ``link`` when its event loop stands still and it has lost its
    registration. Returns when the link has ended."""
    with suppress(LinkError):
        while True:
            with suppress(TimeoutError):
                await link.until_silent(SILENT_AFTER_S)
            if await _stays_silent_until(is_deposed, link):
                pid = _pid_of_peer(link)
                logger.critical("broker process %d stands still and was taken for dead: it is killed", pid)
                os.kill(pid, signal.SIGKILL)
                return


async def _stays_silent_until(is_deposed: Callable[[], Awaitable[bool]], link: Link) -> bool:
    while not await is_deposed():
        with suppress(TimeoutError):
            await link.ping(_LOOK_EVERY_S)
            return False
    return not link.is_closed


def _pid_of_peer(link: Link) -> int:
    """The process that listens on the Unix socket; as long as the link is open its pid is nobody else's."""
    connection = link.transport.get_extra_info("socket")
    pid, _, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(pid)
