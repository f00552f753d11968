"""The leader's rules: what may be appended, what is committed, who is in sync, and who is asked to be."""

from __future__ import annotations

from collections.abc import Mapping

from raykafka.cluster.image import PartitionState
from raykafka.error_code import ErrorCode
from raykafka.replica.rules.events import (
    Acked,
    Answered,
    CloseStream,
    Effect,
    Hello,
    OpenStream,
    Propose,
    Reply,
    Seal,
    StreamId,
    StreamLost,
    Wrote,
)
from raykafka.replica.rules.followers import Follower
from raykafka.replica.rules.log_state import LogState, Settings
from raykafka.replica.rules.waiting import WaitingProduces


class Leading:
    """This replica's leadership of one epoch. Ends with the object."""

    def __init__(
        self,
        broker: int,
        log: LogState,
        settings: Settings,
        state: PartitionState,
        broker_epochs: Mapping[int, int],
        now_ms: int,
        seal: Seal | None = None,
    ) -> None:
        self.broker = broker
        self.log = log
        self.settings = settings
        self.epoch = state.leader_epoch
        self.epoch_start = seal.epoch_start if seal else log.end
        self.streams = seal.streams if seal else 0
        self.state = state
        self.broker_epochs = broker_epochs
        self.undecided: list[frozenset[int]] = []
        self.asked_ms = 0
        self.followers: dict[int, Follower] = {}
        self.waiting = WaitingProduces()
        self._counted: tuple[Follower, ...] = ()
        self._name_followers(now_ms)

    # what the controller decided

    def told(self, state: PartitionState, broker_epochs: Mapping[int, int], now_ms: int) -> list[Effect]:
        """The state of this epoch again, or a newer one, which decides every proposal that named an older version."""
        if state.version > self.state.version:
            self.undecided.clear()
        self.state = state
        self.broker_epochs = broker_epochs
        effects = self._name_followers(now_ms)
        effects += self.open_streams(now_ms)
        effects += self.advance()
        return effects

    def _name_followers(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        wanted = {*self.state.replicas, *self.state.isr} - {self.broker}
        for gone in self.followers.keys() - wanted:
            follower = self.followers.pop(gone)
            if follower.stream:
                effects.append(CloseStream(gone, follower.stream))
        for broker in sorted(wanted - self.followers.keys()):
            self.followers[broker] = Follower(broker, caught_up_ms=now_ms, mark_end=self.log.end, mark_ms=now_ms)
        self._count()
        return effects

    # appends

    def admit(self, acks: int, leader_epoch: int) -> ErrorCode:
        """Whether an append may be written (rule 8). ``leader_epoch`` is -1 for any."""
        if leader_epoch >= 0 and leader_epoch != self.epoch:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        if acks == -1 and self._are_too_few():
            return ErrorCode.NOT_ENOUGH_REPLICAS
        return ErrorCode.NONE

    def wrote(self, event: Wrote, now_ms: int) -> list[Effect]:
        """A batch was appended. acks=0 and 1 are answered now, acks=all once the high watermark has passed it (rule
        8)."""
        log = self.log
        if event.last_offset >= log.end:
            for follower in self.followers.values():
                if follower.end >= log.end:
                    follower.caught_up_ms = now_ms
            log.end = event.last_offset + 1
        if event.acks != -1:
            return [Reply(event.token, ErrorCode.NONE), *self.advance()]
        waiting = self.waiting
        queue = waiting.queue
        if not self._counted and not queue:
            # Nobody else counts: the step of every append to an unreplicated partition.
            log.high_watermark = log.end
        if not queue and self.is_committed(event.last_offset):
            return [Reply(event.token, self.committed_error())]
        queue.append(event)
        if event.deadline_ms < waiting.next_deadline_ms or len(queue) == 1:
            waiting.next_deadline_ms = event.deadline_ms
        return self.advance()

    def advance(self) -> list[Effect]:
        """Move the high watermark, and answer what it passes."""
        log = self.log
        end = log.end
        for follower in self._counted:
            if follower.end < end:
                end = follower.end
        if end > log.high_watermark:
            log.high_watermark = end
        queue = self.waiting.queue
        effects: list[Effect] = []
        while queue and self.is_committed(queue[0].last_offset):
            effects.append(Reply(queue.popleft().token, self.committed_error()))
        return effects

    def is_committed(self, offset: int) -> bool:
        """Whether the high watermark has passed the record at ``offset``."""
        return offset < self.log.high_watermark

    def committed_error(self) -> ErrorCode:
        """What acks=all says of a record that the high watermark has passed (rule 8)."""
        return ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND if self._are_too_few() else ErrorCode.NONE

    def _are_too_few(self) -> bool:
        state = self.state
        return len(state.isr) < state.least_in_sync(self.settings.min_insync_replicas)

    def next_tick_ms(self, now_ms: int) -> int | None:
        """When a Tick has something to do: the first waiting produce times out, or a follower or a proposal has to be
        looked at again. None while all is settled."""
        due_ms = self.waiting.next_deadline_ms if self.waiting.queue else None
        if self.undecided or any(map(self._is_unsettled, self.followers.values())):
            retry_ms = now_ms + self.settings.retry_ms
            due_ms = retry_ms if due_ms is None else min(due_ms, retry_ms)
        return due_ms

    def _is_unsettled(self, follower: Follower) -> bool:
        in_sync = follower.broker in self.state.isr
        if in_sync and follower.handshake_done:
            return follower.end < self.log.end
        return in_sync or follower.broker in self.broker_epochs

    # the in-sync replicas

    def counted(self) -> frozenset[int]:
        """Who must hold a record before it is committed (rule 5)."""
        return frozenset(self.state.isr).union(*self.undecided)

    def _count(self) -> None:
        self._counted = tuple(self.followers[b] for b in self.counted() if b in self.followers)

    def may_join(self, follower: Follower) -> bool:
        """Whether a follower may be proposed for the ISR (rule 6)."""
        return follower.handshake_done and follower.end >= self.log.high_watermark and follower.end >= self.epoch_start

    def lags(self, follower: Follower, now_ms: int) -> bool:
        """Whether an in-sync follower has to leave: it is behind, for too long or because it can't write."""
        late = follower.refuses or now_ms - follower.caught_up_ms > self.settings.lag_ms
        return late and follower.end < self.log.end

    def has_heir(self) -> bool:
        """Whether an in-sync follower is there that could lead instead."""
        return any(f.handshake_done and f.broker in self.state.isr for f in self.followers.values())

    def wanted_isr(self, now_ms: int) -> frozenset[int]:
        """The ISR that should be: without followers that lag, with those that may join."""
        isr = {self.broker}
        for broker, follower in self.followers.items():
            if broker in self.state.isr:
                if not self.lags(follower, now_ms):
                    isr.add(broker)
            elif broker in self.state.replicas and self.may_join(follower):
                isr.add(broker)
        return frozenset(isr)

    def propose(self, now_ms: int) -> list[Effect]:
        """Ask for the ISR that is wanted now. Asking for the ISR as it is decides earlier proposals: the state's
        version moves on."""
        wanted = self.wanted_isr(now_ms)
        if wanted == frozenset(self.state.isr) and not self.undecided:
            return []
        if self.undecided and now_ms - self.asked_ms < self.settings.retry_ms and self.undecided[-1] == wanted:
            return []
        if wanted in self.undecided:
            self.undecided.remove(wanted)
        self.undecided.append(wanted)
        self.asked_ms = now_ms
        self._count()
        members = tuple(b for b in self.state.replicas if b in wanted)
        members += tuple(sorted(wanted - set(members)))
        return [Propose(members, tuple(self._epoch_of(b) for b in members), self.epoch, self.state.version)]

    def _epoch_of(self, broker: int) -> int:
        follower = self.followers.get(broker)
        if follower is not None and follower.broker_epoch >= 0:
            return follower.broker_epoch
        return self.broker_epochs.get(broker, -1)

    # streams

    def open_streams(self, now_ms: int) -> list[Effect]:
        """Connect to every follower that is alive and has no stream, and again to one that lives another life now."""
        effects: list[Effect] = []
        for follower in self.followers.values():
            alive = self.broker_epochs.get(follower.broker, -1)
            if follower.stream and follower.handshake_done and alive > follower.broker_epoch:
                effects.append(CloseStream(follower.broker, follower.stream))
                follower.lose_stream(now_ms)
            if alive > follower.tried:
                follower.failures, follower.lost_ms = 0, now_ms - self.settings.retry_ms
            patience_ms = follower.patience_ms(self.settings.retry_ms)
            if alive >= 0 and not follower.stream and now_ms - follower.lost_ms >= patience_ms:
                follower.tried = alive
                effects.append(self._open(follower))
        return effects

    def _open(self, follower: Follower) -> OpenStream:
        self.streams += 1
        stream = StreamId(self.epoch, self.broker, self.broker_epochs.get(self.broker, -1), self.streams)
        follower.stream, follower.handshake_done = stream, False
        log = self.log
        return OpenStream(follower.broker, Hello(stream, log.history, log.start, log.end, log.high_watermark))

    def stream_lost(self, event: StreamLost, now_ms: int) -> list[Effect]:
        """A stream ended: it is opened again after a while. A follower that could not write leaves the ISR."""
        follower = self.followers.get(event.follower)
        if follower is None or follower.stream != event.stream:
            return []
        follower.lose_stream(now_ms)
        follower.refuses |= event.refused
        return self.propose(now_ms) if self.undecided or event.refused else []

    def answered(self, event: Answered, now_ms: int) -> list[Effect]:
        """A follower finished the handshake of its stream. One whose log is not the beginning of this one is given
        up."""
        follower = self.followers.get(event.follower)
        if follower is None or follower.stream != event.stream:
            return []
        if not self.log.begins_with(event.log_end, event.last_epoch):
            follower.lose_stream(now_ms)
            return [CloseStream(event.follower, event.stream)]
        follower.handshake_done, follower.broker_epoch = True, event.broker_epoch
        follower.end = event.log_end
        return self._moved(follower, now_ms)

    def acked(self, event: Acked, now_ms: int) -> list[Effect]:
        """A follower acknowledged what it wrote."""
        follower = self.followers.get(event.follower)
        if follower is None or not self.is_current(follower, event):
            return []
        if event.log_end > follower.end or event.log_end >= self.log.end:
            follower.failures = 0
        if event.log_end > follower.end:
            follower.end, follower.refuses = event.log_end, False
        return self._moved(follower, now_ms)

    def is_current(self, follower: Follower, event: Acked) -> bool:
        """Only acknowledgements of the newest stream, after its handshake, count (rule 11)."""
        return follower.handshake_done and follower.stream == event.stream

    def _moved(self, follower: Follower, now_ms: int) -> list[Effect]:
        follower.note_progress(self.log.end, now_ms)
        effects = self.advance()
        if follower.broker not in self.state.isr and self.may_join(follower):
            effects += self.propose(now_ms)
        return effects

    def close_streams(self) -> list[Effect]:
        """End all streams."""
        return [CloseStream(f.broker, f.stream) for f in self.followers.values() if f.stream]

    def tick(self, now_ms: int) -> list[Effect]:
        """Time passed: answer produces that waited too long, open streams again, ask for the ISR that should be."""
        effects = self.waiting.time_out(now_ms)
        if self.followers:
            effects += self.open_streams(now_ms)
            effects += self.propose(now_ms)
        return effects

    # leaving

    def is_clean(self) -> bool:
        """Whether somebody else can go on from the log alone (rule 17): nobody waits for an answer, every member of the
        ISR is known to hold all of the log, and no other ISR may be in force (rule 5)."""
        log = self.log
        return not self.waiting.queue and not self.undecided and log.high_watermark == log.end

    def seal(self) -> Seal:
        """What lets another opened replica of this broker lead on in this epoch."""
        log = self.log
        return Seal(self.epoch, True, self.epoch_start, log.end, log.high_watermark, self.streams)
