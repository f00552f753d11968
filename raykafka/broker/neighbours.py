"""A socket to every other live broker, whose end tells of a death before anybody has decided what follows from it.

A client whose connection broke asks the brokers that are left who leads now, at once and then perhaps not for a second
or more. While a broker is suspected to be dead, Metadata names no leader for what it led, so that clients ask again
soon; nothing else follows from a suspicion (rule 14).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Set

from raykafka.cluster.image import BrokerInfo
from raykafka.errors import LinkError
from raykafka.link import Link, connect_tcp

NEIGHBOUR_ROLE = "neighbour"
_CONNECT_WITHIN_S = 2.0
_RETRY_S = 0.1
_LONGEST_RETRY_S = 2.0
_ESTABLISHED = 1  # the first byte of Linux's tcp_info is the connection's state

logger = logging.getLogger(__name__)


class Neighbours:
    """The other brokers as broker ``broker_id`` sees them. ``suspects``: those of the image that seem dead."""

    def __init__(self, broker_id: int, secret: bytes) -> None:
        self._broker_id = broker_id
        self._secret = secret
        self._watches: dict[int, tuple[int, asyncio.Task[None]]] = {}
        self._suspects: set[int] = set()
        self._links: dict[int, Link] = {}

    @property
    def suspects(self) -> Set[int]:
        # The client that asks may have seen the end before this event loop gets to its own: so the kernel is asked.
        ended = {broker for broker, link in self._links.items() if not _is_established(link)}
        return self._suspects | ended if ended else self._suspects

    @property
    def watched(self) -> Set[int]:
        """The brokers to which a connection is open."""
        return self._links.keys()

    def apply(self, brokers: Mapping[int, BrokerInfo]) -> None:
        """Watch these lives of brokers, and no others."""
        for broker, (epoch, task) in list(self._watches.items()):
            if broker not in brokers or brokers[broker].epoch != epoch:
                del self._watches[broker]
                self._suspects.discard(broker)
                task.cancel()
        for broker, info in brokers.items():
            if broker != self._broker_id and broker not in self._watches:
                self._watches[broker] = (info.epoch, asyncio.create_task(self._watch(info)))

    async def stop(self) -> None:
        self.apply({})

    async def _watch(self, info: BrokerInfo) -> None:
        identity = {"role": NEIGHBOUR_ROLE, "broker_id": self._broker_id}
        delay_s = 0.0
        while True:
            await asyncio.sleep(delay_s)
            delay_s = min(max(_RETRY_S, 2 * delay_s), _LONGEST_RETRY_S)
            try:
                async with asyncio.timeout(_CONNECT_WITHIN_S):
                    link = await connect_tcp(info.link_host, info.link_port, self._secret, identity)
            except (ConnectionError, LinkError):
                self._suspects.add(info.id)
                continue
            except (OSError, TimeoutError):
                continue  # nobody knows
            try:
                if (link.peer.get("broker_id"), link.peer.get("broker_epoch")) != (info.id, info.epoch):
                    self._suspects.add(info.id)
                    continue
                self._suspects.discard(info.id)
                link.start(on_close=lambda _: self._suspect(info))
                delay_s = 0.0
                self._links[info.id] = link
                await asyncio.wait([link.ended])
            finally:
                if self._links.get(info.id) is link:
                    del self._links[info.id]
                link.close()

    def _suspect(self, info: BrokerInfo) -> None:
        watch = self._watches.get(info.id)
        if watch is not None and watch[0] == info.epoch:
            self._suspects.add(info.id)
            logger.warning("broker %d has cut its connection", info.id)


def _is_established(link: Link) -> bool:
    """Whether the other end has neither closed nor reset the connection, as far as the kernel knows by now."""
    if link.is_closed or link.transport.is_closing():
        return False
    connection = link.transport.get_extra_info("socket")
    return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED)
