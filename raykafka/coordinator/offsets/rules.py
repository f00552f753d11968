"""The rules of a group's offsets, as Kafka 3.9 keeps them, whatever protocol its members speak: committing, deleting
(KIP-496), expiry (KIP-211) and deleted topics. Who may commit, and what members consume, is the membership's to say.

What is asked for here is written as records of the offsets topic; ``written`` gets what became of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from raykafka.coordinator.offsets.events import Commit, DeleteOffsets, DeleteOffsetsAnswer, OffsetEntry
from raykafka.coordinator.offsets.table import OffsetTable
from raykafka.coordinator.offsets.writes import COMMIT_WRITE_ERRORS, CommitWrite, OffsetsWrite, RemovalWrite
from raykafka.coordinator.step import Append, Effect, Now, Reply
from raykafka.error_code import ErrorCode
from raykafka.types import TopicPartition

ALWAYS = -(1 << 63)


class Expiry(NamedTuple):
    """Which offsets of a group may expire now: those of topics outside ``kept_topics``, whose retention begins with
    their commit, but not before ``since_ms`` (wall clock)."""

    since_ms: int = ALWAYS
    kept_topics: Collection[str] = ()


class OffsetRules:
    """The rules over ``table``. Every method that changes something returns effects, as a ``step`` does."""

    def __init__(self, group_id: str, table: OffsetTable, metadata_max_bytes: int) -> None:
        self._group_id = group_id
        self._table = table
        self._metadata_max_bytes = metadata_max_bytes

    def commit(self, event: Commit) -> list[Effect]:
        """Write the offsets of one who may commit. Those with too much metadata are refused, the others go in one
        batch."""
        limit = 2 * self._metadata_max_bytes
        refused = {
            partition: ErrorCode.OFFSET_METADATA_TOO_LARGE
            for partition, value in event.offsets.items()
            if len(value.metadata.encode("utf-16-le", "surrogatepass")) > limit  # Java counts UTF-16 units
        }
        accepted = {p: value for p, value in event.offsets.items() if p not in refused}
        if not accepted:
            return [Reply(event.request, refused)]
        self._table.begin(accepted)
        entries = tuple(OffsetEntry(self._group_id, p, value) for p, value in accepted.items())
        return [Append(entries, CommitWrite(event.request, accepted, refused))]

    def delete(self, event: DeleteOffsets, is_consumed: Callable[[str], bool]) -> list[Effect]:
        """Delete offsets, save of topics that are consumed."""
        codes = {
            p: ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if is_consumed(p.topic) else ErrorCode.NONE for p in event.partitions
        }
        known = self._table.known()
        doomed = tuple(p for p, code in codes.items() if code is ErrorCode.NONE and p in known)
        answer = DeleteOffsetsAnswer(ErrorCode.NONE, codes)
        if not doomed:
            return [Reply(event.request, answer)]
        return [Append(self.tombstones(doomed), RemovalWrite(doomed, event.request, answer))]

    def remove(self, partitions: Iterable[TopicPartition]) -> list[Effect]:
        """Write tombstones that nobody asked for."""
        doomed = tuple(partitions)
        return [Append(self.tombstones(doomed), RemovalWrite(doomed))] if doomed else []

    def tombstones(self, partitions: Iterable[TopicPartition]) -> tuple[OffsetEntry, ...]:
        return tuple(OffsetEntry(self._group_id, p, None) for p in partitions)

    def expired(self, expiry: Expiry, retention_ms: int, now: Now) -> list[TopicPartition]:
        """Partitions whose offset nobody committed for ``retention_ms``, or that are past their own expire
        timestamp."""
        return self._table.expired(now.wall_ms, retention_ms, expiry.since_ms, expiry.kept_topics)

    def of_topics(self, topics: Collection[str]) -> list[TopicPartition]:
        """Partitions of ``topics`` that have an offset, or one on its way."""
        return [p for p in self._table.known() if p.topic in topics]

    def written(self, then: OffsetsWrite, error: ErrorCode, base_offset: int) -> list[Effect]:
        if isinstance(then, CommitWrite):
            return self._commit_written(then, error, base_offset)
        return self._removal_written(then, error, base_offset)

    def _commit_written(self, then: CommitWrite, error: ErrorCode, base_offset: int) -> list[Effect]:
        self._table.end(then.offsets)
        if not error:
            self._table.put(then.offsets, base_offset)
        code = COMMIT_WRITE_ERRORS.get(error, error)
        return [Reply(then.request, {**dict.fromkeys(then.offsets, code), **then.refused})]

    def _removal_written(self, then: RemovalWrite, error: ErrorCode, base_offset: int) -> list[Effect]:
        if not error:
            self._table.remove(then.partitions, base_offset)
        if then.request is None:
            return []
        refused = DeleteOffsetsAnswer(COMMIT_WRITE_ERRORS.get(error, error))
        return [Reply(then.request, refused if error else then.answer)]
