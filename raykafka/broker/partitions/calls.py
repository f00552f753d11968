"""What the partitions of a broker ask of the controller, and of the other brokers."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from raykafka.cluster.image import PartitionState
from raykafka.replica.rules.events import Propose
from raykafka.types import TopicPartition


class Controller(Protocol):
    """The active controller, wherever it runs. All calls raise KafkaError, LinkError, TimeoutError."""

    async def alter_partition(self, tp: TopicPartition, topic_id: uuid.UUID, proposal: dict[str, Any]) -> None:
        """Propose an ISR; returns once it is decided (rule 7)."""

    async def alter_partitions(self, proposals: Sequence[tuple[TopicPartition, uuid.UUID, Propose]]) -> int:
        """Propose the ISRs of many partitions; how many were written."""

    async def report_failed_partition(self, tp: TopicPartition, state: PartitionState, reason: str) -> None:
        """Say that the leadership ``state`` has ended; returns once the controller knows (rule 1)."""


class OtherBrokers(Protocol):
    """The other brokers, by their ids. ``answers`` has what answers their calls, by method."""

    @property
    def answers(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[Any]]]: ...

    async def call(self, broker: int, method: str, args: dict[str, Any], within_s: float) -> Any:
        """What ``broker`` answers. Raises OSError, KafkaError, LinkError, TimeoutError."""
