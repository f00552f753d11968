"""The life of one partition in its broker: which replica actor has its log open, and what follows from what happens.

Pure rules: ``step(event, now)`` returns the effects to carry out, in order; ``partition_host`` does that. Times are
seconds of the boot clock. What every phase waits for, and where it goes from there:

| phase | its log is | goes on when |
|---|---|---|
| waiting | open nowhere | its directory is free and it may be tried again (backoff): seeking |
| seeking | open nowhere | it is given a place on an actor: opening |
| opening | being opened by ``actor`` | that answers: open; it can't, or the actor is gone: waiting |
| open | open on ``actor`` | it failed, or the actor is gone: waiting, diverged: failed; to be moved: leaving |
| leaving | open on ``actor``, asked to give it up | it has: opening at the other; can't yet: asked again, then open |
| closing | perhaps still open on ``actor`` | that answers, or it is gone and the directory free: gone, or waiting |
| failed | open nowhere, no beginning of its leader's | another leader epoch began (rule 10): waiting |
| gone | open nowhere, and nobody touches the directory | never |

The broker's release of the partition leads to closing from every phase in which an actor has it, and to gone from the
others. Whenever a log was open, or to be opened, and that ended without a seal, so did the leadership of this broker
(rule 1), which is reported, and so is a follower that is in sync: nobody should wait for it. The log is opened again at
once, and from the second failure on with growing delays. An epoch that the replica can't go on leading it refuses, and
that is reported too.

An opening has a number, which comes back in what is answered to it: answers to an earlier one count for nothing. A
number of an actor is never used twice.
"""

from __future__ import annotations

import enum
from typing import Any

from raykafka.broker.partitions.failures import Failures
from raykafka.broker.partitions.life_events import (
    ActorGone,
    Answer,
    Assigned,
    Changed,
    Close,
    Closed,
    CloseTimedOut,
    DirectoryFree,
    Effect,
    Ended,
    Event,
    Failed,
    FreeDirectory,
    Given,
    Kill,
    Leave,
    LeaveFailed,
    Left,
    Move,
    NotLeft,
    Open,
    Opened,
    OpenFailed,
    Place,
    Refused,
    Released,
    Report,
    Seek,
    SetTimer,
    Tick,
)
from raykafka.cluster.image import PartitionState
from raykafka.types import NOWHERE

# A leader gives its replica up only while all is acknowledged (``replica.rules``): appends are held back meanwhile, so
# that is soon, or its followers are slow.
LEAVE_AGAIN_S = 0.01
LEAVE_WITHIN_S = 1.0


class Phase(enum.StrEnum):
    WAITING = "waiting"
    SEEKING = "seeking"
    OPENING = "opening"
    OPEN = "open"
    LEAVING = "leaving"
    CLOSING = "closing"
    FAILED = "failed"
    GONE = "gone"


_HAS_ACTOR = (Phase.OPENING, Phase.OPEN, Phase.LEAVING)


