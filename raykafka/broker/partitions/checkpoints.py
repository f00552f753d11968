"""Kafka's checkpoint files: one offset for each partition in a data directory, in text, replaced atomically.

Format, the same for ``recovery-point-offset-checkpoint``, ``replication-offset-checkpoint`` (high watermarks) and
``log-start-offset-checkpoint``: a version line ``0``, a line with the number of entries, then lines of
``topic partition offset``. Only the broker writes them (rule 19); off its event loop, since every write is flushed to
disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raykafka.errors import RaykafkaError
from raykafka.process.durable import write_whole
from raykafka.types import TopicPartition

RECOVERY_POINTS = "recovery-point-offset-checkpoint"
HIGH_WATERMARKS = "replication-offset-checkpoint"
LOG_STARTS = "log-start-offset-checkpoint"
_VERSION = "0"


class CheckpointError(RaykafkaError):
    """A checkpoint file can't be understood. Without it each of its offsets is found again more slowly."""


class OffsetCheckpoint:
    """One checkpoint file. ``read`` and ``write`` block on the disk."""

    def __init__(self, directory: Path, name: str) -> None:
        self._path = directory / name

    def read(self) -> dict[TopicPartition, int]:
        """All entries; none when the file does not exist. Raises CheckpointError when it is malformed."""
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            return {}
        try:
            version, count = lines[0], int(lines[1])
            if version != _VERSION or count != len(lines) - 2:
                raise ValueError(f"version {version}, {count} entries announced, {len(lines) - 2} found")
            entries = {}
            for line in lines[2:]:
                topic, partition, offset = line.split(" ")
                entries[TopicPartition(topic, int(partition))] = int(offset)
            return entries
        except (IndexError, ValueError) as error:
            raise CheckpointError(
                f"{self._path} is malformed ({error}); delete it to have its offsets found again from the logs"
            ) from None

    def write(self, entries: Mapping[TopicPartition, int]) -> None:
        """Replace the file: a crash at any moment leaves the old one or the new one."""
        lines = [_VERSION, str(len(entries))]
        lines += [f"{tp.topic} {tp.partition} {offset}" for tp, offset in sorted(entries.items())]
        write_whole(self._path, ("\n".join(lines) + "\n").encode())
