"""A broker's children: replica actors, coordinator and controller, each on one link to the broker's Unix socket.

A child is started with a token, connects with it, and lives exactly as long as that link: it exits on end-of-file, and
the broker kills one whose event loop is silent. A child is never restarted in place; a new one takes over with backoff
(rule 26).
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from raykafka.broker.children.child import CONTROLLER, COORDINATOR, REPLICA, Child, ChildStarter
from raykafka.errors import LinkError, RaykafkaError
from raykafka.link import Link, handover, serve_unix
from raykafka.process.backoff import Backoff
from raykafka.process.clock import boot_clock
from raykafka.process.tasks import TaskSet

SILENT_AFTER_S = 3.0
# silence is noticed so much later at most: the last answered ping may be that old when it begins
_PING_EACH_S = 0.3
CONNECT_WITHIN_S = 60.0
_STEADY_AFTER_S = 30.0
_STOP_WITHIN_S = 5.0

logger = logging.getLogger(__name__)


class Children:
    """Starts, knows and ends the children of one broker. All methods run on the broker's event loop.

    ``restarts`` counts, by role, the ends of those that are kept (``keep``), and of replica actors by who keeps them.
    """

    def __init__(self, starter: ChildStarter, *, socket_path: str, secret: bytes, identity: dict[str, Any]) -> None:
        self._starter = starter
        self._socket_path = socket_path
        self._secret = secret
        self._identity = identity
        self._by_token: dict[str, Child] = {}
        self._server: asyncio.AbstractServer | None = None
        self._tasks = TaskSet("children")
        self._stopping = False
        self.restarts = {REPLICA: 0, COORDINATOR: 0, CONTROLLER: 0}

    async def listen(self) -> None:
        """Open the Unix socket. No process of an earlier life is left that could need its own."""
        for pattern in (f"a*{handover.SUFFIX}", "a*.sock"):
            for left_over in Path(self._socket_path).parent.glob(pattern):
                left_over.unlink(missing_ok=True)
        self._server = await serve_unix(self._socket_path, self._secret, self._identity, self._accept)

    async def stop(self) -> None:
        """End every child: close its link, wait for its end, kill what does not end by itself."""
        self._stopping = True
        if self._server is not None:
            self._server.close()
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
        await self._tasks.close()
        with suppress(FileNotFoundError):
            os.unlink(self._socket_path)

    def living(self) -> list[Child]:
        """All children that were started and have not ended."""
        return list(self._by_token.values())

    # the one coordinator, the one controller

    def keep(self, role: str, adopt: Callable[[Child], None]) -> None:
        """Have one child of ``role`` at all times; ``adopt`` attaches handlers to each new one's link."""
        self._tasks.run(self._keep(role, adopt))

    async def _keep(self, role: str, adopt: Callable[[Child], None]) -> None:
        backoff = Backoff()
        while not self._stopping:
            await asyncio.sleep(backoff.delay_s)
            try:
                child = await self.start(role)
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

    async def start(self, role: str) -> Child:
        """Start a child; it has connected. Raises RaykafkaError when it ends before, or takes CONNECT_WITHIN_S."""
        token = secrets.token_hex(16)
        connected: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        handle = self._starter.start(role, self._socket_path, token)
        child = Child(role, token, handle, boot_clock(), connected)
        self._by_token[token] = child
        self._tasks.run(self._follow(child))
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
        child.links, child.fds = link.peer.get("links", ""), link.peer.get("fds", "")
        child.connected.set_result(link)
        self._tasks.run(self._watch(child))

    async def _follow(self, child: Child) -> None:
        """Forget a child once its process has ended."""
        why = await child.handle.wait()
        self._by_token.pop(child.token, None)
        for path in filter(None, (child.links, child.fds)):
            with suppress(FileNotFoundError):
                os.unlink(path)  # a killed one leaves it behind
        if not child.connected.done():
            child.connected.set_exception(RaykafkaError(f"it ended before it connected: {why or 'no reason known'}"))
            child.connected.exception()
        elif why and not self._stopping:
            logger.warning("%s process %d (%s) ended: %s", child.role, child.pid, child.note or "unassigned", why)

    async def _watch(self, child: Child) -> None:
        """Kill a child whose event loop does not answer (rule 14)."""
        try:
            await child.link.until_silent(SILENT_AFTER_S, _PING_EACH_S)
        except LinkError:
            return
        except TimeoutError:
            logger.error("%s process %d was silent for %.0f s and is killed", child.role, child.pid, SILENT_AFTER_S)
            if child.before_kill is not None:
                await child.before_kill()
            child.kill()
