"""What the rules know of a replica's log, and what they are set to."""

from __future__ import annotations

from dataclasses import dataclass

from raykafka.epoch_history import EpochHistory
from raykafka.types import NO_EPOCH


@dataclass(slots=True)
class LogState:
    """What the rules know of the log on this replica's disk: the offset of its first record, the offset after its last
    one, its epochs. ``high_watermark`` never goes back but by a truncation that an unclean election allows."""

    start: int
    end: int
    history: EpochHistory
    high_watermark: int

    def begins_with(self, log_end: int, last_epoch: int) -> bool:
        """Whether a log that ends at ``log_end``, with a record of ``last_epoch`` (NO_EPOCH: without any), is the
        beginning of this one (rule 11)."""
        if log_end < self.start or log_end > self.end:
            return False
        return last_epoch in (NO_EPOCH, self.history.epoch_at(log_end - 1))


@dataclass(slots=True)
class Settings:
    """``lag_ms``: how long an in-sync follower may stay behind (``replica.lag.time.max.ms``). ``retry_ms``: when to
    ask the controller again, or connect again."""

    min_insync_replicas: int = 1
    lag_ms: int = 10_000
    retry_ms: int = 200
