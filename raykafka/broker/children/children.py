"""A broker's children: replica, coordinator and controller processes, each on one link to the broker's Unix socket.

A child is started with a token, connects with it, and lives exactly as long as that link: it exits on end-of-file, and
the broker kills one whose event loop is silent. A child is never restarted in place; a new one takes over with backoff
(rule 26).
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from raykafka.errors import LinkError, RaykafkaError
from raykafka.link import Link, handover, serve_unix
from raykafka.process.backoff import Backoff
from raykafka.process.clock import boot_clock

REPLICA = "replica"
COORDINATOR = "coordinator"
CONTROLLER = "controller"

SILENT_AFTER_S = 3.0
CONNECT_WITHIN_S = 60.0
_STEADY_AFTER_S = 30.0
# A process that starts takes the better part of a second of a core: more at a time only make each of them late.
_STARTS_AT_ONCE = min(4, os.cpu_count() or 1)
_FILL_AFTER_S = 0.2
_STOP_WITHIN_S = 5.0

logger = logging.getLogger(__name__)


class ChildHandle(Protocol):
    """A started child, before and beside its link."""

    actor_id: str

    def kill(self) -> None:
        """End it at once, without its help."""

    async def wait(self) -> str:
        """Return once it has ended, with what is known of why ("" for an ordinary end)."""


class ChildStarter(Protocol):
    """Starts the process of one child of ``role``; it connects to ``socket_path`` and shows ``token``."""

    def start(self, role: str, socket_path: str, token: str) -> ChildHandle: ...


@dataclass(eq=False, slots=True)
class Child:
    """One child. ``link`` exists once it has connected; ``pid`` is 0 before. ``streams`` is the path at which a replica
    takes connections over from its broker."""

    role: str
    token: str
    handle: ChildHandle
    started_at: float
    connected: asyncio.Future[Link]
    pid: int = 0
    note: str = ""
    streams: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def link(self) -> Link:
        return self.connected.result()

    @property
    def actor_id(self) -> str:
        return self.handle.actor_id

    @property
    def is_connected(self) -> bool:
        return self.connected.done() and not self.connected.cancelled() and self.connected.exception() is None

    def hand_over(self, connection: socket.socket, peer: dict[str, Any]) -> None:
        """Give a replica a leader's connection; the caller closes its own copy. Raises OSError."""
        handover.hand_over(self.streams, connection, peer)

    def kill(self) -> None:
        """End the process. By pid where it is known: that works for a stopped process, and at once."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.handle.kill()


class Children:
    """Starts, knows and ends the children of one broker. All methods run on the broker's event loop."""

    def __init__(
        self, starter: ChildStarter, *, socket_path: str, secret: bytes, identity: dict[str, Any], spare_replicas: int
    ) -> None:
        self._starter = starter
        self._socket_path = socket_path
        self._secret = secret
        self._identity = identity
        self._spare_replicas = spare_replicas
        self._spares_wanted = 0
        self._by_token: dict[str, Child] = {}
        self._spares: deque[Child] = deque()
        self._wanted: deque[asyncio.Future[Child]] = deque()
        self._starting_replicas = 0
        self._replica_backoff = Backoff()
        self._filling: asyncio.TimerHandle | None = None
        self._server: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self.restarts = {REPLICA: 0, COORDINATOR: 0, CONTROLLER: 0}

    async def listen(self) -> None:
        """Open the Unix socket. No process of an earlier life is left that could need its own."""
        for left_over in Path(self._socket_path).parent.glob(f"r*{handover.SUFFIX}"):
            left_over.unlink(missing_ok=True)
        self._server = await serve_unix(self._socket_path, self._secret, self._identity, self._accept)

    def keep_spares(self) -> None:
        """Begin to have spare replicas ready. A starting broker has more urgent children, so this is asked for."""
        self._spares_wanted = self._spare_replicas
        self._fill()

    async def stop(self) -> None:
        """Let every child go: close its link, wait for its end, kill what does not end by itself."""
        self._stopping = True
        if self._server is not None:
            self._server.close()
        for waiter in self._wanted:
            waiter.cancel()
        children = list(self._by_token.values())
        for child in children:
            if child.is_connected:
                child.link.close()
            else:
                child.kill()
        ends = [asyncio.ensure_future(child.handle.wait()) for child in children]
        if ends:
            await asyncio.wait(ends, timeout=_STOP_WITHIN_S)
        for child, end in zip(children, ends, strict=True):
            if not end.done():
                logger.warning("%s %d did not end within %.0f s and is killed", child.role, child.pid, _STOP_WITHIN_S)
                child.kill()
                end.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(FileNotFoundError):
            os.unlink(self._socket_path)

    def living(self) -> list[Child]:
        """All children that were started and have not ended."""
        return list(self._by_token.values())

    @property
    def spares(self) -> int:
        return len(self._spares)

    # replicas

    async def acquire_replica(self) -> Child:
        """A connected replica child of nobody yet: a spare, or else the next one that starts. The caller attaches its
        own handlers with ``child.link.start`` and closes the link when it is done."""
        while self._spares:
            child = self._spares.popleft()
            if not child.link.is_closed:
                self._fill_later()
                return child
        waiter: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._wanted.append(waiter)
        self._fill()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._offer(waiter.result())
            raise

    def _fill_later(self) -> None:
        """Have another spare soon: a process that starts takes the processors from the one that was just given away,
        for which somebody waits."""
        if self._filling is None:
            self._filling = asyncio.get_running_loop().call_later(_FILL_AFTER_S, self._fill)

    def _fill(self) -> None:
        if self._filling is not None:
            self._filling.cancel()
            self._filling = None
        if self._stopping:
            return
        while self._wanted and self._wanted[0].done():
            self._wanted.popleft()
        missing = len(self._wanted) + self._spares_wanted - len(self._spares) - self._starting_replicas
        for _ in range(min(missing, _STARTS_AT_ONCE - self._starting_replicas)):
            self._starting_replicas += 1
            self._run(self._start_replica())

    async def _start_replica(self) -> None:
        try:
            await asyncio.sleep(self._replica_backoff.delay_s)
            child = await self._start(REPLICA)
        except RaykafkaError as error:
            if self._stopping:
                return
            logger.error("a replica process did not start: %s", error)
            self._replica_backoff.failed()
            self._starting_replicas -= 1
            self._fill()
            return
        self._starting_replicas -= 1
        self._replica_backoff.succeeded()
        child.link.start(on_close=lambda _: self._spare_ended(child))
        self._offer(child)
        self._fill()

    def _offer(self, child: Child) -> None:
        while self._wanted:
            waiter = self._wanted.popleft()
            if not waiter.done():
                waiter.set_result(child)
                return
        self._spares.append(child)

    def _spare_ended(self, child: Child) -> None:
        if child in self._spares:
            self._spares.remove(child)
            self._fill()

    # the one coordinator, the one controller

    def keep(self, role: str, adopt: Callable[[Child], None]) -> None:
        """Have one child of ``role`` at all times; ``adopt`` attaches handlers to each new one's link."""
        self._run(self._keep(role, adopt))

    async def _keep(self, role: str, adopt: Callable[[Child], None]) -> None:
        backoff = Backoff()
        while not self._stopping:
            await asyncio.sleep(backoff.delay_s)
            try:
                child = await self._start(role)
            except RaykafkaError as error:
                if self._stopping:
                    return
                logger.error("the %s process did not start: %s", role, error)
                self.restarts[role] += 1
                backoff.failed()
                continue
            adopt(child)
            await asyncio.shield(child.link.ended)
            if self._stopping:
                return
            self.restarts[role] += 1
            if boot_clock() - child.started_at > _STEADY_AFTER_S:
                backoff.succeeded()
            else:
                backoff.failed()
            logger.warning("the %s process %d ended; starting another", role, child.pid)

    # every child

    async def _start(self, role: str) -> Child:
        token = secrets.token_hex(16)
        connected: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        handle = self._starter.start(role, self._socket_path, token)
        child = Child(role, token, handle, boot_clock(), connected)
        self._by_token[token] = child
        self._run(self._follow(child))
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await asyncio.shield(connected)
        except TimeoutError:
            child.kill()
            raise RaykafkaError(f"it did not connect within {CONNECT_WITHIN_S:.0f} s") from None
        return child

    def _accept(self, link: Link) -> None:
        child = self._by_token.get(link.peer.get("token", ""))
        if child is None or child.connected.done():
            logger.warning("a process showed a token that no child of this broker holds: %s", link.peer.get("pid"))
            link.close()
            return
        child.pid = int(link.peer["pid"])
        child.streams = link.peer.get("streams", "")
        child.connected.set_result(link)
        self._run(self._watch(child))

    async def _follow(self, child: Child) -> None:
        """Forget a child once its process has ended."""
        why = await child.handle.wait()
        self._by_token.pop(child.token, None)
        if child.streams:
            with suppress(FileNotFoundError):
                os.unlink(child.streams)  # a killed one leaves it behind
        if not child.connected.done():
            child.connected.set_exception(RaykafkaError(f"it ended before it connected: {why or 'no reason known'}"))
            child.connected.exception()
        elif why and not self._stopping:
            logger.warning("%s process %d (%s) ended: %s", child.role, child.pid, child.note or "unassigned", why)

    async def _watch(self, child: Child) -> None:
        """Kill a child whose event loop does not answer (rule 14)."""
        try:
            await child.link.until_silent(SILENT_AFTER_S)
        except LinkError:
            return
        except TimeoutError:
            logger.error("%s process %d was silent for %.0f s and is killed", child.role, child.pid, SILENT_AFTER_S)
            child.kill()

    def _run(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task that looks after children failed", exc_info=task.exception())