class Life:
    """Of one partition of ``broker``, from ``Assigned`` on. ``state`` is what the controller decided last; ``actor``
    has the log open, or opens or closes it."""

    __slots__ = (
        "_asked_to_leave",
        "_broker",
        "_directory_free",
        "_effects",
        "_failed_epoch",
        "_leave_until_s",
        "_now",
        "_opening",
        "_placed",
        "_refused",
        "_released",
        "_seal",
        "_to",
        "actor",
        "failures",
        "phase",
        "state",
    )

    def __init__(self, broker: int, state: PartitionState) -> None:
        self.state = state
        self.phase = Phase.WAITING
        self.actor: int | None = None
        self.failures = Failures()
        self._broker = broker
        self._directory_free = True
        self._opening = 0
        self._placed = NOWHERE
        self._seal: list[Any] | None = None
        self._to: int | None = None
        self._asked_to_leave = False
        self._leave_until_s = 0.0
        self._failed_epoch = -1
        self._refused: Refused | None = None
        self._released = False
        self._effects: list[Effect] = []
        self._now = 0.0

    @property
    def leads(self) -> bool:
        """Whether this broker is the partition's leader."""
        return self.state.leader == self._broker

    @property
    def to(self) -> int | None:
        """The actor that it is being moved to."""
        return self._to

    def step(self, event: Event, now: float) -> list[Effect]:
        """What follows from ``event``."""
        self._effects, self._now = [], now
        if self.phase is not Phase.GONE:
            self._take(event)
        return self._effects

    def _take(self, event: Event) -> None:
        match event:
            case Assigned(directory_free):
                if not directory_free:
                    self._directory_free = False
                    self._do(FreeDirectory(None))
                self._go_on()
            case Changed(state):
                self._changed(state)
            case DirectoryFree():
                self._directory_free = True
                self._go_on()
            case Given(actor):
                if self.phase is Phase.SEEKING:
                    self._open(actor)
            case Failed(actor, reason, diverged):
                if actor == self.actor and self.phase in _HAS_ACTOR:
                    self._failed(reason, diverged=diverged)
            case Refused():
                self._refused = event
                self._report_refused()
            case ActorGone(actor):
                self._actor_gone(actor)
            case Move(to):
                if self.phase is Phase.OPEN and not self._released and to != self.actor:
                    self._leave(to)
            case Released():
                self._released = True
                self._release()
            case Tick():
                self._tick()
            case _:
                if event.opening == self._opening:
                    self._answered(event)

    def _answered(self, event: Answer) -> None:
        """The actor answers to what it was asked about the newest opening."""
        match self.phase, event:
            case Phase.OPENING, Opened():
                self._opened()
            case Phase.OPENING, OpenFailed(_, reason):
                self._failed(f"it could not be opened: {reason}")
            case Phase.LEAVING, Left(_, seal):
                self._left(seal)
            case Phase.LEAVING, NotLeft():
                self._not_left()
            case Phase.LEAVING, LeaveFailed():
                self._close()
            case Phase.CLOSING, Closed(_, seal) if self.actor is not None:
                self._closed(seal)
            case Phase.CLOSING, CloseTimedOut() if self.actor is not None:
                self._do(Kill(self.actor))

    def _do(self, effect: Effect) -> None:
        self._effects.append(effect)

    # what the controller decides

    def _changed(self, state: PartitionState) -> None:
        if (state.leader_epoch, state.version) < (self.state.leader_epoch, self.state.version):
            return  # rule 16
        led, self.state = self.leads, state
        self._report_refused()
        if self.phase is Phase.FAILED and state.leader_epoch != self._failed_epoch:
            self.phase = Phase.WAITING
            self._go_on()
        elif self.phase is Phase.SEEKING and led != self.leads:
            self._do(Seek())

    def _report_refused(self) -> None:
        refused = self._refused
        if refused is None or refused.leader_epoch > self.state.leader_epoch:
            return  # an actor may hear of an epoch before its broker goes by it
        self._refused = None
        if refused.leader_epoch == self.state.leader_epoch and self.leads:
            self._do(Report(self.state, refused.reason))

    def _place(self, actor: int) -> None:
        """Tell everybody who serves it where it is. While it moves they keep what it is asked; nowhere, they refuse."""
        if actor != self._placed:
            self._placed = actor
            self._do(Place(actor))

    # opening

    def _go_on(self) -> None:
        """Do what a log that is open nowhere waits for, as far as that can be now."""
        if self.actor is not None or not self._directory_free:
            return
        if self._released:
            self._end(clean=False)
        elif self.phase in (Phase.WAITING, Phase.CLOSING):
            if self._now < self.failures.try_again_s:
                self.phase = Phase.WAITING
                self._do(SetTimer(self.failures.try_again_s))
            else:
                self.phase = Phase.SEEKING
                self._do(Seek())

    def _tick(self) -> None:
        if self.phase is Phase.WAITING:
            self._go_on()
        elif self.phase is Phase.LEAVING and not self._asked_to_leave:
            self._ask_to_leave()

    def _open(self, actor: int) -> None:
        self.phase, self.actor, self._to = Phase.OPENING, actor, None
        self._opening += 1
        seal, self._seal = self._seal, None  # it opens the log once
        self._do(Open(actor, self._opening, seal))

    def _opened(self) -> None:
        if self._released:
            self._close()
            return
        self.phase = Phase.OPEN
        self.failures.opened(self._now)
        self._go_on_open()

    def _go_on_open(self) -> None:
        assert self.actor is not None
        self.phase, self._to = Phase.OPEN, None
        self._place(self.actor)

    # failing

    def _failed(self, reason: str, *, diverged: bool = False) -> None:
        """Nobody has the log open any more, and it was not sealed."""
        self._place(NOWHERE)
        self.phase, self.actor, self._to, self._seal = Phase.WAITING, None, None, None
        self._asked_to_leave = False
        self._failed_epoch = self.state.leader_epoch
        if not self._released:
            self.failures.failed(reason, self._now)
            if self.leads or self._broker in self.state.isr:
                self._do(Report(self.state, reason))
            if diverged:
                self.phase = Phase.FAILED
                return
        elif not self._directory_free:
            self.phase = Phase.CLOSING
        self._go_on()

    def _actor_gone(self, actor: int) -> None:
        if actor == self._to:
            self._to = None
            if self.phase is Phase.LEAVING and not self._asked_to_leave:
                self._go_on_open()
        if actor == self.actor:
            self._directory_free = False
            self._do(FreeDirectory(actor))
            self._failed("its replica actor ended")

    # moving

    def _leave(self, to: int) -> None:
        self.phase, self._to = Phase.LEAVING, to
        self._leave_until_s = self._now + LEAVE_WITHIN_S
        self._ask_to_leave()

    def _ask_to_leave(self) -> None:
        assert self.actor is not None
        self._asked_to_leave = True
        self._do(Leave(self.actor, self._opening))

    def _not_left(self) -> None:
        self._asked_to_leave = False
        if self._released:
            self._close()
        elif self._to is None or self._now >= self._leave_until_s:
            self._go_on_open()
        else:
            self._do(SetTimer(self._now + LEAVE_AGAIN_S))

    def _left(self, seal: list[Any] | None) -> None:
        to, self.actor, self._to = self._to, None, None
        self._asked_to_leave = False
        if self._released:
            self._end(clean=seal is not None)
            return
        self._seal = seal
        if to is not None:
            self._open(to)
        else:
            self.phase = Phase.WAITING
            self._go_on()

    # closing

    def _release(self) -> None:
        if self.phase is Phase.OPEN or (self.phase is Phase.LEAVING and not self._asked_to_leave):
            self._close()
        elif self.actor is None:
            if not self._directory_free:
                self.phase = Phase.CLOSING
            self._go_on()

    def _close(self) -> None:
        assert self.actor is not None
        self._place(NOWHERE)
        self.phase, self._to, self._asked_to_leave = Phase.CLOSING, None, False
        self._do(Close(self.actor, self._opening))

    def _closed(self, seal: list[Any] | None) -> None:
        self.actor = None
        if self._released:
            self._end(clean=seal is not None)
        else:
            self._seal = seal
            self._go_on()

    def _end(self, *, clean: bool) -> None:
        self.phase = Phase.GONE
        self._place(NOWHERE)
        self._do(Ended(clean))
