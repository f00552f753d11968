"""One partition of an internal topic that this broker leads, bound to one leader epoch (rule 24)."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from raykafka.coordinator.runtime.coordinated import Coordinated
from raykafka.coordinator.runtime.loading import load
from raykafka.coordinator.runtime.timers import Timers
from raykafka.coordinator.runtime.topic_log import TopicLog
from raykafka.coordinator.step import Append, Now, Reply, Tick, Unload, Written
from raykafka.error_code import ErrorCode
from raykafka.log.batch import Record, build_batch
from raykafka.process.tasks import TaskSet

C = TypeVar("C", bound=Coordinated)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all shards of a coordinator share. ``load_bytes`` are read at once when a partition is loaded;
    ``append_timeout_ms`` bounds the wait for an append to be committed."""

    log: TopicLog
    clock: Callable[[], Now]
    tasks: TaskSet
    load_bytes: int
    append_timeout_ms: int


class Shard(Generic[C]):
    """``predecessor`` is what this process had of the partition in an earlier epoch: its appends are decided before
    this one looks for the end of the log, so that none slips in behind.

    A request event's ``request`` is a future; a Reply resolves it.
    """

    def __init__(
        self,
        partition: int,
        leader_epoch: int,
        coordinated: C,
        surroundings: Surroundings,
        predecessor: Shard[C] | None = None,
    ) -> None:
        self.partition = partition
        self.leader_epoch = leader_epoch
        self.coordinated = coordinated
        self.is_loaded = False
        self._around = surroundings
        self._log, self._clock = surroundings.log, surroundings.clock
        self._timers = Timers(lambda: self._clock().boot_ms, self._ring)
        self._loading: asyncio.Task[None] | None = None
        self._unloaded = False
        self._deferred: list[Any] = []
        self._predecessor = predecessor
        self._undecided = 0
        self._settled = asyncio.Event()
        self._settled.set()

    # loading

    def start_loading(self) -> None:
        self._loading = self._around.tasks.run(self._load())

    async def loaded(self) -> None:
        """Wait until loading is over. Raises what it failed with."""
        if self._loading is not None:
            await asyncio.shield(self._loading)

    async def _load(self) -> None:
        if self._predecessor is not None:
            await self._predecessor.settled()
            self._predecessor = None
        coordinated = self.coordinated
        await load(coordinated, self._log, self.partition, self.leader_epoch, self._around.load_bytes)
        coordinated.loaded(self._clock())
        self.is_loaded = True
        keys = coordinated.keys()
        logger.info("%s-%d, epoch %d: %d loaded", self._log.topic, self.partition, self.leader_epoch, len(keys))
        for key in keys:
            self._timers.arrange(key, coordinated.next_deadline_ms(key))
        deferred, self._deferred = self._deferred, []
        for event in deferred:
            self.step_all(event)

    async def settled(self) -> None:
        """Wait until every append of this partition so far is decided."""
        if self._predecessor is not None:
            await self._predecessor.settled()
        await self._settled.wait()

    def unload(self) -> None:
        """Leadership is gone: everybody who waits is told to look for the new coordinator."""
        self._unloaded = True
        if self._loading is not None:
            self._loading.cancel()
        self._timers.cancel()
        for key in list(self.coordinated.keys()):
            self.step(key, Unload())

    # running

    async def ask(self, key: str, event: Any) -> Any:
        """Step a request event and wait for the answer to its ``request``, a future."""
        self.step(key, event)
        return await event.request

    def step_all(self, event: Any) -> None:
        """Step an event for every key, once they are loaded."""
        if not self.is_loaded:
            self._deferred.append(event)
            return
        for key in list(self.coordinated.keys()):
            self.step(key, event)

    def step(self, key: str, event: Any) -> None:
        for effect in self.coordinated.step(key, event, self._clock()):
            if isinstance(effect, Reply):
                if not effect.request.done():
                    effect.request.set_result(effect.answer)
            else:
                self._append(key, effect)
        if not self._unloaded and type(event) not in self.coordinated.only_postpones:
            self._timers.arrange(key, self.coordinated.next_deadline_ms(key))

    def _append(self, key: str, effect: Append) -> None:
        def done(error: ErrorCode, base_offset: int) -> None:
            self._undecided -= 1
            if not self._undecided:
                self._settled.set()
            if error:
                logger.warning("an append to %s-%d failed: %s", self._log.topic, self.partition, error.name)
            self.step(key, Written(effect.then, error, base_offset))

        self._undecided += 1
        self._settled.clear()
        wall_ms = self._clock().wall_ms
        encode = self.coordinated.encode
        try:
            batch = build_batch(Record(*encode(entry), wall_ms) for entry in effect.entries)
        except struct.error:  # a name is longer than its record can hold
            done(ErrorCode.INVALID_REQUEST, -1)
            return
        self._log.append(self.partition, self.leader_epoch, batch, self._around.append_timeout_ms, done)

    # deadlines

    def _ring(self, key: str) -> None:
        due_ms = self.coordinated.next_deadline_ms(key)
        if due_ms is not None and due_ms <= self._clock().boot_ms:
            self.step(key, Tick())
        else:
            self._timers.arrange(key, due_ms)
