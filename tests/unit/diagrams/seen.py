"""Which state each event found and left, noted while random schedules drive the pure rules."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from raykafka.broker.partitions import life_events
from raykafka.broker.partitions.life import Life, Phase
from raykafka.cluster.image import PartitionState
from raykafka.epoch_history import EpochHistory
from raykafka.replica.rules import events
from raykafka.replica.rules.log_state import Settings
from raykafka.replica.rules.partition import LEFT, Partition
from tests.unit.group_schedules import Event as GroupEvent
from tests.unit.group_schedules import Group, Simulation, State
from tests.unit.partition.schedule import Schedule
from tests.unit.partition_life.world import World


class Step(NamedTuple):
    """``event`` found the machine in state ``before`` and left it in ``after``."""

    before: str
    event: str
    after: str


@dataclass(frozen=True)
class Machine:
    """A state machine, as its ``rules`` keep it, which is the class that is stepped.

    ``states`` has every state with its meaning, in the order in which they are drawn, ``events`` the meaning of those
    events whose names do not say it. ``play(seed)`` drives the rules through the schedule of that seed, and None
    through what is too rare for schedules; it returns the steps that were seen.
    """

    name: str
    title: str
    rules: type
    states: dict[str, str]
    events: dict[str, str]
    play: Callable[[int | None], set[Step]]

    @property
    def source(self) -> str:
        """The file that has the rules."""
        return self.rules.__module__.replace(".", "/") + ".py"


def _meanings(events: Iterable[type]) -> dict[str, str]:
    """The first sentences of the events' docstrings, where they are about the event and not about its fields."""
    texts = {event.__name__: " ".join((event.__doc__ or "").split()) for event in events}
    return {
        name: text.split(". ")[0].removesuffix(".").replace("``", "`")
        for name, text in texts.items()
        if text and not text.startswith(("``", f"{name}(", "Answered by"))
    }


# a replica

CLOSED = "closed"
SEALED = "sealed"
OPENED = "opened"
WAITING = "waiting"
FOLLOWING = "following"
IN_STREAM = "in stream"
BEGINNING = "beginning"
LEADING = "leading"
STOPPED = "stopped"

REPLICA_STATES = {
    CLOSED: "nobody has its log open, and it has no seal: it was not closed in order, or can't be relied on",
    SEALED: "nobody has its log open, and the seal says how it ends (rule 17)",
    OPENED: "its log is open, and its broker has not told it the partition's state yet (rule 3)",
    WAITING: "it neither leads nor follows: nobody leads, or it may not lead this epoch (rules 1, 18)",
    FOLLOWING: "it follows an epoch, and has not taken its leader's stream yet",
    IN_STREAM: "it follows, and what its leader streams is written and acknowledged (rule 11)",
    BEGINNING: "it leads; its high watermark has not reached where its epoch began, so the latest offset is unknown "
    "(rule 9)",
    LEADING: "it leads, and tells the latest offset",
    STOPPED: "its log can't be relied on any more: it was cut, or it diverged (rules 1, 10)",
}
OPEN = "opens"
CLOSE = "closes"


def role(partition: Partition) -> str:
    """What the replica is to its partition now."""
    if partition.stopped is not None:
        return SEALED if partition.stopped == LEFT else STOPPED
    if partition.leading is not None:
        return BEGINNING if partition.latest is None else LEADING
    if partition.following is not None:
        return FOLLOWING if partition.following.stream is None else IN_STREAM
    return OPENED if partition.state is None else WAITING


def _play_replica(seed: int | None) -> set[Step]:
    steps: set[Step] = set()

    class Watched(Partition):
        def __init__(self, *args: Any, seal: events.Seal | None = None, **more: Any) -> None:
            super().__init__(*args, seal=seal, **more)
            self._closes = False
            steps.add(Step(CLOSED if seal is None else SEALED, OPEN, role(self)))

        def step(self, event: events.Event, now_ms: int) -> list[events.Effect]:
            before = role(self)
            effects = super().step(event, now_ms)
            if self._closes and isinstance(event, events.Cut):
                steps.add(Step(before, CLOSE, SEALED))
            else:
                unsealed = events.Left(None) in effects
                steps.add(Step(before, type(event).__name__, CLOSED if unsealed else role(self)))
            return effects

        def closing_seal(self) -> events.Seal | None:
            seal = super().closing_seal()
            self._closes = seal is not None
            return seal

    if seed is None:
        _take_every_turn(Watched)
    else:
        Schedule(seed, partition_rules=Watched).run()
    return steps


