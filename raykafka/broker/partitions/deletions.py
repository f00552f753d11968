"""Partitions that this broker holds no longer: closed, renamed out of the way, and their files removed later."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from raykafka.broker.partitions.directories import DELETE, rename_away
from raykafka.broker.partitions.partition_host import PartitionHost
from raykafka.process.tasks import TaskSet
from raykafka.types import TopicPartition

logger = logging.getLogger(__name__)


class Deletions:
    """Their work runs in ``tasks``."""

    def __init__(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        self._closing: dict[TopicPartition, asyncio.Task[None]] = {}

    def closing(self, tp: TopicPartition) -> asyncio.Task[None] | None:
        """What ends once nobody touches the directory of ``tp`` any more; None if nobody does."""
        return self._closing.get(tp)

    async def all_closed(self, within_s: float) -> None:
        """Wait until every log is closed and its directory renamed, for ``within_s`` at most."""
        closing = list(self._closing.values())
        if closing:
            await asyncio.wait(closing, timeout=within_s)

    def begin(self, host: PartitionHost, delay_ms: int) -> None:
        """Close the log of ``host`` and rename its directory. The files go after ``delay_ms``, so that reads under way
        can end."""
        task = self._tasks.run(self._delete(host, delay_ms))
        self._closing[host.tp] = task

        def closed(_: object) -> None:
            if self._closing.get(host.tp) is task:
                del self._closing[host.tp]

        task.add_done_callback(closed)

    async def _delete(self, host: PartitionHost, delay_ms: int) -> None:
        await host.release()
        if not host.has_files:
            return
        path = await asyncio.to_thread(rename_away, host.directory, DELETE)
        if path is not None:
            self.remove(path, delay_ms)

    def remove(self, path: Path, delay_ms: int = 0) -> None:
        """Remove a directory that was renamed, later."""
        self._tasks.run(self._remove(path, delay_ms))

    async def _remove(self, path: Path, delay_ms: int) -> None:
        await asyncio.sleep(delay_ms / 1000)
        # cut short by a stop, this goes on at the next start
        await asyncio.to_thread(shutil.rmtree, path)
        logger.info("deleted %s", path)
