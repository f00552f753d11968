"""What the partitions of a broker need of its replica actors."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from raykafka.types import TopicPartition


class Actor(Protocol):
    """A replica actor of this broker, connected. ``number`` is never used twice in a life of the broker; ``busy`` is
    the share of a core that it used of late (0..1). One that does not ``takes_replicas`` is given no more of them, and
    those that it has are moved: it serves clients only, or is to go.

    Calls raise LinkError when it ends over them, which ``Partitions.actor_gone`` tells as well."""

    @property
    def number(self) -> int: ...
    @property
    def busy(self) -> float: ...
    @property
    def takes_replicas(self) -> bool: ...

    async def open(self, args: dict[str, Any]) -> dict[str, Any]:
        """Open a log: {topic, topic_id, partition, recovery_point, high_watermark, log_start_offset, seal} ->
        {log_start_offset, log_end_offset, recovered_bytes_cut}. Raises KafkaError: then nothing of it is open."""

    async def close(self, args: dict[str, Any]) -> dict[str, Any]:
        """Close a log: {topic, topic_id, partition} -> {note, log_start_offset, log_end_offset, high_watermark,
        recovery_point}. Raises KafkaError: then it is not open there."""

    async def leave(self, args: dict[str, Any]) -> dict[str, Any]:
        """Give a replica up for another actor: {left: false}, or as ``close`` with {left: true}. Raises KafkaError."""

    def kill(self) -> None:
        """End its process at once, also after its link has ended."""


class ActorPool(Protocol):
    """The replica actors of this broker. ``each``: every replica has an actor of its own."""

    @property
    def each(self) -> bool: ...

    def living(self) -> Mapping[int, Actor]:
        """Those that are connected, by number."""

    def need_another(self) -> None:
        """With ``each``: start one more, which ``Partitions.actor_came`` tells of."""

    def let_go(self, number: int) -> None:
        """This one has no replica any more, and takes none or, with ``each``, has none to come. It may stay."""

    def placed(self, rows: list[tuple[TopicPartition, uuid.UUID, int]]) -> None:
        """Tell all actors which actor has these replicas; -1: none now."""
