"""The process of a controller: a Ray actor, or for tests a plain process, around ``Controller``.

It lives as long as its link to the broker: a controller without its broker is none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from raykafka.controller.controller import Controller
from raykafka.link import connect_unix
from raykafka.logs import log_to_stderr
from raykafka.priority import take_normal_priority
from raykafka.protocol import registry

ROLE = "controller"
SECRET_VARIABLE = "RAYKAFKA_SECRET_HEX"

logger = logging.getLogger(__name__)


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
    identity = {
        "role": ROLE,
        "pid": os.getpid(),
        "token": token,
        "actor_id": actor_id,
        "broker_id": broker_id,
    }
    # before there is a link whose pings have to be answered: it takes seconds on a busy machine
    registry.load(registry.CONTROLLER)
    link = await connect_unix(socket_path, secret, identity)
    controller = Controller(broker_id=broker_id, secret=secret, zookeeper=zookeeper, config=config)
    link.start(on_call=controller.on_call)
    running = asyncio.ensure_future(controller.run())
    await asyncio.wait({running, link.ended}, return_when=asyncio.FIRST_COMPLETED)
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
        take_normal_priority()
        log_to_stderr()
        import ray
        import ray._raylet

        ray._raylet.setproctitle(f"raykafka::controller of broker {broker_id}")
        actor_id = ray.get_runtime_context().get_actor_id() or ""
        try:
            await serve(socket_path, secret, token, broker_id, zookeeper, config, actor_id)
        except Exception:
            logger.exception("the controller of broker %d ends", broker_id)
            os._exit(1)
        os._exit(0)


async def main(argv: list[str] | None = None) -> None:
    """Run as a plain process; the cluster secret is in the environment, in hex."""
    parser = argparse.ArgumentParser(prog="python -m raykafka.controller.actor")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--broker-id", type=int, required=True)
    parser.add_argument("--zookeeper", type=json.loads, required=True, help="hosts, auth, session_timeout_ms as JSON")
    parser.add_argument("--config", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    config = dict(pair.split("=", 1) for pair in args.config)
    secret = bytes.fromhex(os.environ[SECRET_VARIABLE])
    try:
        await serve(args.socket, secret, args.token, args.broker_id, args.zookeeper, config)
    except Exception:
        logger.exception("the controller of broker %d ends", args.broker_id)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    log_to_stderr()
    asyncio.run(main())
