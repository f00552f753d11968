"""What a leader knows of one follower: how far its log reaches, its stream, for how long it has been behind."""

from __future__ import annotations

from dataclasses import dataclass

from raykafka.replica.rules.events import StreamId

UNKNOWN_END = -1
_MOST_FAILURES = 8
_MOST_PATIENT = 8


@dataclass(slots=True)
class Follower:
    """``end`` is how far its log reached when it last said so in this epoch; ``stream`` the one that is open to it;
    ``handshake_done`` whether it has answered there, in the life ``broker_epoch`` of its broker.

    ``caught_up_ms`` is when it last had everything: either all that was in the leader's log then, or ``mark_end``,
    which was the log's end at ``mark_ms``. ``failures`` counts the streams that ended since it last took something,
    ``tried`` is the life of its broker that the last one went to. ``refuses``: it could not write what came next.
    """

    broker: int
    end: int = UNKNOWN_END
    stream: StreamId | None = None
    handshake_done: bool = False
    broker_epoch: int = -1
    lost_ms: int = 0
    caught_up_ms: int = 0
    mark_end: int = 0
    mark_ms: int = 0
    failures: int = 0
    tried: int = -1
    refuses: bool = False

    def lose_stream(self, now_ms: int) -> None:
        """Its stream has ended, or is given up."""
        self.stream, self.handshake_done, self.lost_ms = None, False, now_ms
        self.failures = min(self.failures + 1, _MOST_FAILURES)

    def patience_ms(self, retry_ms: int) -> int:
        """How long to wait before the next stream to it: longer for one that took nothing of the last few."""
        return retry_ms * int(min(2 ** max(0, self.failures - 1), _MOST_PATIENT))

    def note_progress(self, leader_end: int, now_ms: int) -> None:
        """It said how far its log reaches: keep account of when it was caught up with the leader's log, which ends at
        ``leader_end``."""
        if self.end >= leader_end:
            self.caught_up_ms = now_ms
        elif self.end >= self.mark_end:
            self.caught_up_ms = max(self.caught_up_ms, self.mark_ms)
        if self.end >= self.mark_end:
            self.mark_end, self.mark_ms = leader_end, now_ms

    def lag(self, leader_end: int, now_ms: int) -> tuple[int | None, int]:
        """How far it is behind: in records (None while its end is unknown), and for how many ms it has not been caught
        up."""
        if self.end == UNKNOWN_END:
            return None, max(0, now_ms - self.caught_up_ms)
        records = max(0, leader_end - self.end)
        return records, max(0, now_ms - self.caught_up_ms) if records else 0
