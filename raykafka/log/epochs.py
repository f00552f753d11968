"""The leader epochs of a log on disk: the file ``leader-epoch-checkpoint``, as Kafka writes it.

Lines of text: the format (0), the number of entries, then ``<epoch> <start offset>`` for each, oldest first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from raykafka.epoch_history import EpochEntry, EpochHistory
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log.files import EPOCH_FILE, read_file, storage_error
from raykafka.process.durable import write_whole

_FORMAT = "0"

_logger = logging.getLogger(__name__)


def read_entries(directory: Path) -> EpochHistory:
    """The history in ``directory``'s checkpoint; empty without a file. Raises KafkaError if it is malformed."""
    content = read_file(f"{directory}/{EPOCH_FILE}")
    if content is None:
        return EpochHistory()
    try:
        lines = content.decode().split("\n")
        if lines[0] != _FORMAT:
            raise ValueError(f"version {lines[0]!r} is not known")
        entries = EpochHistory(EpochEntry(*map(int, line.split())) for line in lines[2:] if line)
        if len(entries) != int(lines[1]):
            raise ValueError(f"it names {lines[1]} entries and holds {len(entries)}")
    except (ValueError, TypeError, IndexError) as error:
        raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{directory / EPOCH_FILE} is malformed: {error}") from error
    return entries


def _content(history: EpochHistory) -> bytes:
    lines = [_FORMAT, str(len(history)), *(f"{entry.epoch} {entry.start_offset}" for entry in history)]
    return ("\n".join(lines) + "\n").encode()


# what a new log has on disk before it goes by its first leader, who would have it written before anything else
BEGIN_WITH = {EPOCH_FILE: _content(EpochHistory.of([(0, 0)]))}


class LeaderEpochs:
    """The epochs of one log: ``history``, and its newest epoch at hand for every append.

    Every change is on disk (fsynced) before the method returns; KAFKA_STORAGE_ERROR if it can't be, and then nothing
    has changed. Only what retention takes away may stay on disk for longer.
    """

    def __init__(self, directory: Path, *, ahead: bool = False) -> None:
        """``ahead``: what the file holds was written for later, and is not this log's history yet."""
        self._directory = directory
        self._on_disk = read_entries(directory)
        self.history = EpochHistory() if ahead else self._on_disk
        self.latest_epoch = self.history.latest_epoch

    def is_on_disk(self, entries: Iterable[tuple[int, int]]) -> bool:
        """Whether the file holds this history, and nothing has to be written for it."""
        return EpochHistory.of(entries) == self._on_disk

    def assign(self, epoch: int, start_offset: int) -> None:
        """``epoch`` begins at ``start_offset``."""
        self._replace(self.history.assign(epoch, start_offset))

    def assign_if_newer(self, epoch: int, start_offset: int) -> None:
        """``assign``, for an epoch met in a batch: history is not rewritten by an old one."""
        if epoch > self.latest_epoch:
            self.assign(epoch, start_offset)

    def replace(self, entries: Iterable[tuple[int, int]]) -> None:
        """Take over a whole history, as a follower takes its leader's."""
        self._replace(EpochHistory.of(entries))

    def truncate_from_end(self, end: int) -> None:
        """The log was cut to end at ``end``."""
        self._replace(self.history.truncate_from_end(end))

    def forget_beyond(self, end: int) -> None:
        """The log was found to end at ``end``."""
        self._replace(self.history.forget_beyond(end))

    def truncate_fully(self, start_offset: int) -> None:
        """The log is empty and goes on from ``start_offset``."""
        self._replace(self.history.truncate_fully(start_offset))

    def truncate_from_start(self, start: int) -> None:
        """The log now starts at ``start``. Where the disk has no room for that, the file goes on saying more than there
        is, which whoever opens the log finds out: what makes room must not need some."""
        history = self.history.truncate_from_start(start)
        try:
            self._replace(history)
        except KafkaError as error:
            _logger.warning("%s", error.message)
            self.history, self.latest_epoch = history, history.latest_epoch

    def _replace(self, history: EpochHistory) -> None:
        if history == self.history:
            return
        if history != self._on_disk:
            path = self._directory / EPOCH_FILE
            try:
                write_whole(path, _content(history))
            except OSError as error:
                raise storage_error(f"writing {path}", error) from error
            self._on_disk = history
        self.history, self.latest_epoch = history, history.latest_epoch
