"""The replica process of one partition, as its broker acquires it, has it open the log, tells it of changes and lets it
go. What is decided by its answers, and by its end, is its partition's (``partition_host``)."""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from raykafka.cluster.image import PartitionState, partition_to_json
from raykafka.link import Link
from raykafka.log import lock_holder
from raykafka.types import TopicPartition

ACQUIRE_WITHIN_S = 30.0
CLOSE_WITHIN_S = 30.0
LEAVE_WITHIN_S = 3.0
LOCK_POLL_S = 0.01

logger = logging.getLogger(__name__)


class ReplicaChild(Protocol):
    """A replica process of this broker, connected and nobody's yet. ``note`` says for people what it is for."""

    note: str

    @property
    def link(self) -> Link: ...
    @property
    def actor_id(self) -> str: ...
    @property
    def pid(self) -> int: ...
    def hand_over(self, connection: socket.socket, peer: dict[str, Any]) -> None: ...
    def kill(self) -> None: ...


class ReplicaSource(Protocol):
    async def acquire_replica(self) -> ReplicaChild: ...


class Orders(NamedTuple):
    """What a replica goes by. ``holders`` are the live brokers that hold the partition: link host, link port and broker
    epoch of each."""

    state: PartitionState
    config: Mapping[str, str]
    holders: Mapping[int, tuple[str, int, int]]


class ReplicaProcess:
    """``child`` is the process, None while there is none; ``told`` what it goes by, None until it has opened the
    log."""

    def __init__(self, tp: TopicPartition, directory: Path, source: ReplicaSource) -> None:
        self.child: ReplicaChild | None = None
        self.told: Orders | None = None
        self._tp = tp
        self._directory = directory
        self._source = source
        self._leaving: ReplicaChild | None = None

    async def log_is_free(self) -> None:
        """Wait until the last process has let the log go (rule 4); it is killed if that takes long."""
        leaving = self._leaving
        if leaving is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LEAVE_WITHIN_S
        while _is_locked(self._directory):
            if loop.time() > deadline:
                logger.error("%s: process %d holds the log and is killed", self._tp, leaving.pid)
                leaving.kill()
                deadline += LEAVE_WITHIN_S
            await asyncio.sleep(LOCK_POLL_S)
        self._leaving = None

    async def acquire(self, waited_long: Callable[[], None]) -> ReplicaChild:
        """A replica process that is nobody's yet, once the log is free. ``waited_long`` is called each time when
        ACQUIRE_WITHIN_S have passed: appends do not wait for it forever; who opens a log that is on disk does."""
        await self.log_is_free()
        acquiring = asyncio.ensure_future(self._source.acquire_replica())
        try:
            while not (await asyncio.wait([acquiring], timeout=ACQUIRE_WITHIN_S))[0]:
                logger.warning("%s has waited %.0f s for a replica process", self._tp, ACQUIRE_WITHIN_S)
                waited_long()
        except asyncio.CancelledError:
            acquiring.cancel()
            raise
        return acquiring.result()

    async def open(
        self, child: ReplicaChild, topic_id: uuid.UUID, broker_id: int, orders: Orders, left: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Have ``child`` open the log and go by ``orders``. ``left`` is what is known of the log. Answers
        {recovered_bytes_cut, refused: why it can't lead, empty if it can}. Raises KafkaError, LinkError."""
        state, config, holders = orders
        answer: dict[str, Any] = await child.link.call(
            "open",
            {
                "topic": self._tp.topic,
                "topic_id": str(topic_id),
                "partition": self._tp.partition,
                "directory": str(self._directory),
                "broker_id": broker_id,
                "broker_epoch": holders[broker_id][-1] if broker_id in holders else -1,
                "state": partition_to_json(state),
                "holders": holders,
                "config": dict(config),
                **left,
            },
        )
        return answer

    async def tell(self, orders: Orders) -> str:
        """Bring the replica to ``orders``. Why it can't lead the epoch that it was told to, empty if it can. Raises
        KafkaError where it could not take them, LinkError when it ended."""
        child, told = self.child, self.told
        assert child is not None and told is not None
        refused = ""
        if orders.config != told.config:
            await child.link.call("config", {"config": dict(orders.config)})
        if orders.state != told.state or orders.holders != told.holders:
            args = {"state": partition_to_json(orders.state), "holders": orders.holders}
            refused = (await child.link.call("state", args))["refused"]
        if self.child is child:
            self.told = orders
        return refused

    def gone(self, *, holds_log: bool) -> ReplicaChild | None:
        """There is no process any more. With ``holds_log`` the next one waits until this one has let the log go."""
        child = self.child
        self.child = self.told = None
        if holds_log:
            self._leaving = child
        return child


def _is_locked(directory: Path) -> bool:
    try:
        return lock_holder(directory) is not None
    except OSError:
        return False  # whoever opens the log finds out what is wrong with it
