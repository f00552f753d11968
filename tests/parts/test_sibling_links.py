"""Two replica actors of a broker: what one has open, the other appends to over a real link and reads from the files, as
far as the views allow that come over it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from raykafka.cluster.image import PartitionState
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.link import serve_unix
from raykafka.log.batch import iter_batches
from raykafka.partition.appends import ANY_EPOCH, Appended, Done
from raykafka.partition.log_view import LogView
from raykafka.partition.view import View
from raykafka.replica_actor.partition import ServedPartition
from raykafka.replica_actor.siblings import Siblings, Watchers
from raykafka.types import LogPosition, PartitionKey, TopicPartition
from tests.lab.log_parts import NOW_MS, batch, open_log
from tests.lab.loop_waiting import until

SECRET = b"secret"
KEY = PartitionKey("events", uuid.UUID(int=7), 0)
STATE = PartitionState(replicas=(0,), leader=0, leader_epoch=3, isr=(0,), version=1)
OWNER, WATCHER = 1, 2
START = LogPosition(0, 0)
NOTHING = View(3, 0, 0, 0, 0, START, 0, START, 0, 0)


class Opened:
    """A partition that is open in its actor: a real log, whose view this test moves on."""

    def __init__(self, directory: Path) -> None:
        self.log = open_log(directory)
        self.view: View | None = None
        self.segments: tuple[int, ...] = ()
        self.appended: list[bytes] = []

    @property
    def whole_view(self) -> View | None:
        return replace(self.view, segments=self.segments) if self.view is not None else None

    @property
    def writer(self) -> Opened:
        return self

    def append(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        self.appended.append(bytes(records))
        done(Appended(-1, ErrorCode.NONE, base_offset=len(self.appended) - 1))

    async def delete_records(self, offset: int) -> int:
        if offset > self.log.log_end_offset:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
        self.log.advance_log_start(offset)
        self.view = replace(self.view or NOTHING, log_start_offset=offset)
        self.shown(self.view)
        return offset

    def shown(self, view: View) -> None:
        """Those that watch it are told."""

    def write(self, count: int, *, with_segments: bool) -> View:
        """So many more records, all of which may be read: the view as it is told, which leaves segments out where they
        are as before."""
        for _ in range(count):
            self.log.append_as_leader(batch(1), 3, NOW_MS)
        end = self.log.log_end_offset
        position = self.log.position_of(end)
        self.view = replace(
            NOTHING,
            high_watermark=end,
            high_watermark_position=position,
            last_stable_offset=end,
            last_stable_position=position,
            log_end_offset=end,
            truncations=self.log.truncations,
            segments=self.log.segments if with_segments else None,
        )
        if with_segments:
            self.segments = self.log.segments
        return self.view


class Pair:
    """``watchers`` of the actor that has ``opened``; ``siblings`` of the other one, whose clients get ``served``."""

    def __init__(self, opened: Opened, directory: Path) -> None:
        self.opened = opened
        self.open: dict[PartitionKey, Opened] = {KEY: opened}
        self.watchers = Watchers(self.open.get)
        self.siblings = Siblings(SECRET, WATCHER)
        log = LogView(directory, ThreadPoolExecutor(1))
        tp = TopicPartition(KEY.topic, KEY.partition)
        self.served = ServedPartition(0, tp, KEY.topic_id, STATE, log, lambda: True)

    def watch(self) -> None:
        self.siblings.watch(KEY, self.served, OWNER)

    async def attached(self) -> None:
        await until(lambda: not self.served.is_opening)

    async def appended(self, records: bytes) -> Appended:
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self.served.submit(memoryview(records), -1, 1000, ANY_EPOCH, answer.set_result)
        return await asyncio.wait_for(answer, 10)

    async def read(self) -> int:
        """How many records a client of the other actor reads from the begin."""
        return sum(1 for _ in iter_batches(await self.served.log.read(0, 1 << 20)))


def run(tmp_path: Path, test: Callable[[Pair], Coroutine[Any, Any, None]]) -> None:
    async def with_pair() -> None:
        directory = tmp_path / "events-0"
        directory.mkdir()
        pair = Pair(Opened(directory), directory)
        path = str(tmp_path / "a.sock")
        listening = await serve_unix(path, SECRET, {"role": "replica"}, pair.watchers.accept)
        pair.siblings.living({OWNER: path})
        try:
            await test(pair)
        finally:
            pair.siblings.close()
            listening.close()

    asyncio.run(with_pair())


def test_appends_go_over_the_link_and_reads_to_the_files(tmp_path: Path) -> None:
    async def test(pair: Pair) -> None:
        pair.opened.write(2, with_segments=True)
        pair.watch()
        await pair.attached()
        assert await pair.read() == 2
        assert (await pair.appended(b"one")).base_offset == 0
        assert (await pair.appended(b"two")).base_offset == 1
        assert pair.opened.appended == [b"one", b"two"]
        pair.watchers.show(KEY, pair.opened.write(3, with_segments=False))
        await until(lambda: pair.served.log.view is not None and pair.served.log.view.high_watermark == 5)
        assert await pair.read() == 5

    run(tmp_path, test)


def test_records_are_deleted_over_the_link_and_that_is_seen_before_it_is_answered(tmp_path: Path) -> None:
    async def test(pair: Pair) -> None:
        with pytest.raises(KafkaError, match="NOT_LEADER_OR_FOLLOWER"):
            await pair.served.delete_records(1)  # nobody has it yet
        pair.opened.write(3, with_segments=True)
        pair.opened.shown = partial(pair.watchers.show, KEY)  # type: ignore[method-assign]
        pair.watch()
        await pair.attached()
        assert await pair.served.delete_records(2) == 2
        assert pair.served.log.view is not None and pair.served.log.view.log_start_offset == 2
        with pytest.raises(KafkaError, match="OFFSET_OUT_OF_RANGE"):
            await pair.served.delete_records(4)
        del pair.open[KEY]
        with pytest.raises(KafkaError, match="not open in that replica actor"):
            await pair.served.delete_records(3)

    run(tmp_path, test)


def test_who_comes_late_gets_the_segments_that_the_last_view_left_out(tmp_path: Path) -> None:
    async def test(pair: Pair) -> None:
        pair.opened.write(1, with_segments=True)
        pair.opened.write(1, with_segments=False)
        pair.watch()
        await pair.attached()
        assert await pair.read() == 2

    run(tmp_path, test)


def test_what_is_attached_has_its_view(tmp_path: Path) -> None:
    async def test(pair: Pair) -> None:
        pair.opened.write(1, with_segments=True)
        seen: list[bool] = []
        pair.served.log.watch(lambda: seen.append(pair.served.is_opening or pair.served.log.view is not None))
        pair.watch()
        await pair.attached()
        assert seen and all(seen)

    run(tmp_path, test)


@pytest.mark.parametrize("moves", [True, False])
def test_what_is_gone_is_not_read_and_appends_wait_where_it_moves(tmp_path: Path, moves: bool) -> None:
    async def test(pair: Pair) -> None:
        pair.opened.write(1, with_segments=True)
        pair.watch()
        await pair.attached()
        del pair.open[KEY]
        pair.watchers.gone(KEY, moves=moves)
        await until(lambda: pair.served.log.view is None)
        answering = asyncio.ensure_future(pair.appended(b"late"))
        if moves:
            pair.siblings.forget(KEY)
            pair.open[KEY] = pair.opened
            pair.watch()
            assert (await answering).error is ErrorCode.NONE
            assert pair.opened.appended == [b"late"]
        else:
            assert (await answering).error is ErrorCode.NOT_LEADER_OR_FOLLOWER

    run(tmp_path, test)


def test_appends_wait_while_they_are_held(tmp_path: Path) -> None:
    async def test(pair: Pair) -> None:
        pair.opened.write(1, with_segments=True)
        pair.watch()
        await pair.attached()
        await pair.watchers.hold(KEY)
        answering = asyncio.ensure_future(pair.appended(b"held"))
        await asyncio.sleep(0)
        assert pair.served.is_opening and pair.opened.appended == []
        pair.watchers.go_on(KEY)
        assert (await answering).error is ErrorCode.NONE
        assert pair.opened.appended == [b"held"]

    run(tmp_path, test)
