"""The leader epochs of one log: which epoch wrote from which offset, where an epoch ends, where two logs stop agreeing.

Pure. The log keeps a history on disk (``log/epochs.py``), the rules of replication decide by it (``replica/rules``).
Sources: KIP-101 (truncate by leader epoch, not by high watermark) and KIP-279 (go back over epochs until one is common
to both logs); rules 1, 3 and 11.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from raykafka.types import NO_EPOCH

UNDEFINED_OFFSET = -1


class EpochEntry(NamedTuple):
    """``epoch`` begins at ``start_offset``. As the answer of a look-up: ``epoch`` ends before that offset."""

    epoch: int
    start_offset: int


UNDEFINED = EpochEntry(NO_EPOCH, UNDEFINED_OFFSET)


class EpochHistory(tuple[EpochEntry, ...]):
    """Entries, oldest first; epochs and start offsets both ascend. Immutable.

    An entry whose start offset is not below the log's end has no records here. It is kept all the same: its epoch is
    the highest that this replica has led or followed, which must never be forgotten (rule 3).
    """

    __slots__ = ()

    @staticmethod
    def of(entries: Iterable[tuple[int, int]]) -> EpochHistory:
        """The history of these (epoch, start offset)."""
        return EpochHistory(EpochEntry(*entry) for entry in entries)

    # look-ups

    @property
    def latest_epoch(self) -> int:
        """The newest epoch, NO_EPOCH without any."""
        return self[-1].epoch if self else NO_EPOCH

    def epoch_at(self, offset: int) -> int:
        """The epoch that wrote the record at ``offset``, NO_EPOCH if that is older than the history."""
        index = bisect_right(self, offset, key=_start_offset)
        return self[index - 1].epoch if index else NO_EPOCH

    def last_record_epoch(self, log_start: int, log_end: int) -> int:
        """The epoch of the last record of a log, NO_EPOCH when it has none."""
        return self.epoch_at(log_end - 1) if log_end > log_start else NO_EPOCH

    def end_offset_for(self, epoch: int, log_end: int) -> EpochEntry:
        """What OffsetForLeaderEpoch answers: the largest epoch <= ``epoch`` and the offset after its last record, in a
        log that ends at ``log_end``; UNDEFINED for NO_EPOCH, an epoch newer than the history, or an empty history.

        An ``epoch`` older than the whole history answers itself with the first known start, as Kafka does.
        """
        if epoch == NO_EPOCH or not self or epoch > self[-1].epoch:
            return UNDEFINED
        if epoch == self[-1].epoch:
            return EpochEntry(epoch, log_end)
        above = bisect_right(self, epoch, key=_epoch)
        floor = self[above - 1].epoch if above else epoch
        return EpochEntry(floor, self[above].start_offset)

    def epochs_with_records(self, log_end: int) -> dict[int, int]:
        """Epoch -> the offset after its last record, newest first, in a log that ends at ``log_end``."""
        ends: dict[int, int] = {}
        end = log_end
        for entry in reversed(self):
            if entry.start_offset < end:
                ends[entry.epoch] = end
                end = entry.start_offset
        return ends

    # the history after a change of the log

    def assign(self, epoch: int, start_offset: int) -> EpochHistory:
        """``epoch`` begins at ``start_offset``: entries that this contradicts (no older, or not starting before) held
        no records and go."""
        kept = (entry for entry in self if entry.epoch < epoch and entry.start_offset < start_offset)
        return EpochHistory((*kept, EpochEntry(epoch, start_offset)))

    def truncate_from_end(self, end: int) -> EpochHistory:
        """The log was cut to end at ``end``: epochs that start there or behind have no records any more. The newest
        stays known, as one that begins there (rule 3)."""
        return self._end_at(end, [entry for entry in self if entry.start_offset < end])

    def forget_beyond(self, end: int) -> EpochHistory:
        """The log was found to end at ``end``: as ``truncate_from_end``, but one that starts there was begun."""
        return self._end_at(end, [entry for entry in self if entry.start_offset <= end])

    def truncate_fully(self, start_offset: int) -> EpochHistory:
        """The log is empty and goes on from ``start_offset``."""
        return self._end_at(start_offset, [])

    def _end_at(self, end: int, kept: list[EpochEntry]) -> EpochHistory:
        if self and kept[-1:] != [self[-1]]:
            kept = [*(entry for entry in kept if entry.start_offset < end), EpochEntry(self.latest_epoch, end)]
        return EpochHistory(kept)

    def truncate_from_start(self, start: int) -> EpochHistory:
        """The log now starts at ``start``: of the epochs from before it, only the one that wrote there stays."""
        index = bisect_right(self, start, key=_start_offset)
        if index == 0:
            return self
        return EpochHistory((EpochEntry(self[index - 1].epoch, start), *self[index:]))


def _epoch(entry: EpochEntry) -> int:
    return entry.epoch


def _start_offset(entry: EpochEntry) -> int:
    return entry.start_offset


def agreeing_end(own: EpochHistory, own_end: int, leader: EpochHistory, leader_end: int) -> int | None:
    """The offset up to which two logs hold the same records: the end, in both, of the newest epoch that both know.

    None where they have no epoch in common. Two logs that hold records of one epoch hold the same ones (rule 1), and
    agree on everything before them.
    """
    theirs = leader.epochs_with_records(leader_end)
    for epoch, end in own.epochs_with_records(own_end).items():
        if epoch in theirs:
            return min(end, theirs[epoch])
    return None
