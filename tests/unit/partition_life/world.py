"""One partition in its broker among replica actors, a disk and a controller that a seed drives: what the rules of its
life promise is checked at every step, and that it is open in the end."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from raykafka.broker.partitions.life import Life, Phase
from raykafka.broker.partitions.life_events import (
    ActorGone,
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

BROKER = 1
OTHER = 2


class Violation(AssertionError):
    """A promise that was broken."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name


ONE_WRITER = "no log is opened while another process has it"
ONE_LINEAGE = "no epoch is led again by a log that was opened anew"
OPENS = "once actors live and the disk works, the log is opened"
LEADS = "who should lead and can't is reported, and elected again"
PLACED = "all actors are told who has it"
RELEASED = "what is released is gone, and nobody touches its directory"


@dataclass(eq=False)
class Replica:
    """An opened log. ``lineage`` names the opening with which the leadership began that it goes on with."""

    lineage: int
    leading: int | None = None


@dataclass(eq=False)
class Actor:
    """``inbox`` has what the broker asked and it has not done yet, ``outbox`` what it said and the broker has not read.
    A process outlives its link for a while."""

    number: int
    connected: bool = True
    inbox: deque[Effect] = field(default_factory=deque)
    outbox: deque[tuple[bool, Event]] = field(default_factory=deque)
    replica: Replica | None = None
    hangs: bool = False


