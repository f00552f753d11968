"""What the partitions of a broker ask of the controller."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Protocol

from raykafka.broker.neighbourhood.controller_calls import FailedLeadership
from raykafka.error_code import ErrorCode
from raykafka.replica.rules.events import Propose
from raykafka.types import TopicPartition


class Controller(Protocol):
    """The active controller, wherever it runs. All calls raise KafkaError, LinkError, TimeoutError."""

    async def alter_partitions(self, proposals: Sequence[tuple[TopicPartition, uuid.UUID, Propose]]) -> list[ErrorCode]:
        """Propose the ISRs of partitions, each named once; for each in order NONE, once it is written, or why it is
        not (rule 7)."""

    async def report_failed(self, leaderships: Sequence[FailedLeadership]) -> None:
        """Say that leaderships of this broker have ended; returns once the controller knows (rule 1)."""
