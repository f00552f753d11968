"""The process of a broker's child, whichever it is: a Ray actor, or for tests a plain process, that lives as long as
its link to the broker (rule 4).

A child's module has ``serve(parent, **arguments)``, which connects to the broker and returns when that link has ended.
Its Ray actor's ``run`` is ``live_as_actor`` around that, and ``python -m`` of the module ``live_plain``: both take the
same arguments, JSON-able.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple, NoReturn

from raykafka.process.log_output import log_to_stderr
from raykafka.process.priority import take_normal_priority

SECRET_VARIABLE = "RAYKAFKA_SECRET_HEX"

Serve = Callable[..., Coroutine[Any, Any, None]]

logger = logging.getLogger(__name__)


class Parent(NamedTuple):
    """How a child reaches its broker, and shows that it is the one that was started: the broker's Unix socket, the
    cluster's secret, the token that the broker gave this child. ``actor_id`` is Ray's, "" in a plain process."""

    socket_path: str
    secret: bytes
    token: str
    actor_id: str = ""

    def identity(self, role: str, **more: Any) -> dict[str, Any]:
        """Who this process is, for the handshake with its broker."""
        return {"role": role, "pid": os.getpid(), "token": self.token, "actor_id": self.actor_id, **more}


async def live_as_actor(
    name: str, serve: Serve, parent: Parent, arguments: Mapping[str, Any], title: str = ""
) -> NoReturn:
    """The ``run`` of a Ray actor: serve, then end the process. ``title`` is what ``ps`` shows, Ray's own without."""
    take_normal_priority()
    log_to_stderr()
    import ray
    import ray._raylet

    if title:
        ray._raylet.setproctitle(f"raykafka::{title}")
    actor_id = ray.get_runtime_context().get_actor_id() or ""
    await _live(name, serve(parent._replace(actor_id=actor_id), **arguments))


def live_plain(name: str, serve: Serve) -> NoReturn:
    """The main of ``python -m raykafka.<name>.actor``, on the event loop that Ray's actors have; the secret comes from
    the environment, in hex."""
    import uvloop

    log_to_stderr()
    parser = argparse.ArgumentParser(prog=f"python -m raykafka.{name}.actor")
    parser.add_argument("--socket", required=True, help="the broker's Unix socket")
    parser.add_argument("--token", required=True, help="the token that the broker gave this child")
    parser.add_argument("--arguments", type=json.loads, default={}, metavar="JSON", help="those of serve, by name")
    found = parser.parse_args()
    parent = Parent(found.socket, bytes.fromhex(os.environ[SECRET_VARIABLE]), found.token)
    uvloop.run(_live(name, serve(parent, **found.arguments)))


async def _live(name: str, serving: Coroutine[Any, Any, None]) -> NoReturn:
    """End the process once ``serving`` has ended. Neither Ray's exit path, nor a finalizer, nor a blocking call in a
    thread may keep a process alive that has lost its broker."""
    try:
        await serving
    except Exception:
        logger.exception("the %s ends", name)
        os._exit(1)
    os._exit(0)
