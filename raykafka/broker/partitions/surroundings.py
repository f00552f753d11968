"""What the partitions of a broker share."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from raykafka.broker.partitions.actors import ActorPool
from raykafka.broker.partitions.failed_reports import FailedReports
from raykafka.broker.partitions.log_locks import LogLocks
from raykafka.broker.partitions.seats import Seats
from raykafka.process.tasks import TaskSet
from raykafka.types import TopicPartition

CLOSING_AT_ONCE = 64


class Placements:
    """Which actor has which replica, told to all actors once a turn of the event loop."""

    def __init__(self, pool: ActorPool) -> None:
        self._pool = pool
        self._rows: dict[tuple[TopicPartition, uuid.UUID], int] = {}
        self._loop = asyncio.get_running_loop()

    def placed(self, tp: TopicPartition, topic_id: uuid.UUID, actor: int) -> None:
        if not self._rows:
            self._loop.call_soon(self._tell)
        self._rows[tp, topic_id] = actor

    def _tell(self) -> None:
        rows, self._rows = self._rows, {}
        self._pool.placed([(tp, topic_id, actor) for (tp, topic_id), actor in rows.items()])


@dataclass(slots=True)
class Surroundings:
    """``failed`` counts how often replicas have failed; ``closing`` bounds how many logs are closed at once."""

    broker_id: int
    log_dir: Path
    seats: Seats
    placements: Placements
    reports: FailedReports
    locks: LogLocks
    tasks: TaskSet
    failed: int = 0
    closing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CLOSING_AT_ONCE))
