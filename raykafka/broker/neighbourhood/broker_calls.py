"""Calls between brokers: to each other broker of the image on one link, and the answers to theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from raykafka.cluster.image import ClusterImage
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link, connect_tcp

BROKER_ROLE = "broker"

Answer = Callable[[dict[str, Any]], Awaitable[Any]]


class BrokerCallsServer(Protocol):
    """What this needs of its broker."""

    broker_id: int

    @property
    def image(self) -> ClusterImage: ...


class BrokerCalls:
    """``answers`` has the coroutine function that answers each method, given its arguments (rule 14's pings go on other
    links: these exist only once something was asked)."""

    def __init__(self, server: BrokerCallsServer, secret: bytes) -> None:
        self._server = server
        self._secret = secret
        self._links: dict[int, tuple[int, Link]] = {}
        self.answers: dict[str, Answer] = {}

    def take(self, link: Link) -> None:
        """Another broker has connected: answer what it asks on ``link``."""
        link.start(on_call=self.answer)

    async def answer(self, method: str, args: dict[str, Any]) -> Any:
        """The answer to another broker's call. Raises KafkaError."""
        answer = self.answers.get(method)
        if answer is None:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"a broker does not answer {method!r} to other brokers")
        return await answer(args)

    async def call(self, broker: int, method: str, args: dict[str, Any], within_s: float) -> Any:
        """Call ``method`` of the life of ``broker`` that the image shows; its answer. Raises KafkaError as that broker
        raised it, OSError, LinkError, or TimeoutError after ``within_s`` seconds."""
        try:
            async with asyncio.timeout(within_s):
                return await (await self._link(broker)).call(method, args)
        except (OSError, LinkError, TimeoutError):
            known = self._links.pop(broker, None)
            if known is not None:
                known[1].close()
            raise

    async def _link(self, broker: int) -> Link:
        info = self._server.image.brokers.get(broker)
        if info is None:
            raise LinkError("it is not registered")
        known = self._links.get(broker)
        if known is not None and known[0] == info.epoch and not known[1].is_closed:
            return known[1]
        identity = {"role": BROKER_ROLE, "broker_id": self._server.broker_id}
        link = await connect_tcp(info.link_host, info.link_port, self._secret, identity)
        if (link.peer.get("broker_id"), link.peer.get("broker_epoch")) != (broker, info.epoch):
            link.close()
            raise LinkError("another life or broker answers on its port")
        link.start()
        if known is not None:
            known[1].close()
        self._links[broker] = info.epoch, link
        return link

    def close(self) -> None:
        """Close the links that calls went on."""
        for _, link in self._links.values():
            link.close()
