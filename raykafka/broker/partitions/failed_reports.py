"""Leaderships of this broker that are over, on their way to the controller (rule 1)."""

from __future__ import annotations

import uuid

from raykafka.broker.neighbourhood.controller_calls import FailedLeadership
from raykafka.broker.partitions.calls import Controller
from raykafka.cluster.image import PartitionState
from raykafka.process.tasks import TaskSet
from raykafka.types import TopicPartition


class FailedReports:
    """Gathers what one turn of the event loop reports into one call, so that the controller decides it at once: all
    that a dead actor led. Each call asks every controller that comes until its leaderships are over; a later one does
    not wait for it. All methods run on the broker's event loop."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._tasks = TaskSet("reports of failed leaders")
        self._gathered: list[FailedLeadership] = []

    def report(self, tp: TopicPartition, topic_id: uuid.UUID, state: PartitionState, reason: str) -> None:
        """Have the controller end the leadership ``state`` of this broker. ``reason`` is for people, but SHORT_LOG
        (``replica.rules.partition``), which says that committed records are missing."""
        if not self._gathered:
            self._tasks.run(self._send())
        self._gathered.append(FailedLeadership(tp, topic_id, state.leader_epoch, reason))

    async def close(self) -> None:
        """Report no more."""
        await self._tasks.close()

    async def _send(self) -> None:
        gathered, self._gathered = self._gathered, []
        await self._controller.report_failed(gathered)
