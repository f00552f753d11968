"""The socket between a standby and the active controller (rule 16): one end watches, the other is watched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from raykafka.errors import LinkError
from raykafka.link import Link, connect_tcp, serve_tcp
from raykafka.link.link import PING_INTERVAL_S
from raykafka.zookeeper.znodes import ControllerNode

_RETRY_S = 1.0
_SOON_S = 0.02
_SOON_TRIES = 50
_CONNECT_WITHIN_S = 2.0

logger = logging.getLogger(__name__)


class StandbyWatch:
    """A standby's end. ``listening`` is true while it holds a socket to the active controller."""

    def __init__(self, broker_id: int, secret: bytes) -> None:
        self.listening = False
        self._identity = {"role": "controller_standby", "broker_id": broker_id}
        self._secret = secret
        self._incarnation = ""
        self._watching: asyncio.Task[str] | None = None

    def watch(self, active: ControllerNode, silent_after_s: float) -> asyncio.Task[str]:
        """Listen to that life of a controller, from the first time that it is asked for. The task ends when it is dead,
        with the reason."""
        if self._watching is None or self._incarnation != active.incarnation:
            self.stop()
            self._incarnation = active.incarnation
            self._watching = asyncio.create_task(self._until_dead(active, silent_after_s))
        return self._watching

    def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._watching = None

    async def _until_dead(self, active: ControllerNode, silent_after_s: float) -> str:
        soon = _SOON_TRIES
        while True:
            try:
                async with asyncio.timeout(_CONNECT_WITHIN_S):
                    link = await connect_tcp(active.link_host, active.link_port, self._secret, self._identity)
            except ConnectionRefusedError:
                return "nobody listens on its port"
            except (ConnectionError, LinkError) as error:
                # a process on its way out still takes connections, and cuts them
                soon -= 1
                logger.info("the active controller cut a connection: %s", error)
                await asyncio.sleep(_SOON_S if soon > 0 else _RETRY_S)
                continue
            except (OSError, TimeoutError) as error:
                logger.info("the active controller can't be reached, its session decides: %s", error)
                await asyncio.sleep(_RETRY_S)
                continue
            try:
                if link.peer.get("incarnation") != active.incarnation:
                    return "another process answers on its port"
                link.start()
                self.listening = True
                soon = _SOON_TRIES
                await link.until_silent(silent_after_s - PING_INTERVAL_S)
            except TimeoutError:
                return f"its event loop was silent for {silent_after_s:g} s"
            except LinkError:
                pass
            finally:
                self.listening = False
                link.close()


class StandbyPort:
    """The active controller's end: where standbys connect, to see its end at once."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._server: asyncio.AbstractServer | None = None
        self._links: set[Link] = set()

    async def open(self, host: str, identity: Mapping[str, Any]) -> int:
        """Listen on a free port of ``host``, which is returned. OSError."""
        server: Any = await serve_tcp(host, 0, self._secret, dict(identity), self._accept)
        self._server = server
        return int(server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Take no more connections; those that are open stay."""
        if self._server is not None:
            self._server.close()

    async def abandon(self) -> None:
        """Let the standbys know that this process ends: the kernel takes it apart before it closes its sockets."""
        self.close()
        for link in tuple(self._links):
            link.transport.abort()
        while self._links:
            await asyncio.sleep(0)

    def _accept(self, link: Link) -> None:
        self._links.add(link)
        link.ended.add_done_callback(lambda _: self._links.discard(link))
        link.start()
