"""What a broker knows of a partition that sleeps: the seal that its last replica process left (rule 17).

The log is read by the seal as by a view, and the controller's decisions are obeyed in the replica's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from raykafka.cluster.image import PartitionState
from raykafka.partition.log_view import LogView
from raykafka.partition.view import empty_view
from raykafka.replica.rules.events import Propose
from raykafka.replica.rules.sealed import NEVER_WRITTEN, SealedEnd, ask_asleep, must_wake, told_asleep
from raykafka.replica.seal_note import SealNote
from raykafka.types import NO_EPOCH


class Checkpoint(NamedTuple):
    """What the checkpoint files hold of a partition; None where there is no entry."""

    recovery_point: int | None = None
    high_watermark: int | None = None
    log_start_offset: int | None = None


def never_written() -> SealNote:
    """What is known of a partition without files."""
    return SealNote(NEVER_WRITTEN, NO_EPOCH, empty_view(NO_EPOCH))


class SleepingLog:
    """The log of a partition between two replica processes, read through ``log``.

    ``left`` is what the last process left behind; None while there is one, or where it left nothing. ``checkpoint`` is
    what the last process or the checkpoint files told. ``has_files``: a log was begun on this disk. ``undecided`` holds
    the ISRs that were proposed in the sleeping leader's name and are not decided: their members count once it is awake
    (rule 5). ``known_epoch`` is the newest epoch obeyed asleep.
    """

    def __init__(self, log: LogView, checkpoint: Checkpoint, left: SealNote | None, *, has_files: bool) -> None:
        self.left = left if has_files else never_written()
        self.checkpoint = checkpoint
        self.has_files = has_files
        self.undecided: list[frozenset[int]] = []
        self.known_epoch = NO_EPOCH
        self._log = log

    def obey(self, broker: int, state: PartitionState) -> bool:
        """Write a decision to the seal and show what may be read by it. Whether a process is needed at once."""
        left = self.left
        if left is None:
            return False
        seal = told_asleep(left.seal, broker, state)
        left = self.left = left.in_epoch(seal)
        self.known_epoch = max(self.known_epoch, seal.epoch)
        self._log.show_at_rest(left.view)
        return must_wake(broker, state, seal)

    def open(self) -> dict[str, Any]:
        """What the process has to know that opens the log, as arguments of its call "open". From here on only another
        ``closed`` leaves something behind."""
        left, undecided, checkpoint = self.left, self.undecided, self.checkpoint
        self.left, self.undecided, self.has_files = None, [], True
        return {
            "recovery_point": checkpoint.recovery_point or 0,
            "high_watermark": checkpoint.high_watermark,
            "log_start_offset": checkpoint.log_start_offset or 0,
            "seal": list(left.seal) if left is not None else None,
            "known_epoch": self.known_epoch,
            "undecided": [sorted(isr) for isr in undecided],
        }

    def closed(self, answer: Mapping[str, Any]) -> None:
        """Remember what a process told of the log when it closed it."""
        view = self._log.view
        log_start = view.log_start_offset if view else self.checkpoint.log_start_offset
        self.left = SealNote.of_note(answer["note"]) if answer["note"] is not None else None
        self.checkpoint = Checkpoint(answer["recovery_point"], answer["high_watermark"], log_start)

    def checkpoint_now(self) -> Checkpoint:
        """What the checkpoint files should hold now."""
        view = self._log.view
        if view is None or self._log.reader is None:
            return self.checkpoint
        return Checkpoint(view.recovery_point, view.high_watermark, view.log_start_offset)

    def sealed_end(self) -> SealedEnd | None:
        """How the log of this replica ends, None while that is not for its broker to say."""
        left = self.left
        return None if left is None else SealedEnd(left.seal.epoch, left.seal.log_end, left.last_epoch)

    def propose(
        self, broker: int, state: PartitionState, broker_epochs: Mapping[int, int], found: Mapping[int, SealedEnd]
    ) -> Propose | None:
        """The ISR to ask the controller for (``sealed.ask_asleep``), which counts as undecided from now on; None if
        there is none."""
        left, own = self.left, self.sealed_end()
        if left is None or own is None:
            return None
        proposal = ask_asleep(broker, left.seal, own, state, broker_epochs, found)
        if proposal is not None and (isr := frozenset(proposal.isr)) not in self.undecided:
            self.undecided.append(isr)
        return proposal