class World:
    """``run`` plays the schedule of ``seed``; ``rules`` are the rules of the life."""

    def __init__(self, seed: int, rules: type[Life] = Life) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.state = PartitionState((BROKER, OTHER), BROKER, 0, (BROKER,), 0)
        self.untold: deque[PartitionState] = deque()
        self.reports: list[PartitionState] = []
        self.actors: dict[int, Actor] = {}
        self.numbers = 0
        self.holder: Actor | None = None
        self.disk_works = True
        self.disk_epoch = -1
        self.led: dict[int, int] = {}
        self.openings = 0
        self.answers: list[Event] = []
        self.freeing: list[int | None] = []
        self.before = self.random.random() < 0.3
        self.seeks = False
        self.timer: float | None = None
        self.placed = NOWHERE
        self.ended = False
        self.counts: Counter[str] = Counter()
        self.faults = True
        # how likely it is in each step that news of the controller, or answers of actors, reach the broker
        self.news = self.random.choice((0.1, 1.0))
        self.hearing = self.random.choice((0.1, 1.0))
        self.seals = 0
        self.opened_with: set[int] = set()
        self.life = rules(BROKER, self.state)
        self.start_actor()
        if self.random.random() < 0.5:
            self.start_actor()
        self.step(Assigned(not self.before))

    # the broker

    def step(self, event: Event) -> None:
        self.counts[type(event).__name__] += 1
        for effect in self.life.step(event, self.now):
            self.carry_out(effect)

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Seek():
                self.seeks = True
            case Open(number) | Leave(number) | Close(number):
                self.seeks = self.seeks and not isinstance(effect, Open)
                if number in self.actors and self.actors[number].connected:
                    self.actors[number].inbox.append(effect)
            case Kill(number):
                if number in self.actors:
                    self.disconnect(self.actors[number])
                    self.die(self.actors[number])
            case Place(number):
                self.placed = number
            case Report(state):
                self.reports.append(state)
            case FreeDirectory(number):
                self.freeing.append(number)
            case SetTimer(at_s):
                self.timer = at_s
            case Ended():
                if self.holder is not None or self.before:
                    raise Violation(RELEASED, "the directory is still in use")
                self.ended = True

    # actors

    def start_actor(self) -> None:
        self.actors[self.numbers] = Actor(self.numbers)
        self.numbers += 1

    def disconnect(self, actor: Actor) -> None:
        """The link ends: what is on its way on it is lost."""
        if actor.connected:
            actor.connected = False
            actor.inbox.clear()
            actor.outbox.clear()
            self.counts["lost actors"] += 1
            self.step(ActorGone(actor.number))

    def die(self, actor: Actor) -> None:
        if self.holder is actor:
            self.holder = None
        self.actors.pop(actor.number, None)

    def work(self, actor: Actor) -> None:
        """The actor does the next thing that it was asked for."""
        asked = actor.inbox.popleft()
        match asked:
            case Open(_, opening, seal):
                self.open(actor, opening, seal)
            case Leave(_, opening):
                self.leave(actor, opening)
            case Close(_, opening):
                seal = self.seal(actor)
                self.shut(actor)
                actor.outbox.append((True, Closed(opening, seal)))
            case _:
                raise AssertionError(asked)

    def open(self, actor: Actor, opening: int, seal: list[Any] | None) -> None:
        if self.holder is not None or self.before:
            raise Violation(ONE_WRITER, f"{actor.number} opens what {self.holder and self.holder.number} has")
        if not self.disk_works:
            actor.outbox.append((True, OpenFailed(opening, "the disk is bad")))
            return
        self.holder = actor
        self.openings += 1
        lineage, leading, number = seal or (self.openings, None, -self.openings)
        # a seal tells how the log ended once: not how it goes on after it was opened
        actor.replica = Replica(self.openings if number in self.opened_with else lineage, leading)
        self.opened_with.add(number)
        actor.outbox.append((True, Opened(opening)))
        self.counts["opened"] += 1
        self.tell(actor)

    def tell(self, actor: Actor) -> None:
        """The actor's replica takes the controller's newest state."""
        replica, state = actor.replica, self.state
        assert replica is not None
        if state.leader != BROKER:
            replica.leading = None
            self.disk_epoch = max(self.disk_epoch, state.leader_epoch)
        elif replica.leading == state.leader_epoch:
            self.note_leading(replica)
        elif state.leader_epoch <= self.disk_epoch:
            replica.leading = None
            actor.outbox.append((False, Refused(state.leader_epoch, "it was led before")))
        else:
            replica.leading = self.disk_epoch = state.leader_epoch
            self.note_leading(replica)

    def note_leading(self, replica: Replica) -> None:
        assert replica.leading is not None
        if self.led.setdefault(replica.leading, replica.lineage) != replica.lineage:
            raise Violation(ONE_LINEAGE, f"epoch {replica.leading}")

    def seal(self, actor: Actor) -> list[Any] | None:
        if actor.replica is None:
            return None
        self.seals += 1
        return [actor.replica.lineage, actor.replica.leading, self.seals]

    def leave(self, actor: Actor, opening: int) -> None:
        chance = self.random.random()
        if actor.replica is None:
            actor.outbox.append((True, LeaveFailed(opening)))
        elif chance < 0.3:
            actor.outbox.append((True, NotLeft(opening)))
        elif chance < 0.4 and self.faults:
            if self.random.random() < 0.5:
                self.shut(actor)
            actor.outbox.append((True, LeaveFailed(opening)))
        else:
            seal = self.seal(actor)
            self.shut(actor)
            self.counts["left"] += 1
            actor.outbox.append((True, Left(opening, seal)))

    def shut(self, actor: Actor) -> None:
        actor.replica = None
        if self.holder is actor:
            self.holder = None

    def fail(self, actor: Actor) -> None:
        replica, diverged = actor.replica, self.state.leader != BROKER and self.random.random() < 0.3
        assert replica is not None
        self.shut(actor)
        self.counts["diverged" if diverged else "failed"] += 1
        actor.outbox.append((False, Failed(actor.number, "it failed", diverged)))

    def read(self, actor: Actor) -> None:
        """The broker reads what the actor said: an answer is taken by a task, in some later turn."""
        is_answer, said = actor.outbox.popleft()
        if is_answer:
            self.answers.append(said)
        elif actor.number == self.life.actor:
            self.step(said)

    # the controller

    def decide(self, leader: int, epochs: int = 1) -> None:
        isr, epoch = (BROKER, OTHER), self.state.leader_epoch + epochs
        self._write(replace(self.state, leader=leader, leader_epoch=epoch, isr=isr))

    def _write(self, state: PartitionState) -> None:
        self.state = replace(state, version=state.version + 1)
        self.untold.append(self.state)
        for actor in self.actors.values():
            if actor.replica is not None and actor.connected:
                self.tell(actor)

    def take_report(self) -> None:
        reported = self.reports.pop(0)
        if reported.leader != BROKER:
            if BROKER not in reported.isr:
                raise Violation(LEADS, "a follower was reported that nobody waits for")
            if reported.leader_epoch == self.state.leader_epoch and BROKER in self.state.isr:
                self.counts["out of the ISR"] += 1
                self._write(replace(self.state, isr=tuple(b for b in self.state.isr if b != BROKER)))
        elif reported.leader_epoch == self.state.leader_epoch:
            self.counts["elected again"] += 1
            self.decide(self.random.choice((BROKER, BROKER, OTHER)))

    # schedules

    def moves(self) -> list[Callable[[], None]]:
        """All that can happen next, what is likely more than once."""
        found: list[Callable[[], None]] = []
        for actor in self.actors.values():
            if actor.connected and actor.inbox and not actor.hangs:
                found += [lambda a=actor: self.work(a)] * 4  # type: ignore[misc]
            if actor.connected and actor.outbox:
                found += [lambda a=actor: self.read(a)] * 4  # type: ignore[misc]
            if not actor.connected:
                found.append(lambda a=actor: self.die(a))  # type: ignore[misc]
            if actor.hangs and actor.inbox and isinstance(actor.inbox[0], Close):
                found.append(lambda a=actor: self.time_out(a))  # type: ignore[misc]
        if self.random.random() < self.hearing or not found:
            found += [lambda a=answer: self.answer(a) for answer in self.answers] * 4
        if self.untold and (self.random.random() < self.news or not found):
            found += [lambda: self.step(Changed(self.untold.popleft()))] * 2
        if self.reports:
            found.append(self.take_report)
        if self.before:
            found.append(lambda: setattr(self, "before", False))
        for number in self.freeing:
            if self.is_free(number):
                found += [lambda n=number: self.free(n)] * 2  # type: ignore[misc]
        connected = [actor.number for actor in self.actors.values() if actor.connected]
        if self.seeks and connected and self.life.phase is Phase.SEEKING:
            found += [lambda: self.step(Given(self.random.choice(connected)))] * 2
        if self.timer is not None:
            found.append(self.tick)
        return found

    def mishaps(self) -> list[Callable[[], None]]:
        """What goes wrong, or is asked for, at any time."""
        found: list[Callable[[], None]] = [
            lambda: self.decide(self.random.choice((BROKER, OTHER)), self.random.randint(1, 2)),
            lambda: setattr(self, "disk_works", not self.disk_works),
            self.start_actor,
        ]
        connected = [actor for actor in self.actors.values() if actor.connected]
        if connected:
            some = self.random.choice(connected)
            found += [lambda: self.disconnect(some), lambda: setattr(some, "hangs", True)]
            found += [lambda: self.step(Move(some.number))] * 4
            if some.replica is not None:
                found += [lambda: self.fail(some)] * 2
        return found

    def is_free(self, number: int | None) -> bool:
        if number is None:
            return not self.before
        return number not in self.actors or self.holder is not self.actors[number]

    def free(self, number: int | None) -> None:
        self.freeing.remove(number)
        self.step(DirectoryFree())

    def answer(self, answer: Event) -> None:
        self.answers.remove(answer)
        self.step(answer)

    def tick(self) -> None:
        assert self.timer is not None
        self.now, self.timer = max(self.now, self.timer), None
        self.step(Tick())

    def time_out(self, actor: Actor) -> None:
        asked = actor.inbox[0]
        assert isinstance(asked, Close)
        self.answers.append(CloseTimedOut(asked.opening))

    def run(self, length: int = 60) -> World:
        releases = self.random.random() < 0.3
        release_at = self.random.randrange(2 * length) if releases else -1
        for at in range(length):
            if at == release_at:
                self.step(Released())
            moves = self.moves()
            if not moves or self.random.random() < 0.2:
                moves = self.mishaps()
            self.random.choice(moves)()
            self.now += self.random.random() * self.random.choice((0.001, 0.1, 5.0))
        self.heal()
        if release_at >= length:
            self.settle(release_at - length)
            self.step(Released())
        self.settle(1000)
        self.check(released=releases)
        return self

    def heal(self) -> None:
        """From here on nothing goes wrong. Who hangs over a log that is to be closed is the rules' to end."""
        self.faults, self.disk_works, self.hearing, self.news = False, True, 1.0, 1.0
        for actor in list(self.actors.values()):
            if actor.hangs and not (actor.inbox and isinstance(actor.inbox[0], Close)):
                self.disconnect(actor)
                self.die(actor)
        self.start_actor()

    def settle(self, most: int) -> None:
        for _ in range(most):
            moves = self.moves()
            if not moves:
                if self.life.phase is Phase.FAILED and not self.untold:
                    self.decide(OTHER)  # diverged: nothing helps but another leader (rule 10)
                    continue
                return
            self.random.choice(moves)()
            self.now += 0.001

    def check(self, *, released: bool) -> None:
        life = self.life
        if released:
            if life.phase is not Phase.GONE or not self.ended:
                raise Violation(RELEASED, f"it is {life.phase}")
            if self.placed != NOWHERE or self.holder is not None:
                raise Violation(RELEASED, "somebody has it still")
            return
        holder = self.holder
        if life.phase is not Phase.OPEN or holder is None or holder.number != life.actor:
            raise Violation(OPENS, f"it is {life.phase} at {life.actor}")
        if self.placed != life.actor:
            raise Violation(PLACED, f"it is at {life.actor}, and placed at {self.placed}")
        assert holder.replica is not None
        leads = self.state.leader_epoch if self.state.leader == BROKER else None
        if holder.replica.leading != leads:
            raise Violation(LEADS, f"epoch {leads}, and the replica leads {holder.replica.leading}")
