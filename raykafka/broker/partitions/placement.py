"""Which actor opens a log, and what moves when one actor is busy while another idles: pure rules."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from raykafka.types import TopicPartition

# what a replica is expected to use of a core until that is measured
NEW_REPLICA_BUSY = 0.02

BUSY = 0.7
IDLE = 0.3
# how many rounds in a row an actor is busy, and another idle, before anything moves, and how many rest after that
ROUNDS = 5
REST_ROUNDS = 30


class Load(NamedTuple):
    """What an actor has: its replicas, the share of a core that it used of late, and how many replicas it was given
    since that was measured."""

    replicas: int
    busy: float
    given: int


def choose(loads: Mapping[int, Load]) -> int | None:
    """The actor that opens the next log: one that has none, then the least busy one, then the one with the fewest
    replicas. None where there is no actor."""

    def order(number: int) -> tuple[bool, float, int, int]:
        load = loads[number]
        return load.replicas > 0, load.busy + load.given * NEW_REPLICA_BUSY, load.replicas, number

    return min(loads, key=order, default=None)


class Relocation(NamedTuple):
    partition: TopicPartition
    to: int


def relocations(busy: Mapping[int, float], activity: Mapping[int, Mapping[TopicPartition, float]]) -> list[Relocation]:
    """What to move from the busiest actor to the idlest, so that both are about as busy; nothing where the one is not
    busy or the other not idle. ``activity`` is what each replica of an actor did of late, in any unit: what clients'
    connections cost stays where it is, and is shared out as if the replicas cost it."""
    if len(busy) < 2:
        return []
    source, target = max(busy, key=busy.__getitem__), min(busy, key=busy.__getitem__)
    replicas = activity.get(source, {})
    total = sum(replicas.values())
    if busy[source] <= BUSY or busy[target] >= IDLE or not total:
        return []
    room = (busy[source] - busy[target]) / 2 / busy[source] * total
    moved = []
    for tp, cost in sorted(replicas.items(), key=lambda replica: (-replica[1], replica[0])):
        if 0 < cost <= room:
            moved.append(Relocation(tp, target))
            room -= cost
    return moved


def share_out(newcomers: Collection[int], replicas: Mapping[int, Sequence[TopicPartition]]) -> list[Relocation]:
    """What to move to actors that have come last, so that each of them has its share; ``replicas`` are those of every
    actor, the most active first. Actors start one after another, and the first of them opens what there is; the
    successor of one that died begins with nothing."""
    share = -(-sum(map(len, replicas.values())) // max(1, len(replicas)))
    left = {number: deque(has) for number, has in replicas.items()}
    moved = []
    for target in sorted(newcomers & replicas.keys()):
        for turn in range(share - len(replicas[target])):
            source = max(left, key=lambda number: len(left[number]))
            if len(left[source]) <= max(1, share - 1):
                break
            # an active one and an idle one in turn: the load is shared out as well as the count
            taken = left[source].popleft() if turn % 2 == 0 else left[source].pop()
            moved.append(Relocation(taken, target))
    return moved


class Balance:
    """Whether actors have been so unevenly busy for so long that replicas should move. One round a second."""

    def __init__(self) -> None:
        self._uneven = 0
        self._rest = 0

    def round(
        self, busy: Mapping[int, float], activity: Mapping[int, Mapping[TopicPartition, float]]
    ) -> list[Relocation]:
        """What to move now."""
        if self._rest:
            self._rest -= 1
            return []
        found = relocations(busy, activity)
        self._uneven = self._uneven + 1 if found else 0
        if self._uneven < ROUNDS:
            return []
        self._uneven, self._rest = 0, REST_ROUNDS
        return found
