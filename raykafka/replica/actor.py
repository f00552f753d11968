"""The PartitionReplica actor: a process that writes one partition's log, for as long as its broker's socket is open.

It imports little, so that it starts quickly. Its broker starts it as a Ray actor; ``python -m
raykafka.replica.actor`` runs the same as a plain process, with the secret in RAYKAFKA_SECRET_HEX.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import suppress

from raykafka.link import connect_unix, handover
from raykafka.process.log_output import log_to_stderr
from raykafka.process.priority import give_way, take_normal_priority
from raykafka.replica.server import ReplicaServer


class PartitionReplica:
    """One replica process. ``run`` never returns: the process ends when the link to the broker does (rule 4)."""

    async def run(self, socket_path: str, secret: bytes, token: str) -> None:
        """Connect to the broker, serve it until the link ends, then end the process."""
        take_normal_priority()
        log_to_stderr()
        await serve(socket_path, secret, token, _actor_id())
        # Neither Ray's exit path nor a finalizer may keep a process alive that has lost its broker.
        os._exit(0)


async def serve(socket_path: str, secret: bytes, token: str, actor_id: str) -> None:
    """Serve the broker that listens on ``socket_path`` until the link ends. Raises OSError or LinkError if it can't be
    opened."""
    path = os.path.join(os.path.dirname(socket_path), f"r{os.getpid()}{handover.SUFFIX}")
    with suppress(FileNotFoundError):
        os.unlink(path)
    streams = handover.listen(path)
    try:
        identity = {"role": "replica", "pid": os.getpid(), "token": token, "actor_id": actor_id, "streams": path}
        link = await connect_unix(socket_path, secret, identity)
        link.ended.add_done_callback(lambda _: give_way())
        server = ReplicaServer(link, secret, streams, _show_title)
        server.start()
        await server.ended
    finally:
        streams.close()
        with suppress(FileNotFoundError):
            os.unlink(path)


def _actor_id() -> str:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return ""
    return ray.get_runtime_context().get_actor_id() or ""


def _show_title(partition: str) -> None:
    """Name the partition where ``ps`` shows the process. Ray brings the call; a plain process goes without."""
    ray = sys.modules.get("ray")
    if ray is not None:
        ray._raylet.setproctitle(f"raykafka replica {partition}")


def main() -> None:
    """Run a replica as a plain process, without Ray."""
    parser = argparse.ArgumentParser(prog="python -m raykafka.replica.actor")
    parser.add_argument("--socket", required=True, help="the broker's Unix socket")
    parser.add_argument("--token", required=True, help="the token the broker gave this child")
    options = parser.parse_args()
    log_to_stderr()
    secret = bytes.fromhex(os.environ["RAYKAFKA_SECRET_HEX"])
    asyncio.run(serve(options.socket, secret, options.token, ""))


if __name__ == "__main__":
    main()
