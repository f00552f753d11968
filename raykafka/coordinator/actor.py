"""The process of a group coordinator: a Ray actor, or for tests a plain process, around ``Coordinator``.

It lives as long as its link to the broker.
"""

from __future__ import annotations

import asyncio
from typing import Any

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
    """A Coordinator on its link. ``ended`` is done when the link is."""

    def __init__(self, link: Link, config: dict[str, str]) -> None:
        self._link = link
        self._log = LinkedTopicLog(OFFSETS_TOPIC, link)
        self.coordinator = Coordinator(GroupConfig.from_broker_config(config), self._log)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        self.coordinator.start()
        self._link.start(self._log.frame_received, self._closed, self.coordinator.on_call, self._on_forward)

    async def _on_forward(self, payload: memoryview) -> list[bytes | bytearray | memoryview]:
        return await dispatch.serve_forwarded(gate(), self.coordinator, *unpack_forward(payload))

    def _closed(self, error: Exception | None) -> None:
        self.coordinator.stop()
        self._log.closed()
        if not self.ended.done():
            self.ended.set_result(None)


async def serve(parent: Parent, broker_id: int, config: dict[str, str]) -> None:
    """Connect to the broker and serve it until the link ends. Raises OSError or LinkError if it can't be reached."""
    link = await connect_unix(parent.socket_path, parent.secret, parent.identity(ROLE, broker_id=broker_id))
    server = CoordinatorServer(link, config)
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
