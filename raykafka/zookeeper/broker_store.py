"""What a broker keeps in ZooKeeper: the cluster's id, its registration and broker epoch, blocks of producer ids.

Everything here blocks (run it in a thread) and raises kazoo's SessionExpiredError once the session is gone.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from raykafka.cluster.image import BrokerInfo
from raykafka.errors import RaykafkaError
from raykafka.process.clock import boot_clock
from raykafka.zookeeper import paths, znodes
from raykafka.zookeeper.client import (
    Check,
    Conflict,
    Create,
    Delete,
    Operation,
    Write,
    close,
    commit,
    connect,
    create_if_missing,
    ensure_path,
    reading,
)
from raykafka.zookeeper.znodes import Registration

__all__ = [
    "BrokerIdTaken",
    "Registration",
    "allocate_producer_id_block",
    "close",
    "connect",
    "ensure_cluster_id",
    "ensure_layout",
    "read_registration",
    "register_broker",
    "unregister_broker",
]

_POLL_S = 0.1
_MAX_PRODUCER_ID = (1 << 63) - 1


class BrokerIdTaken(RaykafkaError):
    """Another live broker, on another data directory, is registered under this id."""


def ensure_layout(client: KazooClient) -> None:
    """Create the persistent parents that everybody writes under."""
    for path in paths.PERSISTENT_PATHS:
        ensure_path(client, path)


def ensure_cluster_id(client: KazooClient) -> str:
    """The cluster's id (22 characters, as Kafka makes them); made by whoever asks first."""
    while True:
        try:
            return znodes.unpack_cluster_id(reading(lambda: client.get(paths.CLUSTER_ID))[0])
        except NoNodeError:
            made = znodes.pack_cluster_id(znodes.kafka_uuid_text(znodes.new_kafka_uuid()))
            create_if_missing(client, paths.CLUSTER_ID, made)


def read_registration(
    client: KazooClient, broker_id: int, watch: Callable[[Any], None] | None = None
) -> Registration | None:
    """The broker's registration, or None. ``watch`` is called once, in a kazoo thread, when it changes or goes."""
    try:
        data, _ = reading(lambda: client.get(paths.broker_path(broker_id), watch=watch))
    except NoNodeError:
        return None
    return znodes.unpack_registration(broker_id, data)


def register_broker(
    client: KazooClient, info: BrokerInfo, wait_s: float = 0.0, *, closed_in: int | None = None
) -> Registration:
    """Begin a life of broker ``info.id`` (rule 13) and return its registration with the broker epoch filled in.
    ``closed_in`` is the broker epoch of the life that closed all logs of this data directory: with any other life since
    then, the last shutdown was not clean (rule 18).

    One transaction raises ``/brokers/epochs/N`` and creates the ephemeral ``/brokers/ids/N``. A predecessor on the
    same data directory (``directory_id``; the caller holds that directory's lock) is removed in the same transaction.
    One on another directory is waited for during ``wait_s`` and then raises BrokerIdTaken.
    """
    ensure_layout(client)
    epoch_path, id_path = paths.broker_epoch_path(info.id), paths.broker_path(info.id)
    incarnation = uuid.uuid4().hex
    deadline = boot_clock() + wait_s
    while True:
        last, epoch_version = _last_life(client, epoch_path)
        predecessor = read_registration(client, info.id)
        if predecessor is not None and predecessor.info.directory_id != info.directory_id:
            if boot_clock() < deadline:
                time.sleep(_POLL_S)
                continue
            where = ", ".join(f"{e.host}:{e.port}" for e in predecessor.info.endpoints)
            raise BrokerIdTaken(
                f"broker id {info.id} is taken by a broker at {where} on another data directory: "
                "stop that one, or give this one another id."
            )
        begun = replace(info, epoch=epoch_version + 1, clean_shutdown=closed_in == epoch_version)
        mine = znodes.next_registration(begun, incarnation, last)

        operations: list[Operation] = [Write(epoch_path, znodes.pack_epoch(mine), epoch_version)]
        if predecessor is not None:
            operations.append(Delete(id_path))
        operations.append(Create(id_path, znodes.pack_registration(mine), ephemeral=True))
        try:
            commit(client, operations)
        except Conflict:
            continue  # another life, or the controller removing the predecessor, came between the reads and the write
        return mine


def _last_life(client: KazooClient, path: str) -> tuple[bytes, int]:
    """Data and version of the epoch node, which is made here if it is missing."""
    while True:
        try:
            data, stat = reading(lambda: client.get(path))
            return data, stat.version
        except NoNodeError:
            create_if_missing(client, path, b"")


def unregister_broker(client: KazooClient, registration: Registration) -> bool:
    """Take back one's own registration, if it still stands. False if it was gone or another life's already."""
    info = registration.info
    try:
        commit(client, removal(info))
    except Conflict:
        return False
    return True


def removal(info: BrokerInfo) -> list[Operation]:
    """What removes that very life of a broker (rule 13). The controller adds a check of its own epoch."""
    return [Check(paths.broker_epoch_path(info.id), info.epoch), Delete(paths.broker_path(info.id))]


def allocate_producer_id_block(client: KazooClient, broker_id: int) -> tuple[int, int]:
    """Reserve 1,000 producer ids for this broker; (first, last), both inclusive. No two calls ever get the same ids.

    A block whose reservation has an unknown outcome (lost connection) is skipped, which loses nothing but numbers.
    """
    while True:
        try:
            data, stat = reading(lambda: client.get(paths.PRODUCER_ID_BLOCK))
        except NoNodeError:
            create_if_missing(client, paths.PRODUCER_ID_BLOCK, b"")
            continue
        first = znodes.unpack_producer_ids(data)[2] + 1 if data else 0
        last = first + znodes.PRODUCER_ID_BLOCK_SIZE - 1
        if last > _MAX_PRODUCER_ID:
            raise RaykafkaError("every producer id there is has been handed out")
        block = Write(paths.PRODUCER_ID_BLOCK, znodes.pack_producer_ids(broker_id, first, last), stat.version)
        try:
            commit(client, [block], read_back=False)
        except Conflict:
            continue
        return first, last
