"""The watch for silent brokers: a link to every other live one, which tells of a death before the controller has
decided what follows from it.

A client whose connection broke asks the brokers that are left who leads now, at once and then perhaps not for a second
or more. While a broker is suspected to be dead, since its socket ended or it answers no ping, Metadata names no leader
for what it led, so that clients ask again soon; nothing else follows from a suspicion (rule 14). How long each has been
silent is told to a new controller, whose predecessor may have gone with it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Set

from raykafka.cluster.image import BrokerInfo
from raykafka.errors import LinkError
from raykafka.link import Link, connect_tcp
from raykafka.link.link import PING_INTERVAL_S
from raykafka.process.clock import boot_clock
from raykafka.process.tasks import TaskSet

NEIGHBOUR_ROLE = "neighbour"
SUSPECT_AFTER_S = 3.0
_CONNECT_WITHIN_S = 2.0
_RETRY_S = 0.1
_LONGEST_RETRY_S = 2.0
_TICK_S = 0.25
_ESTABLISHED = 1  # the first byte of Linux's tcp_info is the connection's state

logger = logging.getLogger(__name__)


class Neighbours:
    """Watches the other brokers of the image, for broker ``broker_id``. ``suspected(brokers)`` is called whenever
    ``suspects`` are others than before."""

    def __init__(self, broker_id: int, secret: bytes, suspected: Callable[[Set[int]], None] = lambda _: None) -> None:
        self._broker_id = broker_id
        self._suspected = suspected
        self._told: Set[int] = frozenset()
        self._secret = secret
        self._tasks = TaskSet("neighbours")
        self._watches: dict[int, tuple[int, asyncio.Task[None]]] = {}
        self._suspects: set[int] = set()
        self._links: dict[int, Link] = {}
        self._silent_s: dict[int, float] = {}
        self._counts = False

    @property
    def suspects(self) -> Set[int]:
        """The brokers that seem dead: refused, cut off, or silent for SUSPECT_AFTER_S."""
        # Who asks may have seen the end before this event loop gets to its own: so the kernel is asked.
        ended = {broker for broker, link in self._links.items() if not _is_established(link)}
        silent = {broker for broker, silent_s in self._silent_s.items() if silent_s > SUSPECT_AFTER_S}
        return self._suspects | ended | silent

    def _look(self) -> None:
        suspects = self.suspects
        if suspects != self._told:
            self._told = suspects
            self._suspected(suspects)

    @property
    def watched(self) -> Set[int]:
        """The brokers to which a connection is open."""
        return self._links.keys()

    @property
    def silences(self) -> dict[int, tuple[int, float]]:
        """Of each other broker: the epoch of its life, and for how many seconds that has given no sign of itself."""
        return {broker: (self._watches[broker][0], silent_s) for broker, silent_s in self._silent_s.items()}

    def apply(self, brokers: Mapping[int, BrokerInfo]) -> None:
        """Watch these lives of brokers, and no others."""
        for broker, (epoch, task) in list(self._watches.items()):
            if broker not in brokers or brokers[broker].epoch != epoch:
                del self._watches[broker]
                del self._silent_s[broker]
                self._suspects.discard(broker)
                task.cancel()
        self._look()
        for broker, info in brokers.items():
            if broker != self._broker_id and broker not in self._watches:
                self._silent_s[broker] = 0.0
                self._watches[broker] = info.epoch, self._tasks.run(self._watch(info))
        if not self._counts:
            self._counts = True
            self._tasks.run(self._count())

    async def stop(self) -> None:
        """Watch nobody any more. Not to be started again."""
        self.apply({})
        self._tasks.cancel()

    async def _count(self) -> None:
        """Let the silences grow by the time in which this event loop ran: after a stall of its own, signs of life may
        lie there unread."""
        while True:
            began = boot_clock()
            await asyncio.sleep(_TICK_S)
            ran_s = min(boot_clock() - began, 2 * _TICK_S)
            for broker in self._silent_s:
                self._silent_s[broker] += ran_s
            self._look()

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
                self._look()
                continue
            except (OSError, TimeoutError):
                continue  # nobody knows
            try:
                if (link.peer.get("broker_id"), link.peer.get("broker_epoch")) != (info.id, info.epoch):
                    self._suspects.add(info.id)
                    continue
                self._suspects.discard(info.id)
                link.start()
                link.ended.add_done_callback(lambda _: self._look())
                delay_s = 0.0
                self._links[info.id] = link
                self._look()
                await self._listen(link, info)
            except LinkError:
                self._suspects.add(info.id)
                logger.warning("broker %d has cut its connection", info.id)
            except TimeoutError:
                logger.warning("broker %d has been silent for %g s", info.id, SUSPECT_AFTER_S)
            finally:
                if self._links.get(info.id) is link:
                    del self._links[info.id]
                link.transport.abort()

    async def _listen(self, link: Link, info: BrokerInfo) -> None:
        """Ping until the connection ends (LinkError), or until another one may do better than this (TimeoutError): the
        kernel sends again what was lost only at growing distances."""
        while True:
            self._silent_s[info.id] = 0.0
            await asyncio.wait([link.ended], timeout=PING_INTERVAL_S)
            await link.ping(SUSPECT_AFTER_S)


def _is_established(link: Link) -> bool:
    """Whether the other end has neither closed nor reset the connection, as far as the kernel knows by now."""
    if link.is_closed or link.transport.is_closing():
        return False
    connection = link.transport.get_extra_info("socket")
    return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED)
