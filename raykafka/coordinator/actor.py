"""The process of a group coordinator: a Ray actor, or for tests a plain process, around ``Coordinator``.

It lives as long as its link to the broker. Everything about groups comes and goes on links to the replica actors of
that broker: requests of their clients, what they go by of the cluster's image, and the log of the coordinator's topic.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from raykafka.coordinator.actor_links import ActorLinks
from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.group_coordinator import Coordinator
from raykafka.coordinator.runtime.topic_log import LinkedTopicLog
from raykafka.coordinator.serving import gate
from raykafka.link import Link, connect_unix
from raykafka.process.child import Parent, live_as_actor, live_plain
from raykafka.protocol import dispatch
from raykafka.protocol.context import unpack_forward
from raykafka.protocol.registry import Place
from raykafka.types import OFFSETS_TOPIC

ROLE = "coordinator"


class CoordinatorServer:
    """A Coordinator on its links: ``link`` is the one to its broker. ``ended`` is done when that is."""

    def __init__(self, link: Link, secret: bytes, broker_id: int, config: dict[str, str]) -> None:
        self._link = link
        self._log = LinkedTopicLog(OFFSETS_TOPIC)
        identity = {"role": ROLE, "broker_id": broker_id, "pid": os.getpid()}
        self._actors = ActorLinks(secret, identity, self._reached)
        self.coordinator = Coordinator(GroupConfig.from_broker_config(config), self._log)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        self.coordinator.start()
        self._link.start(on_close=self._closed, on_call=self._on_call)

    async def _on_call(self, method: str, args: dict[str, Any]) -> Any:
        """What the broker tells: ``actors`` {actors: {number: path}}, all that there are; ``placed`` {partitions:
        [[partition, actor], ...]}, which actor has the log of a partition of the coordinator's topic, -1 for none; and
        what ``Coordinator.answer_broker`` answers."""
        if method == "actors":
            self._actors.name({int(number): path for number, path in args["actors"].items()})
        elif method == "placed":
            self._log.placed(dict(args["partitions"]))
        else:
            return await self.coordinator.answer_broker(method, args)
        return {}

    def _reached(self, actor: int, link: Link) -> None:
        """A link to a replica actor is open."""
        self._log.attach(actor, link)
        link.start(
            self._log.frame_received,
            lambda _: self._log.detach(actor),
            self.coordinator.hear_actor,
            self._on_forward,
        )

    async def _on_forward(self, payload: memoryview) -> list[bytes | bytearray | memoryview]:
        return await dispatch.serve_forwarded(gate(), self.coordinator, *unpack_forward(payload))

    def _closed(self, error: Exception | None) -> None:
        self.coordinator.stop()
        self._actors.close()
        if not self.ended.done():
            self.ended.set_result(None)


async def serve(parent: Parent, broker_id: int, config: dict[str, str]) -> None:
    """Connect to the broker and serve it until the link ends. Raises OSError or LinkError if it can't be reached."""
    link = await connect_unix(parent.socket_path, parent.secret, parent.identity(ROLE, broker_id=broker_id))
    server = CoordinatorServer(link, parent.secret, broker_id, config)
    server.start()
    # schemas in a thread, and not only when the first group asks: the broker kills a child whose event loop is silent
    await asyncio.gather(server.ended, asyncio.to_thread(gate().apis.load, Place.COORDINATOR))


class GroupCoordinator:
    """The Ray actor. ``run`` ends the process when the link to the broker has ended (rule 4)."""

    async def run(self, socket_path: str, secret: bytes, token: str, arguments: dict[str, Any]) -> None:
        title = f"coordinator of broker {arguments['broker_id']}"
        await live_as_actor(ROLE, serve, Parent(socket_path, secret, token), arguments, title)


if __name__ == "__main__":
    live_plain(ROLE, serve)
