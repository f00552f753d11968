"""Which leader epoch wrote which stretch of a log, and where two logs stop agreeing (KIP-101, KIP-279)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from raykafka.types import NO_EPOCH


class EpochStart(NamedTuple):
    epoch: int
    start_offset: int


class EpochHistory(tuple[EpochStart, ...]):
    """The leader epochs of one log, oldest first; epochs and start offsets both ascend. Immutable.

    An entry whose start offset is not below the log's end has no records here. It is kept all the same: its epoch is
    the highest that this replica has led or followed, which must never be forgotten (rule 3).
    """

    __slots__ = ()

    @staticmethod
    def of(entries: Iterable[tuple[int, int]]) -> EpochHistory:
        return EpochHistory(EpochStart(*entry) for entry in entries)

    @property
    def latest(self) -> int:
        return self[-1].epoch if self else NO_EPOCH

    def assign(self, epoch: int, start_offset: int) -> EpochHistory:
        """The history of this log once ``epoch`` begins at ``start_offset``: entries that start there or later held no
        records and go."""
        return EpochHistory.of(
            (*(e for e in self if e.epoch < epoch and e.start_offset < start_offset), (epoch, start_offset))
        )

    def epoch_at(self, offset: int) -> int:
        """The epoch that wrote the record at ``offset``, or NO_EPOCH before the first."""
        for entry in reversed(self):
            if entry.start_offset <= offset:
                return entry.epoch
        return NO_EPOCH

    def last_record_epoch(self, log_start: int, log_end: int) -> int:
        """The epoch of the last record of a log, or NO_EPOCH when it has none."""
        return self.epoch_at(log_end - 1) if log_end > log_start else NO_EPOCH

    def epochs_with_records(self, log_end: int) -> dict[int, int]:
        """Epoch -> the offset after its last record, newest first, in a log that ends at ``log_end``."""
        ends: dict[int, int] = {}
        end = log_end
        for entry in reversed(self):
            if entry.start_offset < end:
                ends[entry.epoch] = end
                end = entry.start_offset
        return ends


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
