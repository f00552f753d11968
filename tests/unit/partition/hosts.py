"""The brokers' lives and their replica actors, which all partitions have in common.

An actor has replicas of several partitions open. One that dies takes all of them along; a broker that dies takes all of
its actors.
"""

from __future__ import annotations

import random
from typing import Protocol

from tests.unit.partition.register import Lives


class Partitioned(Protocol):
    """One partition's replicas on these hosts."""

    def started(self, broker: int) -> None:
        """A life of ``broker`` has begun."""

    def ended(self, broker: int, closing: bool) -> None:
        """The life of ``broker`` has ended. ``closing``: its actors lived long enough to close their logs."""

    def actor_ended(self, broker: int, actor: int, reported: bool) -> None:
        """An actor of ``broker`` has died. ``reported``: the controller hears of the leaderships that ended."""

    def may_damage(self, broker: int) -> bool: ...

    def lose_page_cache(self, broker: int) -> None: ...

    def lose_disk(self, broker: int) -> None: ...

    def controlled(self) -> None:
        """The newest controller begins."""


class Host:
    """One broker id: whether it lives, its broker epoch, the numbers of its actors."""

    def __init__(self, actors: list[int]) -> None:
        self.alive = False
        self.epoch = -1
        self.actors = actors


class Hosts:
    """``actors`` is how many a broker has. Time is the same for all, in boot-clock milliseconds."""

    def __init__(self, random_: random.Random, brokers: int, actors: int = 1) -> None:
        self.random = random_
        self.lives = Lives()
        self.now_ms = 1000
        self.partitions: list[Partitioned] = []
        self._numbers = actors * brokers
        self.by_id = {b: Host([*range((b - 1) * actors, b * actors)]) for b in range(1, brokers + 1)}
        for broker in self.by_id:
            self.start(broker)
        self.lives.controller_epoch = 1

    def start(self, broker: int) -> None:
        host = self.by_id[broker]
        host.alive, host.epoch = True, self.lives.register(broker)
        host.actors = [self._new_actor() for _ in host.actors]
        for partition in self.partitions:
            partition.started(broker)

    def _new_actor(self) -> int:
        self._numbers += 1
        return self._numbers

    def is_registered(self, broker: int) -> bool:
        """Whether the registration of the life of ``broker`` is there."""
        registration = self.lives.ids.get(broker)
        return registration is not None and registration.broker_epoch == self.by_id[broker].epoch

    def kill(self, broker: int, closing: bool = False) -> None:
        self.by_id[broker].alive = False
        for partition in self.partitions:
            partition.ended(broker, closing)

    def kill_actor(self, broker: int, actor: int, reported: bool = False) -> None:
        """All that it had open ends at once, and its successor has another number."""
        self.by_id[broker].actors = [self._new_actor() if a == actor else a for a in self.by_id[broker].actors]
        for partition in self.partitions:
            partition.actor_ended(broker, actor, reported)

    def power_off(self, broker: int) -> None:
        """The host goes with its page cache: each log ends somewhere after what was flushed."""
        self.kill(broker)
        for partition in self.partitions:
            partition.lose_page_cache(broker)

    def replace_disk(self, broker: int) -> None:
        if all(partition.may_damage(broker) for partition in self.partitions):
            self.kill(broker)
            for partition in self.partitions:
                partition.lose_disk(broker)

    def actor_for(self, broker: int, left: int) -> int:
        """Which actor opens a replica that was open in ``left`` before: another one, where there is one."""
        actors = self.by_id[broker].actors
        return self.random.choice([a for a in actors if a != left] or actors)

    def new_controller(self) -> None:
        self.lives.controller_epoch += 1
        for partition in self.partitions:
            partition.controlled()
