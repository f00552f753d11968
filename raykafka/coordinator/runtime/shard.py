"""One partition of the offsets topic that this broker leads: its groups, bound to one leader epoch (rule 24)."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Any

from raykafka.coordinator.classic.events import (
    Append,
    Commit,
    Event,
    ForgetTopics,
    Heartbeat,
    Now,
    Reply,
    Tick,
    Unload,
    Written,
)
from raykafka.coordinator.group import records
from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.group.group import Group
from raykafka.coordinator.runtime.loading import Replay
from raykafka.coordinator.runtime.topic_log import OffsetsLog
from raykafka.error_code import ErrorCode
from raykafka.log.batch import Record, build_batch, iter_batches

logger = logging.getLogger(__name__)

_LOAD_RETRY_S = 0.05
_READ_TIMEOUT_S = 30.0
_LOAD_SLICE_BYTES = 256 * 1024


class Shard:
    """``predecessor`` is what this process had of the partition in an earlier epoch: its appends are decided before
    this one looks for the end of the log, so that none slips in behind."""

    def __init__(
        self,
        partition: int,
        leader_epoch: int,
        config: GroupConfig,
        log: OffsetsLog,
        clock: Callable[[], Now],
        predecessor: Shard | None = None,
    ) -> None:
        self.partition = partition
        self.leader_epoch = leader_epoch
        self.groups: dict[str, Group] = {}
        self.is_loaded = False
        self._config = config
        self._log = log
        self._clock = clock
        self._timers: dict[str, tuple[int, asyncio.TimerHandle]] = {}
        self._loading: asyncio.Task[None] | None = None
        self._unloaded = False
        self._deleted_topics: frozenset[str] = frozenset()
        self._predecessor = predecessor
        self._undecided = 0
        self._settled = asyncio.Event()
        self._settled.set()

    # loading

    def start_loading(self) -> None:
        self._loading = asyncio.get_running_loop().create_task(self._load())

    async def loaded(self) -> None:
        """Wait until loading is over. Raises what it failed with."""
        if self._loading is not None:
            await asyncio.shield(self._loading)

    async def _load(self) -> None:
        """Replay the log to the end that it has when this begins, and wait for the high watermark to get there."""
        if self._predecessor is not None:
            await self._predecessor.settled()
            self._predecessor = None
        replay, offset, end = Replay(), 0, None
        while end is None or offset < end:
            try:
                async with asyncio.timeout(_READ_TIMEOUT_S):
                    answer, data = await self._log.read(self.partition, offset, self._config.offsets_load_buffer_size)
            except TimeoutError:
                logger.warning("offsets partition %d: a read from %d was not answered", self.partition, offset)
                continue
            if answer.error:
                logger.info("offsets partition %d can't be read yet: %s", self.partition, answer.error.name)
                await asyncio.sleep(_LOAD_RETRY_S)
                continue
            if end is None:
                end = answer.log_end_offset
            if len(data):
                offset = await self._replay(replay, data, offset)
            elif answer.high_watermark >= end:
                break
            elif offset < end:
                await asyncio.sleep(_LOAD_RETRY_S)
        self.groups = replay.groups(self._config, self._clock())
        self.is_loaded = True
        for group in list(self.groups.values()):
            self._arrange_tick(group)
        self.forget_topics(self._deleted_topics)
        logger.info("offsets partition %d, epoch %d: %d groups", self.partition, self.leader_epoch, len(self.groups))

    async def _replay(self, replay: Replay, data: memoryview, offset: int) -> int:
        """Take in the batches of ``data``, letting other work in between. Returns the offset behind them."""
        done = 0
        for position, header in iter_batches(data):
            replay.add_batch(header, data[position : position + header.size])
            offset = max(offset, header.last_offset + 1)
            done += header.size
            if done >= _LOAD_SLICE_BYTES:
                done = 0
                await asyncio.sleep(0)
        return offset

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
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        groups, self.groups = self.groups, {}
        for group in groups.values():
            self.step(group, Unload())

    # running

    def forget_topics(self, topics: frozenset[str]) -> None:
        """These topics were deleted: drop their offsets, once they are loaded."""
        if not self.is_loaded:
            self._deleted_topics |= topics
        elif topics:
            for group in list(self.groups.values()):
                self.step(group, ForgetTopics(topics))

    def get_or_create(self, group_id: str) -> Group:
        group = self.groups.get(group_id)
        if group is None:
            group = self.groups[group_id] = Group(group_id, self._config)
        return group

    async def ask(self, group: Group, event: Any) -> Any:
        """Step a request event and wait for the answer to its ``request``, a future."""
        self.step(group, event)
        return await event.request

    def step(self, group: Group, event: Event) -> None:
        for effect in group.step(event, self._clock()):
            if isinstance(effect, Reply):
                if not effect.request.done():
                    effect.request.set_result(effect.answer)
            else:
                self._append(group, effect)
        if self._unloaded:
            return
        if group.is_gone or group.leaves_no_trace:
            self._forget(group)
        elif not isinstance(event, (Heartbeat, Commit)):
            self._arrange_tick(group)

    def _append(self, group: Group, effect: Append) -> None:
        def done(error: ErrorCode, base_offset: int) -> None:
            self._undecided -= 1
            if not self._undecided:
                self._settled.set()
            if error:
                logger.warning("an append to offsets partition %d failed: %s", self.partition, error.name)
            self.step(group, Written(effect.then, error, base_offset))

        self._undecided += 1
        self._settled.clear()
        wall_ms = self._clock().wall_ms
        try:
            batch = build_batch(Record(*records.encode(entry), wall_ms) for entry in effect.entries)
        except struct.error:  # a name is longer than its record can hold
            done(ErrorCode.INVALID_REQUEST, -1)
            return
        self._log.append(self.partition, self.leader_epoch, batch, self._config.offsets_commit_timeout_ms, done)

    def _forget(self, group: Group) -> None:
        if self.groups.get(group.group_id) is group:
            del self.groups[group.group_id]
        timer = self._timers.pop(group.group_id, None)
        if timer is not None:
            timer[1].cancel()

    # deadlines

    def _arrange_tick(self, group: Group) -> None:
        """One timer per group. It may ring early, because a heartbeat only moves a deadline later and leaves it be."""
        due_ms = group.next_deadline_ms()
        if due_ms is None:
            return
        timer = self._timers.get(group.group_id)
        if timer is not None:
            if timer[0] <= due_ms:
                return
            timer[1].cancel()
        delay_s = max(due_ms - self._clock().boot_ms, 0) / 1000
        handle = asyncio.get_running_loop().call_later(delay_s, self._ring, group)
        self._timers[group.group_id] = (due_ms, handle)

    def _ring(self, group: Group) -> None:
        del self._timers[group.group_id]
        due_ms = group.next_deadline_ms()
        if due_ms is not None and due_ms <= self._clock().boot_ms:
            self.step(group, Tick())
        else:
            self._arrange_tick(group)
