"""The process of a controller: a Ray actor, or for tests a plain process, around ``Controller``.

It lives as long as its link to the broker: a controller without its broker is none.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from raykafka.controller.broker_channels import Silences
from raykafka.controller.candidate import Candidate
from raykafka.controller.deposed_broker import end_deposed_broker
from raykafka.controller.serving import gate
from raykafka.errors import KafkaError, LinkError
from raykafka.link import connect_unix
from raykafka.process.child import arguments, identity, live, live_as_actor
from raykafka.process.log_output import log_to_stderr
from raykafka.process.priority import go_first
from raykafka.protocol.registry import Place

ROLE = "controller"
_ANSWER_WITHIN_S = 0.5


async def serve(
    socket_path: str,
    secret: bytes,
    token: str,
    broker_id: int,
    zookeeper: Mapping[str, Any],
    config: Mapping[str, str],
    actor_id: str = "",
) -> None:
    """Connect to the broker and be its controller until the link ends. Raises OSError or LinkError if it can't be
    reached. A blocking ZooKeeper call may outlive this: end the process after it."""
    # before there is a link whose pings have to be answered: it takes seconds on a busy machine
    gate().apis.load(Place.CONTROLLER)
    go_first()
    link = await connect_unix(socket_path, secret, identity(ROLE, token, broker_id, actor_id))

    async def silences() -> Silences:
        try:
            found = await link.call("silences", {}, _ANSWER_WITHIN_S)
        except (KafkaError, LinkError, TimeoutError):
            return {}
        return {int(broker): (epoch, silent_s) for broker, (epoch, silent_s) in found.items()}

    controller = Candidate(broker_id=broker_id, secret=secret, zookeeper=zookeeper, config=config, silences=silences)
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

    async def run(
        self,
        socket_path: str,
        secret: bytes,
        token: str,
        broker_id: int,
        zookeeper: dict[str, Any],
        config: dict[str, str],
    ) -> None:
        await live_as_actor(
            f"controller of broker {broker_id}",
            lambda actor_id: serve(socket_path, secret, token, broker_id, zookeeper, config, actor_id),
        )


async def main(argv: list[str] | None = None) -> None:
    """Run as a plain process."""
    zookeeper = {"type": json.loads, "required": True, "help": "hosts, auth, session_timeout_ms as JSON"}
    args = arguments("raykafka.controller.actor", argv, ("--zookeeper", zookeeper))
    serving = serve(args.socket, args.secret, args.token, args.broker_id, args.zookeeper, args.config)
    await live(f"controller of broker {args.broker_id}", serving)


if __name__ == "__main__":
    log_to_stderr()
    asyncio.run(main())
