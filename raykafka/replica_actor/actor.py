"""The ReplicaActor: a process that writes any number of partitions' logs and serves clients, for as long as its
broker's socket is open.

Its broker starts it as a Ray actor; ``python -m raykafka.replica_actor.actor`` runs the same as a plain process, with
the secret in RAYKAFKA_SECRET_HEX.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link, connect_unix, handover, serve_unix
from raykafka.process import open_files
from raykafka.process.child import Parent, live_as_actor, live_plain
from raykafka.process.priority import give_way
from raykafka.replica_actor.server import ReplicaActorServer

ROLE = "replica"
_THREADS = 32


async def serve(parent: Parent) -> None:
    """Connect to the broker and serve it until the link ends. Raises OSError or LinkError if it can't be reached."""
    open_files.allow_many()
    # all replicas share these threads: a disk that stalls for some of them must leave threads for the others
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="disk"))
    directory = os.path.dirname(parent.socket_path)
    links, handed_over = (os.path.join(directory, f"a{os.getpid()}{suffix}") for suffix in (".sock", handover.SUFFIX))
    with ExitStack() as leaving:
        for path in (links, handed_over):
            with suppress(FileNotFoundError):
                os.unlink(path)
            leaving.callback(_unlink, path)
        handed = handover.listen(handed_over)
        leaving.callback(handed.close)
        made: asyncio.Future[ReplicaActorServer] = asyncio.get_running_loop().create_future()

        def accept(link: Link) -> None:
            made.add_done_callback(lambda _: made.result().accept(link))

        listening = await serve_unix(links, parent.secret, {"role": ROLE}, accept)
        leaving.callback(listening.close)
        link = await connect_unix(
            parent.socket_path, parent.secret, parent.identity(ROLE, links=links, fds=handed_over)
        )
        link.ended.add_done_callback(lambda _: give_way())

        async def begin(method: str, args: dict[str, Any]) -> dict[str, Any]:
            if method != "begin":
                raise KafkaError(
                    ErrorCode.INVALID_REQUEST, f"a replica actor that has not begun does not know {method!r}"
                )
            server = ReplicaActorServer(link, parent.secret, handed, args, _show_title)
            server.start()
            made.set_result(server)
            return {}

        def ended(_: object) -> None:
            if not made.done():
                made.set_exception(LinkError("the broker ended before it said what to be"))

        link.start(on_call=begin, on_close=ended)
        server = await made
        # what was made until here lives as long as the process: the collector need not look at it again and again
        gc.collect()
        gc.freeze()
        await server.ended


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _show_title(title: str) -> None:
    """Name the process where ``ps`` shows it. Ray brings the call; a plain process goes without."""
    ray = sys.modules.get("ray")
    if ray is not None:
        ray._raylet.setproctitle(f"raykafka::{title}")


class ReplicaActor:
    """The Ray actor. ``run`` ends the process when the link to the broker has ended (rule 4)."""

    async def run(self, socket_path: str, secret: bytes, token: str, arguments: dict[str, Any]) -> None:
        await live_as_actor(ROLE, serve, Parent(socket_path, secret, token), arguments)


if __name__ == "__main__":
    live_plain(ROLE, serve)
