"""The checkpoint files of a data directory over one life of its broker: read at start, then kept up to date."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from raykafka.broker.partitions.checkpoints import HIGH_WATERMARKS, LOG_STARTS, RECOVERY_POINTS, OffsetCheckpoint
from raykafka.types import TopicPartition

WRITE_INTERVAL_S = 5.0

# by file name, the offset of each partition
Offsets = Mapping[str, Mapping[TopicPartition, int]]

logger = logging.getLogger(__name__)


class CheckpointFiles:
    """The files in ``directory``. The disk is read and written in threads (rule 22); only the broker writes them
    (rule 19)."""

    def __init__(self, directory: Path) -> None:
        names = (RECOVERY_POINTS, HIGH_WATERMARKS, LOG_STARTS)
        self._files = {name: OffsetCheckpoint(directory, name) for name in names}
        self._written: dict[str, Mapping[TopicPartition, int]] = {}

    async def read(self) -> dict[str, dict[TopicPartition, int]]:
        """What the last life of the broker left in each file. Raises what ``OffsetCheckpoint.read`` raises."""
        return {name: await asyncio.to_thread(file.read) for name, file in self._files.items()}

    async def write(self, wanted: Offsets) -> None:
        """Replace the files that hold something else. Raises OSError."""
        for name, offsets in wanted.items():
            if offsets != self._written.get(name):
                await asyncio.to_thread(self._files[name].write, offsets)
                self._written[name] = offsets

    async def keep(self, wanted: Callable[[], Offsets]) -> None:
        """Write what ``wanted()`` gives every WRITE_INTERVAL_S, until cancelled."""
        while True:
            await asyncio.sleep(WRITE_INTERVAL_S)
            try:
                await self.write(wanted())
            except OSError as error:
                logger.error("checkpoints can't be written: %s", error)
