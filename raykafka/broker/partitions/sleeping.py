"""What a broker knows and serves of a partition that sleeps: the seal, read by as a view (rule 17)."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from raykafka.cluster.image import PartitionState
from raykafka.partition.log_view import LogView
from raykafka.partition.view import empty_view
from raykafka.replica.rules.events import Propose
from raykafka.replica.rules.sealed import NEVER_WRITTEN, SealedEnd, ask_asleep, must_wake, told_asleep
from raykafka.replica.seal_note import SealNote
from raykafka.types import NO_EPOCH


def never_written() -> SealNote:
    """What is known of a partition without files."""
    return SealNote(NEVER_WRITTEN, NO_EPOCH, empty_view(NO_EPOCH))


class SleepingLog(LogView):
    """``left`` is what the last replica process left behind; None while there is one, or where it left nothing.

    ``asked`` holds the ISRs that were asked for in the sleeping leader's name and are not decided: their members count
    once it is awake (rule 5). ``known_epoch`` is the newest epoch obeyed asleep.
    """

    def __init__(self, directory: Path, cold_reads: ThreadPoolExecutor) -> None:
        super().__init__(directory, cold_reads)
        self.left: SealNote | None = None
        self.asked: list[frozenset[int]] = []
        self.known_epoch = NO_EPOCH

    def obey_asleep(self, broker: int, state: PartitionState) -> bool:
        """Write a decision to the seal and show what may be read by it. Whether a process is needed at once."""
        left = self.left
        if left is None:
            return False
        seal = told_asleep(left.seal, broker, state)
        left = self.left = left.in_epoch(seal)
        self.known_epoch = max(self.known_epoch, seal.epoch)
        if left.view.segments:
            self.show(left.view)
        else:
            self.view = left.view
        return must_wake(broker, state, seal)

    def sealed_end(self) -> SealedEnd | None:
        """How the log of this replica ends, None while that is not for its broker to say."""
        left = self.left
        return None if left is None else SealedEnd(left.seal.epoch, left.seal.log_end, left.last_epoch)

    def ask_for_isr(
        self, broker: int, state: PartitionState, broker_epochs: Mapping[int, int], found: Mapping[int, SealedEnd]
    ) -> Propose | None:
        """``sealed.ask_asleep`` for this replica; what it asks for counts from now on."""
        left, own = self.left, self.sealed_end()
        if left is None or own is None:
            return None
        proposal = ask_asleep(broker, left.seal, own, state, broker_epochs, found)
        if proposal is not None and (isr := frozenset(proposal.isr)) not in self.asked:
            self.asked.append(isr)
        return proposal
