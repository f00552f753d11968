"""The coordinator's runtime with rules that are no group's: counters, whose sums are the records of a topic."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

import pytest

from raykafka.coordinator.messages import LogRecords
from raykafka.coordinator.runtime.runtime import CoordinatorRuntime
from raykafka.coordinator.runtime.topic_log import AppendDone
from raykafka.coordinator.step import Append, Effect, Now, Reply, Tick, Unload, UnreadableRecord, Written
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log.batch import Record, build_batch, iter_batches

DEADLINE_S = 30.0


@dataclass(frozen=True)
class Add:
    """Answered by the new sum, or by the error of its append. ``forget_at_ms``: when the counter is to end."""

    request: asyncio.Future[Any]
    number: int
    forget_at_ms: int | None = None


class Counters:
    """The rules. What was not written leaves no trace."""

    only_postpones: Collection[type] = ()

    def __init__(self) -> None:
        self.sums: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.heard: list[str] = []

    def replay(self, offset: int, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.sums.pop(key.decode(), None)
        elif not value.isdigit():
            raise UnreadableRecord("not a number")
        else:
            self.sums[key.decode()] = int(value)

    def loaded(self, now: Now) -> None:
        self.heard.append("loaded")

    def keys(self) -> Collection[str]:
        return self.sums.keys()

    def step(self, key: str, event: Any, now: Now) -> list[Effect]:
        match event:
            case Add():
                total = self.sums.get(key, 0) + event.number
                if event.forget_at_ms is not None:
                    self.ends[key] = event.forget_at_ms
                return [Append(((key, total),), (event.request, total))]
            case Written(then=None):
                return []
            case Written():
                request, total = event.then
                if event.error:
                    return [Reply(request, event.error)]
                self.sums[key] = total
                return [Reply(request, total)]
            case Tick():
                del self.ends[key]
                del self.sums[key]
                return [Append(((key, None),), None)]
            case _:
                self.heard.append(f"{key}: {type(event).__name__}")
                return []

    def next_deadline_ms(self, key: str) -> int | None:
        return self.ends.get(key)

    def encode(self, entry: tuple[str, int | None]) -> tuple[bytes, bytes | None]:
        key, total = entry
        return key.encode(), None if total is None else str(total).encode()


class Topic:
    """A TopicLog in memory. Appends are decided by ``decide``, at once unless ``holding``."""

    topic = "__counters"

    def __init__(self, *records: Record) -> None:
        self.batches: list[tuple[int, int, memoryview]] = []
        self.held: list[tuple[int, memoryview, AppendDone]] = []
        self.holding = False
        self.unread = 0
        self._ends = itertools.count(0)
        for record in records:
            self._write(0, memoryview(bytearray(build_batch([record]))))

    def append(
        self, partition: int, leader_epoch: int, records: bytes | bytearray, timeout_ms: int, done: AppendDone
    ) -> None:
        self.held.append((leader_epoch, memoryview(bytearray(records)), done))
        if not self.holding:
            self.decide()

    def decide(self, error: ErrorCode = ErrorCode.NONE) -> None:
        held, self.held = self.held, []
        for epoch, records, done in held:
            done(error, -1 if error else self._write(epoch, records))

    def _write(self, epoch: int, records: memoryview) -> int:
        base = next(self._ends)
        records[:8] = base.to_bytes(8, "big")
        self.batches.append((base, epoch, records))
        return base

    async def read(
        self, partition: int, leader_epoch: int, offset: int, max_bytes: int
    ) -> tuple[LogRecords, memoryview]:
        """One batch. The first ``unread`` times the high watermark is not there yet."""
        end = len(self.batches)
        if self.unread:
            self.unread -= 1
            return LogRecords(0, ErrorCode.NONE, offset, end), memoryview(b"")
        found = b"".join(bytes(records) for base, _, records in self.batches[offset : offset + 1])
        return LogRecords(0, ErrorCode.NONE, end, end), memoryview(found)


def made(topic: Topic) -> CoordinatorRuntime[Counters]:
    return CoordinatorRuntime(topic, Counters, load_bytes=1 << 20, append_timeout_ms=1000)


async def add(runtime: CoordinatorRuntime[Counters], key: str, number: int, forget_at_ms: int | None = None) -> Any:
    request: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    return await runtime.shard_of(key).ask(key, Add(request, number, forget_at_ms))


def play(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), DEADLINE_S))


def test_what_was_answered_is_there_for_the_next_one() -> None:
    async def story() -> None:
        topic = Topic()
        first = made(topic)
        first.lead(0, 1, 1)
        await first.loaded()
        assert await add(first, "a", 2) == 2
        assert await add(first, "a", 3) == 5
        second = made(topic)
        topic.unread = 2
        second.lead(0, 2, 1)
        with pytest.raises(KafkaError) as refused:
            second.shard_of("a")
        assert refused.value.code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        await second.loaded()
        assert await add(second, "a", 1) == 6
        assert [epoch for _, epoch, _ in topic.batches] == [1, 1, 2]

    play(story)


def test_nothing_is_answered_before_it_is_committed() -> None:
    async def story() -> None:
        topic = Topic()
        runtime = made(topic)
        runtime.lead(0, 1, 1)
        await runtime.loaded()
        topic.holding = True
        adding = asyncio.ensure_future(add(runtime, "a", 2))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not adding.done() and topic.held
        topic.decide(ErrorCode.NOT_ENOUGH_REPLICAS)
        assert await adding is ErrorCode.NOT_ENOUGH_REPLICAS
        assert not runtime.shard_of("a").coordinated.sums

    play(story)


def test_a_later_epoch_waits_for_what_the_one_before_has_under_way() -> None:
    async def story() -> None:
        topic = Topic()
        runtime = made(topic)
        runtime.lead(0, 1, 1)
        await runtime.loaded()
        await add(runtime, "a", 1)
        (first,) = runtime
        topic.holding = True
        adding = asyncio.ensure_future(add(runtime, "a", 2))
        await asyncio.sleep(0)
        runtime.resign(0, 1)
        assert first.coordinated.heard == ["loaded", "a: Unload"]
        with pytest.raises(KafkaError) as refused:
            runtime.shard_of("a")
        assert refused.value.code is ErrorCode.NOT_COORDINATOR
        runtime.lead(0, 1, 1)
        assert not list(runtime)
        runtime.lead(0, 2, 1)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not next(iter(runtime)).is_loaded
        topic.decide()
        assert await adding == 3
        await runtime.loaded()
        assert runtime.shard_of("a").coordinated.sums == {"a": 3}

    play(story)


def test_deadlines_ring_and_what_came_while_loading_is_stepped_afterwards() -> None:
    async def story() -> None:
        topic = Topic(Record(b"b", b"7", 0), Record(b"c", b"?", 0), Record(None, b"1", 0))
        runtime = made(topic)
        runtime.lead(0, 1, 1)
        next(iter(runtime)).step_all(Unload())
        await runtime.loaded()
        counters = runtime.shard_of("a").coordinated
        assert (counters.sums, counters.heard) == ({"b": 7}, ["loaded", "b: Unload"])
        await add(runtime, "a", 1, forget_at_ms=0)
        while "a" in counters.sums:
            await asyncio.sleep(0.001)
        tombstone = topic.batches[-1][2]
        assert next(iter_batches(tombstone))[1].last_offset == len(topic.batches) - 1
        assert counters.sums == {"b": 7}

    play(story)
