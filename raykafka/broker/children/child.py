"""One child process of a broker, and what starts it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from raykafka.link import Link

REPLICA = "replica"
COORDINATOR = "coordinator"
CONTROLLER = "controller"


class ChildHandle(Protocol):
    """A started process, before and beside its link. ``actor_id`` is Ray's, "" of a plain process."""

    actor_id: str

    def kill(self) -> None:
        """End it at once, without its help."""

    async def wait(self) -> str:
        """Return once it has ended, with what is known of why ("" for an ordinary end)."""


class ChildStarter(Protocol):
    """Starts the process of one child of ``role``; it connects to ``socket_path`` and shows ``token``."""

    def start(self, role: str, socket_path: str, token: str) -> ChildHandle:
        """Begin to start it; returns at once."""


@dataclass(eq=False, slots=True)
class Child:
    """One child. ``link`` exists once it has connected; ``pid`` is 0 before. ``started_at`` is a moment of
    ``boot_clock``. ``note`` says to people what it serves, "" while nothing. ``links`` is the path at which a
    replica actor listens for links, ``fds`` the one at which it takes connections over. ``before_kill`` is awaited
    before it is killed for its silence."""

    role: str
    token: str
    handle: ChildHandle
    started_at: float
    connected: asyncio.Future[Link]
    pid: int = 0
    note: str = ""
    links: str = ""
    fds: str = ""
    before_kill: Callable[[], Awaitable[None]] | None = None

    @property
    def link(self) -> Link:
        return self.connected.result()

    @property
    def actor_id(self) -> str:
        return self.handle.actor_id

    @property
    def is_connected(self) -> bool:
        return self.connected.done() and not self.connected.cancelled() and self.connected.exception() is None

    def kill(self) -> None:
        """End the process. By pid where it is known: that works for a stopped process, and at once."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.handle.kill()
