"""Which replicas each actor has, and which wait for a place on one.

A place is given in the next turn of the event loop, to leaders first, and OPENING_AT_ONCE logs are opened by one actor
at the same time: many more would take as long, and the first of them longer.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple, Protocol

from raykafka.broker.partitions.actors import Actor, ActorPool
from raykafka.broker.partitions.life import Life, Phase
from raykafka.broker.partitions.life_events import Event, Given, Move
from raykafka.broker.partitions.placement import Load, choose
from raykafka.process.clock import boot_clock

OPENING_AT_ONCE = 16
MOVING_AT_ONCE = 8
# how long a replica stays where it is that could not be moved
STAY_S = 10.0


class Sitter(Protocol):
    """A partition that has an actor, or seeks one."""

    @property
    def life(self) -> Life: ...
    def step(self, event: Event) -> None: ...


class Claim(NamedTuple):
    """The actors that a partition has or is moved to, and whether the first opens its log."""

    actor: int | None
    to: int | None
    opening: bool

    @staticmethod
    def of(life: Life) -> Claim:
        return Claim(life.actor, life.to, life.phase is Phase.OPENING)


class _Seat:
    """``given`` is how many replicas it was given since its load was measured; ``let_go`` is set once the pool was told
    that it is empty."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self.sitters: dict[Sitter, None] = {}
        self.opening = 0
        self.given = 0
        self.let_go = False


