"""The broker's inter-broker port: who connects to it, by the role that the other end shows in the handshake."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Set

from raykafka.link import Link, open_port, serve_socket


class InterBrokerPort:
    """Accepts links whose other end holds the cluster's secret. ``takers`` has for a role the function that gets its
    links, not started yet. A link of any other role (a standby controller, a neighbour, a probe) is left to itself: it
    learns from this broker's identity, from pings and from end-of-file what it wants to know (rule 14)."""

    def __init__(self, secret: bytes, takers: Mapping[str, Callable[[Link], None]]) -> None:
        self._secret = secret
        self._takers = takers
        self._socket: socket.socket | None = None
        self._server: asyncio.AbstractServer | None = None
        self._links: set[Link] = set()

    def open(self, host: str, port: int) -> int:
        """Open the port (0: any free one) and return its number. Who connects waits until ``serve``: before this life
        of the broker is registered, its port must neither refuse nor answer for another life (rule 14). Raises OSError.
        """
        self._socket = open_port(host, port)
        return int(self._socket.getsockname()[1])

    async def serve(self, cluster_id: str, broker_id: int, broker_epoch: int) -> None:
        """Answer on the port, as this life of the broker."""
        assert self._socket is not None
        identity = {"role": "broker", "cluster_id": cluster_id, "broker_id": broker_id, "broker_epoch": broker_epoch}
        self._server = await serve_socket(self._socket, self._secret, identity, self._accept)

    def stop(self) -> None:
        """Close the port, and the links that came through it and are still here."""
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        for link in self._links:
            link.close()

    @property
    def connections(self) -> Set[Link]:
        """The links that came through the port and have not ended."""
        return self._links

    def _accept(self, link: Link) -> None:
        self._links.add(link)
        link.ended.add_done_callback(lambda _: self._links.discard(link))
        take = self._takers.get(link.peer.get("role", ""))
        if take is None:
            link.start()
        else:
            take(link)
