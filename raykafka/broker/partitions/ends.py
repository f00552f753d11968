"""What a broker knows of the offsets of a replica on it."""

from __future__ import annotations

from typing import NamedTuple


class Checkpoint(NamedTuple):
    """What the checkpoint files hold of a partition; None where there is no entry."""

    recovery_point: int | None = None
    high_watermark: int | None = None
    log_start_offset: int | None = None


class Ends(NamedTuple):
    """What the replica's actor told last, some second ago at most."""

    leader_epoch: int
    log_start_offset: int
    high_watermark: int
    log_end_offset: int
    recovery_point: int

    @property
    def checkpoint(self) -> Checkpoint:
        """What the checkpoint files should hold."""
        return Checkpoint(self.recovery_point, self.high_watermark, self.log_start_offset)

    @staticmethod
    def of_opened(leader_epoch: int, log_start: int, log_end: int, known: Checkpoint) -> Ends:
        """Of a log that was just opened (rule 9)."""
        high_watermark = log_start if known.high_watermark is None else known.high_watermark
        recovery_point = known.recovery_point or 0
        return Ends(
            leader_epoch,
            log_start,
            min(max(high_watermark, log_start), log_end),
            log_end,
            min(max(recovery_point, log_start), log_end),
        )
