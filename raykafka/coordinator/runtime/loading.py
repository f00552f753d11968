"""Replaying a partition of the offsets topic into groups: the last record of each key counts."""

from __future__ import annotations

import logging

from raykafka.coordinator.classic.events import CommittedOffset, GroupEntry, GroupSnapshot, Now
from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.group.group import Group
from raykafka.coordinator.group.records import UnreadableOffsetsRecord, decode
from raykafka.log.batch import BatchHeader, Record, iter_records
from raykafka.log.compression import UnreadableRecords
from raykafka.types import TopicPartition

logger = logging.getLogger(__name__)


class Replay:
    """What the records read so far say."""

    def __init__(self) -> None:
        self._snapshots: dict[str, GroupSnapshot] = {}
        self._offsets: dict[str, dict[TopicPartition, tuple[CommittedOffset, int]]] = {}

    def add_batch(self, header: BatchHeader, batch: memoryview) -> None:
        """Take in one batch. Control batches say nothing about groups."""
        if header.is_control:
            return
        try:
            for record in iter_records(batch):
                self._add(record)
        except UnreadableRecords as error:
            logger.error("the batch at offset %d of the offsets topic is left out: %s", header.base_offset, error)

    def _add(self, record: Record) -> None:
        if record.key is None:
            logger.error("the record at offset %d of the offsets topic has no key; it is left out", record.offset)
            return
        try:
            entry = decode(record.key, record.value)
        except UnreadableOffsetsRecord as error:
            logger.error("the record at offset %d of the offsets topic is left out: %s", record.offset, error)
            return
        if entry is None:
            return
        if isinstance(entry, GroupEntry):
            if entry.value is None:
                self._snapshots.pop(entry.group_id, None)
            else:
                self._snapshots[entry.group_id] = entry.value
            return
        offsets = self._offsets.setdefault(entry.group_id, {})
        if entry.value is None:
            offsets.pop(entry.partition, None)
        else:
            offsets[entry.partition] = (entry.value, record.offset)

    def groups(self, config: GroupConfig, now: Now) -> dict[str, Group]:
        """The groups, with their sessions beginning ``now``."""
        groups = {name: Group.restored(snapshot, config, now) for name, snapshot in self._snapshots.items()}
        for name, offsets in self._offsets.items():
            if not offsets:
                continue
            group = groups.get(name) or groups.setdefault(name, Group(name, config))
            for partition, (value, log_offset) in offsets.items():
                group.offsets.put_one(partition, value, log_offset)
        return groups
