"""The rules of one partition replica: ``step(event, now) -> effects``. No disk, no socket, no clock, no Ray.

A replica leads an epoch (leading.py), follows one (following.py), or neither. ``docs/rules.md`` numbers the rules.
Times are boot-clock milliseconds, passed in (rule 23); record timestamps never come here.
"""

from __future__ import annotations

from collections.abc import Mapping

from raykafka.cluster.image import PartitionState
from raykafka.epoch_history import EpochHistory
from raykafka.error_code import ErrorCode
from raykafka.replica.rules.events import (
    Acked,
    Answered,
    CloseStream,
    Cut,
    Diverged,
    Effect,
    Event,
    Hello,
    Left,
    Received,
    Refused,
    Seal,
    SetHistory,
    StreamLost,
    Tick,
    Told,
    Wrote,
)
from raykafka.replica.rules.following import Following
from raykafka.replica.rules.leading import Leading
from raykafka.replica.rules.log_state import LogState, Settings
from raykafka.types import NO_EPOCH

LED_BEFORE = "the epoch was led or followed before, by a replica that was closed since or with another log"
SHORT_LOG = "the log is shorter than its high watermark was"
LEFT = "left to another actor"


class Partition:
    """One opened replica: from the opening of its log to its close.

    ``checkpoint`` is the high watermark that was known when the log was opened, None if there was none. It says where
    to begin and whether the log lost something; it never decides a truncation (rule 9). ``seal`` is what the log was
    closed with; the caller has seen to it that nobody opens the log with it again (rule 17). A log that is shorter than
    its checkpoint may not lead until this replica has been out of the ISR, or an unclean election asks for it (rules
    10, 18).
    """

    leading_rules = Leading
    following_rules = Following

    def __init__(
        self,
        broker: int,
        settings: Settings,
        *,
        log_start: int,
        log_end: int,
        history: EpochHistory,
        checkpoint: int | None,
        seal: Seal | None = None,
    ) -> None:
        if seal is not None and (seal.log_end != log_end or seal.epoch < history.latest_epoch):
            seal = None
        known = seal.high_watermark if seal is not None else checkpoint
        high_watermark = log_start if known is None else max(log_start, min(known, log_end))
        self.broker = broker
        self.settings = settings
        self.log = LogState(log_start, log_end, history, high_watermark)
        self.state: PartitionState | None = None
        self.leading: Leading | None = None
        self.following: Following | None = None
        self.stopped: str | None = None
        self._lost_below = checkpoint if checkpoint is not None and checkpoint > log_end else None
        self._seal = seal

    def step(self, event: Event, now_ms: int) -> list[Effect]:
        """Take one event and say what to do, in order."""
        if self.stopped is not None:
            return []
        leading, following = self.leading, self.following
        if isinstance(event, Wrote):
            return leading.wrote(event, now_ms) if leading else []
        if isinstance(event, Acked):
            return leading.acked(event, now_ms) if leading else []
        if isinstance(event, Received):
            return following.received(event) if following else []
        if isinstance(event, Tick):
            return leading.tick(now_ms) if leading else []
        if isinstance(event, Told):
            return self._told(event, now_ms)
        if isinstance(event, Hello):
            return self._hello(event)
        if isinstance(event, Answered):
            return leading.answered(event, now_ms) if leading else []
        if isinstance(event, StreamLost):
            if leading:
                return leading.stream_lost(event, now_ms)
            return following.stream_lost(event) if following else []
        if isinstance(event, Cut):
            return self._cut(event)
        return self._leave()

    # what readers may know

    @property
    def epoch(self) -> int:
        """The leader epoch that this replica leads or follows, -1 for neither."""
        if self.leading:
            return self.leading.epoch
        return self.following.epoch if self.following else -1

    @property
    def epoch_start(self) -> int:
        """Where this replica's leadership began, -1 at a follower."""
        return self.leading.epoch_start if self.leading else -1

    @property
    def latest(self) -> int | None:
        """What ListOffsets(latest) answers, None for OFFSET_NOT_AVAILABLE: a new leader that does not know yet how
        far its predecessor's high watermark went must not say less (rule 9)."""
        leading = self.leading
        if leading is None or self.log.high_watermark < leading.epoch_start:
            return None
        return self.log.high_watermark

    @property
    def readable_end(self) -> int:
        """Where reads end: the high watermark (rule 21)."""
        return self.log.high_watermark

    @property
    def checkpoint(self) -> int:
        """The high watermark to remember: of a log that is too short the one that it had, so that whoever opens it next
        does not lead either (rule 18)."""
        return self.log.high_watermark if self._lost_below is None else self._lost_below

    def admit(self, acks: int, leader_epoch: int) -> ErrorCode:
        """Whether an append may be written now. ``leader_epoch`` is -1, or the only epoch that may take it."""
        if self.leading is None:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        return self.leading.admit(acks, leader_epoch)

    # what the controller decided

    def _told(self, event: Told, now_ms: int) -> list[Effect]:
        state, old = event.state, self.state
        if state.leader_epoch < self.known_epoch():
            return []
        if old is not None and (state.leader_epoch, state.version) < (old.leader_epoch, old.version):
            return []
        self.state = state
        if self.broker not in state.isr:
            self._lost_below = None
        if state.leader != self.broker:
            return self._follow(state)
        if self.leading is not None and self.leading.epoch == state.leader_epoch:
            return self.leading.told(state, event.broker_epochs, now_ms)
        return self._lead(state, event.broker_epochs, now_ms)

    def known_epoch(self) -> int:
        """The highest epoch this replica has led or followed, whoever had its log open: nothing older is obeyed (rule
        3)."""
        return max(self.log.history.latest_epoch, self._seal.epoch if self._seal else NO_EPOCH)

    def _lead(self, state: PartitionState, broker_epochs: Mapping[int, int], now_ms: int) -> list[Effect]:
        before = self.leading
        known, seal, self._seal = self.known_epoch(), self._seal, None
        effects = self._leave_stream()
        self.leading = self.following = None
        if self._lost_below is not None and state.unclean_epoch != state.leader_epoch:
            return [*effects, *self._abandon(before), Refused(state.leader_epoch, SHORT_LOG)]
        log = self.log
        if seal is not None and not (seal.leading and seal.epoch == state.leader_epoch == log.history.latest_epoch):
            seal = None
        if seal is None and not self.may_lead(state.leader_epoch, known):
            return [*effects, *self._abandon(before), Refused(state.leader_epoch, LED_BEFORE)]
        if log.history.latest_epoch != state.leader_epoch:
            log.history = log.history.assign(state.leader_epoch, log.end)
            effects.append(SetHistory(log.history))
        self._lost_below = None
        leading = self.leading_rules(self.broker, log, self.settings, state, broker_epochs, now_ms, seal)
        if before is not None:
            effects += before.close_streams()
            leading.waiting = before.waiting  # their records are in this log
        self.leading = leading
        return [*effects, *leading.open_streams(now_ms), *leading.advance()]

    def may_lead(self, epoch: int, known_epoch: int) -> bool:
        """An epoch is led only by the opened replica that begins it (rule 1): it must be newer than any on this
        disk."""
        return epoch > known_epoch

    def _follow(self, state: PartitionState) -> list[Effect]:
        if self.following is not None and self.following.epoch == state.leader_epoch:
            return self.following.told(state)
        effects = self._leave_stream() + self._abandon(self.leading)
        self.leading = self.following = None
        if state.leader >= 0:
            self.following = self.following_rules(self.broker, self.log, state)
        return effects

    def _leave_stream(self) -> list[Effect]:
        stream = self.following.stream if self.following else None
        return [CloseStream(self.broker, stream)] if stream else []

    def _abandon(self, leading: Leading | None) -> list[Effect]:
        """Stop leading: streams end, and produces that wait learn that it is not for this replica to answer (rule
        8)."""
        if leading is None:
            return []
        return leading.close_streams() + leading.waiting.fail(ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def _hello(self, event: Hello) -> list[Effect]:
        if self.following is None:
            return [CloseStream(self.broker, event.stream)]
        effects = self.following.hello(event)
        if effects and isinstance(effects[-1], Diverged):
            self._stop("the log diverged from its leader's below the high watermark")
        return effects

    def _cut(self, event: Cut) -> list[Effect]:
        epoch = self.epoch
        effects = [*self._leave_stream(), *self._abandon(self.leading), Refused(epoch, event.reason)]
        self._stop(event.reason)
        return effects

    def closing_seal(self) -> Seal | None:
        """What to leave behind when the log is closed at an arbitrary moment: a log that is whole, but leads nothing in
        the epochs it knows (rule 1). None where the log can't be relied on."""
        if self.stopped is not None or self._lost_below is not None:
            return None
        log = self.log
        return Seal(max(self.known_epoch(), self.epoch), False, log.end, log.end, log.high_watermark, 0)

    def _leave(self) -> list[Effect]:
        leading = self.leading
        if leading is None:
            effects, seal = self._leave_stream(), self.closing_seal()
        elif leading.is_clean():
            effects, seal = leading.close_streams(), leading.seal()
        else:
            return []
        self._stop(LEFT)
        return [*effects, Left(seal)]

    def _stop(self, reason: str) -> None:
        self.stopped = reason
        self.leading = self.following = None