def _take_every_turn(rules: type[Partition]) -> None:
    """Each turn that a controller, a broker or a disk can give a replica, in each state: some of them are too rare for
    schedules to show, and a log that was cut or diverged breaks a promise, so that no schedule may."""
    history = EpochHistory().assign(0, 0)

    def told(leader: int, epoch: int) -> events.Told:
        return events.Told(PartitionState((1, 2), leader, epoch, (1, 2), epoch), {1: 1, 2: 1})

    def hello(log_end: int) -> events.Hello:
        return events.Hello(events.StreamId(1, 2, 1, 1), history.assign(1, log_end), 0, log_end, 0)

    def bring_to(*before: events.Event, checkpoint: int = 5) -> Partition:
        opened = rules(1, Settings(1, 60, 20), log_start=0, log_end=5, history=history, checkpoint=checkpoint)
        for event in before:
            opened.step(event, 0)
        return opened

    states: list[Callable[[], Partition]] = [
        bring_to,
        lambda: bring_to(told(-1, 1)),
        lambda: bring_to(told(2, 1)),
        lambda: bring_to(told(2, 1), hello(5)),
        lambda: bring_to(told(1, 1)),
        lambda: bring_to(told(1, 1), checkpoint=3),
    ]
    for state in states:
        stream = hello(5)
        others = (events.Leave(), events.Tick(), stream, events.StreamLost(2, stream.stream))
        for event in (events.Cut("records that were written are lost"), *others, told(-1, 2), told(1, 2), told(2, 2)):
            state().step(event, 0)
        closed = state()
        closed.closing_seal()
        closed.step(events.Cut("closed"), 0)
    bring_to(told(2, 1), hello(3))


REPLICA = Machine(
    "replica",
    "A replica",
    Partition,
    REPLICA_STATES,
    {
        OPEN: "Its broker has an actor open the log",
        CLOSE: "Its broker has the log closed in order, at any moment",
        **_meanings(typing.get_args(events.Event)),
    },
    _play_replica,
)


# a classic group

UNLOADED = "not loaded"
LOAD = "loads"
ASK = "is asked about"
GROUP_STATES = {
    UNLOADED: "this coordinator does not hold it",
    State.EMPTY.value: "it has no members; it may have offsets",
    State.PREPARING.value: "members join until all have, or the time for it is over",
    State.COMPLETING.value: "a generation has begun; its members wait for the leader's assignment",
    State.STABLE.value: "every member has its assignment, which is in the log",
    State.DEAD.value: "it was deleted, or its partition of the offsets topic is led elsewhere",
}


def _play_group(seed: int | None) -> set[Step]:
    steps: set[Step] = set()

    class Watched(Simulation):
        def step(self, event: GroupEvent, group: Group | None = None) -> None:
            group = group or self.group
            before = group.state
            super().step(event, group)
            steps.add(Step(before.value, type(event).__name__, group.state.value))

        def replayed(self) -> Group:
            loaded = super().replayed()
            steps.add(Step(UNLOADED, LOAD if self.log else ASK, loaded.state.value))
            return loaded

    if seed is not None:
        Watched(seed).run()
    return steps


CLASSIC_GROUP = Machine(
    "group",
    "A classic group",
    Group,
    GROUP_STATES,
    {
        LOAD: "This coordinator was elected, and has read the offsets topic's partition",
        ASK: "Somebody asks about a group of which nothing is in the log",
        **_meanings(typing.get_args(GroupEvent)),
    },
    _play_group,
)


# a partition in its broker

LIFE_PHASES = {
    Phase.WAITING: "its log is open nowhere; its directory is not free yet (rule 4), or it failed a moment ago",
    Phase.SEEKING: "its log is open nowhere, and it takes the next place on a replica actor",
    Phase.OPENING: "an actor opens its log",
    Phase.OPEN: "an actor has its log open",
    Phase.LEAVING: "its actor is to give it up for another, once it is clean; appends wait",
    Phase.CLOSING: "its actor closes it, or lets its log go",
    Phase.FAILED: "its log is no beginning of its leader's, and stays closed in this epoch (rule 10)",
    Phase.GONE: "the broker holds it no longer, and nobody touches its directory",
}


def _play_life(seed: int | None) -> set[Step]:
    steps: set[Step] = set()

    class Watched(Life):
        __slots__ = ()

        def step(self, event: life_events.Event, now: float) -> list[life_events.Effect]:
            before = self.phase
            effects = super().step(event, now)
            steps.add(Step(before.value, type(event).__name__, self.phase.value))
            return effects

    if seed is not None:
        World(seed, Watched).run()
    return steps


PARTITION_LIFE = Machine(
    "partition-life",
    "A partition in its broker",
    Life,
    {phase.value: meaning for phase, meaning in LIFE_PHASES.items()},
    _meanings(typing.get_args(life_events.Event)),
    _play_life,
)

MACHINES = (REPLICA, CLASSIC_GROUP, PARTITION_LIFE)
