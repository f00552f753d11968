"""The produces of acks=all that wait for the high watermark, oldest first."""

from __future__ import annotations

from collections import deque

from raykafka.error_code import ErrorCode
from raykafka.replica.rules.events import Effect, Reply, Wrote


class WaitingProduces:
    """``next_deadline_ms`` is the soonest deadline in ``queue`` (boot clock). The leader itself adds to the queue
    and takes from it: it does so for every append."""

    __slots__ = ("next_deadline_ms", "queue")

    def __init__(self) -> None:
        self.queue: deque[Wrote] = deque()
        self.next_deadline_ms = 0

    def __len__(self) -> int:
        return len(self.queue)

    def fail(self, error: ErrorCode) -> list[Effect]:
        """Answer all of them with ``error``."""
        effects: list[Effect] = [Reply(wrote.token, error) for wrote in self.queue]
        self.queue.clear()
        return effects

    def time_out(self, now_ms: int) -> list[Effect]:
        """Answer those whose deadline is over. Their records stay in the log."""
        if not self.queue or now_ms < self.next_deadline_ms:
            return []
        effects: list[Effect] = []
        kept: deque[Wrote] = deque()
        for wrote in self.queue:
            if wrote.deadline_ms <= now_ms:
                effects.append(Reply(wrote.token, ErrorCode.REQUEST_TIMED_OUT))
            else:
                kept.append(wrote)
        self.queue = kept
        self.next_deadline_ms = min((wrote.deadline_ms for wrote in kept), default=0)
        return effects
