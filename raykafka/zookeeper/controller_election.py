"""The election of the controller in ZooKeeper: who is it now, claiming ``/controller``, taking a dead one's place
(rule 16).

Everything here blocks (run it in a thread) and raises kazoo's SessionExpiredError once the session is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from raykafka.zookeeper import paths
from raykafka.zookeeper.broker_store import ensure_layout
from raykafka.zookeeper.client import Check, Conflict, Create, Delete, Write, commit, create_if_missing, reading
from raykafka.zookeeper.znodes import ControllerNode


@dataclass(frozen=True, slots=True)
class Claim:
    """A won election: the epoch, and the version of ``/controller_epoch`` that every write checks."""

    epoch: int
    version: int


def read_controller(
    client: KazooClient, watch: Callable[[Any], None] | None = None
) -> tuple[ControllerNode | None, int]:
    """Who is active, and the version of ``/controller_epoch`` read before that (-1: there was never one)."""
    stat = reading(lambda: client.exists(paths.CONTROLLER_EPOCH))
    version = stat.version if stat else -1
    try:
        return ControllerNode.unpack(reading(lambda: client.get(paths.CONTROLLER, watch=watch))[0]), version
    except NoNodeError:
        # a watch on a node that is not there yet
        if watch is not None and reading(lambda: client.exists(paths.CONTROLLER, watch=watch)) is not None:
            return read_controller(client, watch)
        return None, version


def claim_controller(client: KazooClient, node: ControllerNode) -> Claim | None:
    """Become the active controller: create ``/controller`` and raise ``/controller_epoch`` in one transaction (rule
    16). None when somebody else was faster."""
    ensure_layout(client)
    create_if_missing(client, paths.CONTROLLER_EPOCH, b"0")
    data, stat = reading(lambda: client.get(paths.CONTROLLER_EPOCH))
    epoch = int(data) + 1
    try:
        commit(
            client,
            [
                Create(paths.CONTROLLER, node.pack(), ephemeral=True),
                Write(paths.CONTROLLER_EPOCH, str(epoch).encode(), stat.version),
            ],
        )
    except Conflict:
        return None
    return Claim(epoch, stat.version + 1)


def succeed_controller(client: KazooClient, node: ControllerNode, epoch_version: int) -> Claim | None:
    """Take the place of a controller that was found dead, in one transaction: ``/controller`` becomes ours and the
    epoch goes up (rule 16). None when somebody else was faster."""
    data, stat = reading(lambda: client.get(paths.CONTROLLER_EPOCH))
    if stat.version != epoch_version:
        return None
    epoch = int(data) + 1
    try:
        commit(
            client,
            [
                Write(paths.CONTROLLER_EPOCH, str(epoch).encode(), epoch_version),
                Delete(paths.CONTROLLER),
                Create(paths.CONTROLLER, node.pack(), ephemeral=True),
            ],
        )
    except Conflict:
        return None
    return Claim(epoch, epoch_version + 1)


def depose_controller(client: KazooClient, epoch_version: int) -> None:
    """Remove ``/controller`` of a controller that was found dead, unless another epoch has begun since."""
    with contextlib.suppress(Conflict):
        commit(client, [Check(paths.CONTROLLER_EPOCH, epoch_version), Delete(paths.CONTROLLER)])
