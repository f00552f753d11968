"""The process of a controller: a Ray actor, or for tests a plain process, around ``Controller``.

It lives as long as its link to the broker: a controller without its broker is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from raykafka.controller.broker_channels import Silences
from raykafka.controller.candidate import Candidate
from raykafka.controller.deposed_broker import end_deposed_broker
from raykafka.controller.serving import gate
from raykafka.errors import KafkaError, LinkError
from raykafka.link import connect_unix
from raykafka.process.child import Parent, live_as_actor, live_plain
from raykafka.process.priority import go_first
from raykafka.protocol.registry import Place

ROLE = "controller"
_ANSWER_WITHIN_S = 0.5


async def serve(parent: Parent, broker_id: int, zookeeper: Mapping[str, Any], config: Mapping[str, str]) -> None:
    """Connect to the broker and be its controller until the link ends. Raises OSError or LinkError if it can't be
    reached. A blocking ZooKeeper call may outlive this: end the process after it."""
    # before there is a link whose pings have to be answered: it takes seconds on a busy machine
    gate().apis.load(Place.CONTROLLER)
    go_first()
    link = await connect_unix(parent.socket_path, parent.secret, parent.identity(ROLE, broker_id=broker_id))

    async def silences() -> Silences:
        try:
            found = await link.call("silences", {}, _ANSWER_WITHIN_S)
        except (KafkaError, LinkError, TimeoutError):
            return {}
        return {int(broker): (epoch, silent_s) for broker, (epoch, silent_s) in found.items()}

    controller = Candidate(
        broker_id=broker_id, secret=parent.secret, zookeeper=zookeeper, config=config, silences=silences
    )
    link.start(on_call=controller.on_call)
    running = asyncio.ensure_future(controller.run())
    guarding = asyncio.ensure_future(end_deposed_broker(link, controller.broker_is_deposed))
    await asyncio.wait({running, link.ended}, return_when=asyncio.FIRST_COMPLETED)
    await controller.abandon()
    guarding.cancel()
    if running.done():
        running.result()


class ControllerActor:
    """The Ray actor. ``run`` ends the process when the link to the broker has ended (rule 4)."""

    async def run(self, socket_path: str, secret: bytes, token: str, arguments: dict[str, Any]) -> None:
        title = f"controller of broker {arguments['broker_id']}"
        await live_as_actor(ROLE, serve, Parent(socket_path, secret, token), arguments, title)


if __name__ == "__main__":
    live_plain(ROLE, serve)
