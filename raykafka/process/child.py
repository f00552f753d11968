"""The shell of a broker's coordinator and controller: a Ray actor, or for tests a plain process, that lives as long as
its link to the broker."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from raykafka.process.log_output import log_to_stderr
from raykafka.process.priority import take_normal_priority

SECRET_VARIABLE = "RAYKAFKA_SECRET_HEX"

logger = logging.getLogger(__name__)


def identity(role: str, token: str, broker_id: int, actor_id: str) -> dict[str, Any]:
    """Who a child is, for the handshake with its broker."""
    return {"role": role, "pid": os.getpid(), "token": token, "actor_id": actor_id, "broker_id": broker_id}


async def live_as_actor(title: str, serve: Callable[[str], Coroutine[Any, Any, None]]) -> NoReturn:
    """The ``run`` of a Ray actor: ``serve`` with its actor id, then end the process (rule 4)."""
    take_normal_priority()
    log_to_stderr()
    import ray
    import ray._raylet

    ray._raylet.setproctitle(f"raykafka::{title}")
    await live(title, serve(ray.get_runtime_context().get_actor_id() or ""))


async def live(title: str, serving: Coroutine[Any, Any, None]) -> NoReturn:
    """End the process once ``serving`` has ended. Blocking calls in threads may not keep it."""
    try:
        await serving
    except Exception:
        logger.exception("the %s ends", title)
        os._exit(1)
    os._exit(0)


def arguments(module: str, argv: list[str] | None, *more: tuple[str, dict[str, Any]]) -> argparse.Namespace:
    """What a plain process was started with; ``config`` is a dict, ``secret`` comes from the environment, in hex."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--broker-id", type=int, required=True)
    parser.add_argument("--config", action="append", default=[], metavar="KEY=VALUE")
    for name, options in more:
        parser.add_argument(name, **options)
    found = parser.parse_args(argv)
    found.config = dict(pair.split("=", 1) for pair in found.config)
    found.secret = bytes.fromhex(os.environ[SECRET_VARIABLE])
    return found
