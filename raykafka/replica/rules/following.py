"""The follower's rules: which stream to take, where to truncate, what to acknowledge."""

from __future__ import annotations

from raykafka.cluster.image import PartitionState
from raykafka.epoch_history import EpochHistory, agreeing_end
from raykafka.replica.rules.events import (
    Ack,
    AdvanceStart,
    Answer,
    CloseStream,
    Diverged,
    Effect,
    Hello,
    Received,
    Restart,
    SetHistory,
    StreamId,
    StreamLost,
    Truncate,
)
from raykafka.replica.rules.log_state import LogState


class Following:
    """This replica's time as a follower in one leader epoch. Ends with the object."""

    def __init__(self, broker: int, log: LogState, state: PartitionState) -> None:
        self.broker = broker
        self.log = log
        self.epoch = state.leader_epoch
        self.state = state
        self.stream: StreamId | None = None
        self.newest: StreamId | None = None

    def told(self, state: PartitionState) -> list[Effect]:
        """The state of this epoch again, or a newer version of it."""
        self.state = state
        return []

    def hello(self, event: Hello) -> list[Effect]:
        """Take a leader's stream (rule 11): make this log the beginning of the leader's, then answer."""
        stream = event.stream
        if not self.may_take(stream):
            return [CloseStream(self.broker, stream)]
        effects: list[Effect] = []
        if self.stream is not None:
            effects.append(CloseStream(self.broker, self.stream))
            self.stream = None
        cut, end, begin_at = self._cut_for(event)
        log = self.log
        if cut and log.high_watermark > max(end, event.log_start) and not self.may_lose_committed():
            return [*effects, Diverged(self.epoch, end, log.high_watermark)]
        if cut:
            if log.history.latest_epoch < self.epoch:
                log.history = self.remember()
                effects.append(SetHistory(log.history))
            if begin_at is None:
                effects.append(Truncate(end))
            else:
                effects.append(Restart(begin_at))
                log.start = begin_at
            log.end = end
            log.high_watermark = min(log.high_watermark, end)
        if log.history != event.history:
            log.history = event.history
            effects.append(SetHistory(log.history))
        if log.start < event.log_start:
            log.start = event.log_start
            effects.append(AdvanceStart(log.start))
        self._raise_high_watermark(event.high_watermark)
        self.stream = self.newest = stream
        effects.append(Answer(stream, log.end, log.history.last_record_epoch(log.start, log.end)))
        return effects

    def remember(self) -> EpochHistory:
        """The history with this epoch in it, before anything is done in its name (rule 3)."""
        return self.log.history.assign(self.epoch, self.log.end)

    def may_take(self, stream: StreamId) -> bool:
        """Only the newest stream of the epoch and leader that the broker told of (rules 3, 11)."""
        if stream.leader_epoch != self.epoch or stream.leader != self.state.leader:
            return False
        return self.newest is None or stream > self.newest

    def _cut_for(self, event: Hello) -> tuple[bool, int, int | None]:
        """Whether the log has to be cut, the end it has then, and where it begins when it starts empty (else None)."""
        log = self.log
        restart = (True, event.log_start, event.log_start)
        if log.end < event.log_start:
            return restart
        if log.start == log.end:
            return restart if log.end > event.log_end else (False, log.end, None)
        agreed = self.agreed_end(event)
        if agreed is None or agreed < max(log.start, event.log_start):
            return restart
        return agreed < log.end, agreed, None

    def agreed_end(self, event: Hello) -> int | None:
        """Up to which offset this log and the leader's agree (KIP-279), None if nowhere."""
        return agreeing_end(self.log.history, self.log.end, event.history, event.log_end)

    def may_lose_committed(self) -> bool:
        """Whether this log was last written before an unclean election (rule 10)."""
        log = self.log
        return self.state.unclean_epoch > log.history.last_record_epoch(log.start, log.end)

    def takes(self, stream: StreamId, base_offset: int) -> bool:
        """Whether records that came on ``stream`` may be written: the current stream, and exactly at the log's end."""
        return stream == self.stream and base_offset == self.log.end

    def received(self, event: Received) -> list[Effect]:
        """Records of the stream were written: acknowledge them, and follow the leader's log start and high
        watermark."""
        if event.stream != self.stream:
            return []
        log = self.log
        effects: list[Effect] = []
        if event.log_end > log.end:
            log.end = event.log_end
            effects.append(Ack(event.stream, log.end))
        start = min(event.log_start, log.end)
        if start > log.start:
            log.start = start
            effects.append(AdvanceStart(start))
        self._raise_high_watermark(event.high_watermark)
        return effects

    def _raise_high_watermark(self, leaders: int) -> None:
        log = self.log
        log.high_watermark = max(log.high_watermark, log.start, min(leaders, log.end))

    def stream_lost(self, event: StreamLost) -> list[Effect]:
        """The stream that is followed ended; an older one does not matter."""
        if event.stream == self.stream:
            self.stream = None
        return []
