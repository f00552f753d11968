"""Which leader epoch wrote from which offset: the ``leader-epoch-checkpoint`` file and the questions of KIP-101 and
KIP-279.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log.files import EPOCH_FILE, storage_error
from raykafka.process.durable import write_whole

UNDEFINED_EPOCH = -1
UNDEFINED_OFFSET = -1


class EpochEntry(NamedTuple):
    epoch: int
    start_offset: int


def read_entries(directory: Path) -> list[EpochEntry]:
    """The entries of the checkpoint in ``directory``, ascending; none without a file. Raises KafkaError if it is
    malformed.
    """
    path = directory / EPOCH_FILE
    try:
        lines = path.read_text().split("\n")
    except FileNotFoundError:
        return []
    try:
        if lines[0] != "0":
            raise ValueError(f"version {lines[0]!r} is not known")
        entries = [EpochEntry(*map(int, line.split())) for line in lines[2:] if line]
        if len(entries) != int(lines[1]):
            raise ValueError(f"it names {lines[1]} entries and holds {len(entries)}")
    except (ValueError, TypeError, IndexError) as error:
        raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{path} is malformed: {error}") from error
    return entries


def end_offset_for(entries: list[EpochEntry], epoch: int, log_end_offset: int) -> EpochEntry:
    """The largest epoch <= ``epoch`` in this history and the offset behind its last record; (-1, -1) when that is
    unknown.

    An ``epoch`` older than the whole history answers itself with the first known start, as Kafka does.
    """
    if epoch == UNDEFINED_EPOCH or not entries or epoch > entries[-1].epoch:
        return EpochEntry(UNDEFINED_EPOCH, UNDEFINED_OFFSET)
    if epoch == entries[-1].epoch:
        return EpochEntry(epoch, log_end_offset)
    above = bisect_right(entries, epoch, key=lambda entry: entry.epoch)
    floor = entries[above - 1].epoch if above else epoch
    return EpochEntry(floor, entries[above].start_offset)


class LeaderEpochs:
    """The epochs of one log. Every change is on disk (fsynced) before the method returns; KAFKA_STORAGE_ERROR if it
    cannot be.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._entries = read_entries(directory)
        self.latest_epoch = self._entries[-1].epoch if self._entries else UNDEFINED_EPOCH

    @property
    def latest(self) -> EpochEntry | None:
        return self._entries[-1] if self._entries else None

    @property
    def entries(self) -> tuple[EpochEntry, ...]:
        return tuple(self._entries)

    def assign(self, epoch: int, start_offset: int) -> None:
        """``epoch`` starts at ``start_offset``: entries that this contradicts (no older, or not starting before) go."""
        entry = EpochEntry(epoch, start_offset)
        if self._entries and self._entries[-1] == entry:
            return
        kept = [old for old in self._entries if old.epoch < epoch and old.start_offset < start_offset]
        self._replace([*kept, entry])

    def assign_if_newer(self, epoch: int, start_offset: int) -> None:
        """``assign``, for an epoch met in a batch: history is not rewritten by an old one."""
        if epoch > self.latest_epoch:
            self.assign(epoch, start_offset)

    def epoch_of(self, offset: int) -> int:
        """The epoch that wrote ``offset``, -1 if it is older than the history."""
        index = bisect_right(self._entries, offset, key=lambda entry: entry.start_offset)
        return self._entries[index - 1].epoch if index else UNDEFINED_EPOCH

    def end_offset_for(self, epoch: int, log_end_offset: int) -> EpochEntry:
        return end_offset_for(self._entries, epoch, log_end_offset)

    def replace(self, entries: Iterable[tuple[int, int]]) -> None:
        """Take over a whole history, as a follower takes its leader's. Epochs and start offsets ascend."""
        self._keep([EpochEntry(*entry) for entry in entries])

    def truncate_from_end(self, offset: int) -> None:
        """The log now ends at ``offset``: epochs that start at or behind it have no records any more. The newest stays
        known, as one that begins there (rule 3)."""
        self._end_at(offset, [entry for entry in self._entries if entry.start_offset < offset])

    def forget_beyond(self, log_end_offset: int) -> None:
        """The log was found to end at ``log_end_offset``: as ``truncate_from_end``, but one that starts there was
        begun."""
        self._end_at(log_end_offset, [entry for entry in self._entries if entry.start_offset <= log_end_offset])

    def truncate_fully(self, start_offset: int) -> None:
        """The log is empty and goes on from ``start_offset``."""
        self._end_at(start_offset, [])

    def _end_at(self, end: int, kept: list[EpochEntry]) -> None:
        if self._entries and kept[-1:] != self._entries[-1:]:
            kept = [*(entry for entry in kept if entry.start_offset < end), EpochEntry(self.latest_epoch, end)]
        self._keep(kept)

    def truncate_from_start(self, offset: int) -> None:
        """The log now starts at ``offset``: of the epochs from before it, only the one that wrote there stays."""
        index = bisect_right(self._entries, offset, key=lambda entry: entry.start_offset)
        if index == 0 or (index == 1 and self._entries[0].start_offset == offset):
            return
        first = EpochEntry(self._entries[index - 1].epoch, offset)
        self._keep([first, *self._entries[index:]])

    def _keep(self, entries: list[EpochEntry]) -> None:
        if entries != self._entries:
            self._replace(entries)

    def _replace(self, entries: list[EpochEntry]) -> None:
        lines = ["0", str(len(entries)), *(f"{entry.epoch} {entry.start_offset}" for entry in entries)]
        path = self._directory / EPOCH_FILE
        try:
            write_whole(path, ("\n".join(lines) + "\n").encode())
        except OSError as error:
            raise storage_error(f"writing {path}", error) from error
        self._entries = entries
        self.latest_epoch = entries[-1].epoch if entries else UNDEFINED_EPOCH
