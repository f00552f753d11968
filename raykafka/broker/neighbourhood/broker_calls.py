"""Calls to the other brokers of the image, on one link to each, and the answers to theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from raykafka.cluster.image import ClusterImage
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link, connect_tcp

PEER_ROLE = "peer"

Answer = Callable[[dict[str, Any]], Awaitable[Any]]


class BrokerCallsServer(Protocol):
    """What this needs of its broker."""

    broker_id: int

    @property
    def image(self) -> ClusterImage: ...


class BrokerCalls:
    """``answers`` has the coroutine function that answers each method, given its arguments."""

    def __init__(self, server: BrokerCallsServer, secret: bytes) -> None:
        self._server = server
        self._secret = secret
        self._links: dict[int, tuple[int, Link]] = {}
        self.answers: dict[str, Answer] = {}

    async def answer(self, method: str, args: dict[str, Any]) -> Any:
        """What another broker asks. Raises KafkaError."""
        answer = self.answers.get(method)
        if answer is None:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"a broker does not answer {method!r} to its peers")
        return await answer(args)

    async def call(self, broker: int, method: str, args: dict[str, Any], within_s: float) -> Any:
        """What the life of ``broker`` that the image shows answers. Raises OSError, KafkaError, LinkError,
        TimeoutError."""
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
        identity = {"role": PEER_ROLE, "broker_id": self._server.broker_id}
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
        for _, link in self._links.values():
            link.close()
