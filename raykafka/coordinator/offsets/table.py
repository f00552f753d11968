"""The committed offsets of one group: what is committed, what is on its way to the log, and what may expire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from raykafka.coordinator.offsets.events import CommittedOffset
from raykafka.types import TopicPartition


class StoredOffset(NamedTuple):
    """A committed offset and where in the log it stands, so that a later record always wins."""

    value: CommittedOffset
    log_offset: int


class OffsetTable:
    def __init__(self) -> None:
        self.committed: dict[TopicPartition, StoredOffset] = {}
        self._pending: Counter[TopicPartition] = Counter()

    def __bool__(self) -> bool:
        return bool(self.committed or self._pending)

    def get(self, partition: TopicPartition) -> CommittedOffset | None:
        stored = self.committed.get(partition)
        return None if stored is None else stored.value

    def begin(self, partitions: Iterable[TopicPartition]) -> None:
        """Commits of ``partitions`` went to the log."""
        self._pending.update(list(partitions))

    def end(self, partitions: Iterable[TopicPartition]) -> None:
        """Those commits are decided; ``put`` what was committed."""
        self._pending.subtract(list(partitions))
        self._pending = +self._pending

    def put(self, offsets: Mapping[TopicPartition, CommittedOffset], log_offset: int) -> None:
        for index, (partition, value) in enumerate(offsets.items()):
            self.put_one(partition, value, log_offset + index)

    def put_one(self, partition: TopicPartition, value: CommittedOffset, log_offset: int) -> None:
        stored = self.committed.get(partition)
        if stored is None or stored.log_offset < log_offset:
            self.committed[partition] = StoredOffset(value, log_offset)

    def remove(self, partitions: Iterable[TopicPartition], log_offset: int) -> None:
        """Tombstones from ``log_offset`` on are committed: forget what stood before them."""
        for partition in partitions:
            stored = self.committed.get(partition)
            if stored is not None and stored.log_offset < log_offset:
                del self.committed[partition]

    def known(self) -> set[TopicPartition]:
        """Partitions that have a record in the log, or will have."""
        return self.committed.keys() | self._pending.keys()

    def expired(
        self, wall_ms: int, retention_ms: int, since_ms: int, kept_topics: Collection[str]
    ) -> list[TopicPartition]:
        """Partitions whose offset is over: ``retention_ms`` after its commit or ``since_ms``, whichever is later, or at
        its own expire timestamp. Topics in ``kept_topics`` and partitions with a commit under way stay."""

        def is_over(value: CommittedOffset) -> bool:
            if value.expire_timestamp_ms is not None:
                return wall_ms >= value.expire_timestamp_ms
            return wall_ms - max(value.commit_timestamp_ms, since_ms) >= retention_ms

        return [
            partition
            for partition, stored in self.committed.items()
            if partition.topic not in kept_topics and not self._pending[partition] and is_over(stored.value)
        ]