class Seats:
    """The seats of ``pool``'s actors. Runs on the broker's event loop."""

    def __init__(self, pool: ActorPool) -> None:
        self._pool = pool
        self._seats: dict[int, _Seat] = {}
        self._leaders: OrderedDict[Sitter, None] = OrderedDict()
        self._others: OrderedDict[Sitter, None] = OrderedDict()
        self._to_move: OrderedDict[Sitter, int] = OrderedDict()
        self._moving: set[Sitter] = set()
        self._stay: dict[Sitter, float] = {}
        self._asked_for = 0
        self._due = False
        self._loop = asyncio.get_running_loop()

    # actors

    def came(self, actor: Actor) -> None:
        self._seats[actor.number] = _Seat(actor)
        self._asked_for = max(0, self._asked_for - 1)
        self.look_again()

    def gone(self, number: int) -> tuple[Actor, list[Sitter]] | None:
        """The actor that had this number and the partitions that had it, leaders first; None if it is not known."""
        seat = self._seats.pop(number, None)
        if seat is None:
            return None
        self.look_again()
        return seat.actor, sorted(seat.sitters, key=lambda sitter: not sitter.life.leads)

    def actor(self, number: int) -> Actor | None:
        """The living actor with this number."""
        seat = self._seats.get(number)
        return seat.actor if seat is not None else None

    @property
    def each(self) -> bool:
        """Whether every replica has an actor of its own."""
        return self._pool.each

    @property
    def under_way(self) -> bool:
        """Whether any replica seeks a place, is opened or moves."""
        waiting = self._leaders or self._others or self._to_move or self._moving
        return bool(waiting) or any(seat.opening for seat in self._seats.values())

    def takes(self, number: int) -> bool:
        """Whether that actor is given replicas."""
        seat = self._seats.get(number)
        return seat is not None and seat.actor.takes_replicas

    def reconsider(self) -> None:
        """Other actors take replicas now, or every replica has its own, or no longer."""
        self._asked_for = 0
        for seat in self._seats.values():
            seat.let_go = False
        self.look_again()

    def measured(self, number: int) -> None:
        """The actor's ``busy`` counts all that it was given."""
        if number in self._seats:
            self._seats[number].given = 0

    # partitions

    def seek(self, sitter: Sitter) -> None:
        """Give it a place, as soon as there is one."""
        now, before = (self._leaders, self._others) if sitter.life.leads else (self._others, self._leaders)
        before.pop(sitter, None)
        now[sitter] = None
        self.look_again()

    def changed(self, sitter: Sitter, before: Claim, after: Claim) -> None:
        """Its claims are others now."""
        for number in {before.actor, before.to} - {after.actor, after.to, None}:
            seat = self._seats.get(number) if number is not None else None
            if seat is not None:
                seat.sitters.pop(sitter, None)
        for number in {after.actor, after.to} - {before.actor, before.to, None}:
            seat = self._seats.get(number) if number is not None else None
            if seat is not None:
                seat.sitters[sitter] = None
                seat.given += 1
                seat.let_go = False
        for claim, change in ((before, -1), (after, 1)):
            seat = self._seats.get(claim.actor) if claim.opening and claim.actor is not None else None
            if seat is not None:
                seat.opening += change
        if sitter in self._moving and sitter.life.phase not in (Phase.LEAVING, Phase.OPENING):
            self._moving.discard(sitter)
            if before.to is not None and sitter.life.phase is Phase.OPEN:
                self._stay[sitter] = boot_clock() + STAY_S
        self.look_again()

    def forget(self, sitter: Sitter) -> None:
        """It seeks no place any more."""
        self._leaders.pop(sitter, None)
        self._others.pop(sitter, None)
        self._stay.pop(sitter, None)
        self._to_move.pop(sitter, None)

    # giving places

    def look_again(self) -> None:
        """Places may have become free, or be wanted: give them in the next turn."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._due = False
        wanted = self._give_places() + self._move_some()
        if self._pool.each:
            for _ in range(wanted - self._asked_for):
                self._asked_for += 1
                self._pool.need_another()
        self._let_go(wanted)

    def _give_places(self) -> int:
        """How many are without a place after that."""
        while self._leaders or self._others:
            number = choose(self._loads())
            if number is None:
                break
            sitter, _ = (self._leaders or self._others).popitem(last=False)
            sitter.step(Given(number))
        return len(self._leaders) + len(self._others)

    def _move_some(self) -> int:
        """Move what is to be moved, and replicas off actors that take none; how many find no place."""
        while self._to_move and len(self._moving) < MOVING_AT_ONCE:
            sitter, to = self._to_move.popitem(last=False)
            if to in self._seats and self._may_move(sitter):
                self._move(sitter, to)
        wanted = 0
        for sitter in self._misplaced():
            if len(self._moving) + wanted >= MOVING_AT_ONCE:
                break
            number = choose(self._loads())
            if number is None:
                wanted += 1
            else:
                self._move(sitter, number)
        return wanted

    def _misplaced(self) -> Iterator[Sitter]:
        """Some of those whose actors take no replicas."""
        for seat in list(self._seats.values()):
            if not seat.actor.takes_replicas:
                yield from list(islice(filter(self._may_move, seat.sitters), MOVING_AT_ONCE))

    def _may_move(self, sitter: Sitter) -> bool:
        if sitter.life.phase is not Phase.OPEN or self._stay.get(sitter, 0.0) > boot_clock():
            return False
        self._stay.pop(sitter, None)
        return True

    def _move(self, sitter: Sitter, to: int) -> None:
        self._moving.add(sitter)
        sitter.step(Move(to))

    def move(self, sitter: Sitter, to: int) -> None:
        """Have another actor open its log, soon."""
        self._to_move[sitter] = to
        self.look_again()

    def _loads(self) -> Mapping[int, Load]:
        each = self._pool.each
        return {
            number: Load(len(seat.sitters), seat.actor.busy, seat.given)
            for number, seat in self._seats.items()
            if seat.actor.takes_replicas
            and seat.opening < OPENING_AT_ONCE
            and not (each and (seat.sitters or seat.let_go))
        }

    def _let_go(self, wanted: int) -> None:
        for number, seat in list(self._seats.items()):
            if seat.sitters or seat.let_go:
                continue
            if not seat.actor.takes_replicas or (self._pool.each and not wanted):
                seat.let_go = True
                self._pool.let_go(number)
