"""The PartitionReplica actor: a process that writes one partition's log, for as long as its broker's socket is open.

It imports little, so that it starts quickly. Its broker starts it as a Ray actor; ``python -m
raykafka.replica.actor`` runs the same as a plain process, with the secret in RAYKAFKA_SECRET_HEX.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from raykafka.link import connect_unix, handover
from raykafka.process.child import Parent, live_as_actor, live_plain
from raykafka.process.priority import give_way
from raykafka.replica.server import ReplicaServer

ROLE = "replica"


async def serve(parent: Parent) -> None:
    """Connect to the broker and serve it until the link ends. Raises OSError or LinkError if it can't be reached."""
    path = os.path.join(os.path.dirname(parent.socket_path), f"r{os.getpid()}{handover.SUFFIX}")
    with suppress(FileNotFoundError):
        os.unlink(path)
    streams = handover.listen(path)
    try:
        link = await connect_unix(parent.socket_path, parent.secret, parent.identity(ROLE, streams=path))
        link.ended.add_done_callback(lambda _: give_way())
        server = ReplicaServer(link, parent.secret, streams, _show_title)
        server.start()
        await server.ended
    finally:
        streams.close()
        with suppress(FileNotFoundError):
            os.unlink(path)


def _show_title(partition: str) -> None:
    """Name the partition where ``ps`` shows the process. Ray brings the call; a plain process goes without."""
    ray = sys.modules.get("ray")
    if ray is not None:
        ray._raylet.setproctitle(f"raykafka replica {partition}")


class PartitionReplica:
    """The Ray actor. ``run`` ends the process when the link to the broker has ended (rule 4)."""

    async def run(self, socket_path: str, secret: bytes, token: str, arguments: dict[str, Any]) -> None:
        await live_as_actor(ROLE, serve, Parent(socket_path, secret, token), arguments)


if __name__ == "__main__":
    live_plain(ROLE, serve)
