"""How a coordinator gets at the logs of the offsets topic, over its links to the actors of its broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from raykafka.coordinator.runtime.topic_log import LinkedTopicLog
from raykafka.error_code import ErrorCode
from raykafka.link import Link, connect_unix, serve_unix
from raykafka.log import LogReader, StaleRange
from raykafka.log.batch import Record, build_batch
from raykafka.replica_actor.coordination import Coordination
from raykafka.types import NOWHERE, OFFSETS_TOPIC
from tests.lab.led_partitions import BROKER, LedPartition, LedPartitions, led_partitions
from tests.lab.loop_waiting import until
from tests.lab.served import APIS

SECRET = b"s" * 32
EPOCH = 1


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


class Actors:
    """Links of one coordinator to actors of its broker, by number. ``log`` is what the coordinator has."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.log = LinkedTopicLog(OFFSETS_TOPIC)
        self.links: dict[int, Link] = {}
        self._servers: list[asyncio.AbstractServer] = []

    async def add(self, number: int, partitions: LedPartitions) -> None:
        """An actor that serves ``partitions``, connected to."""

        async def heard(method: str, args: dict[str, Any]) -> dict[str, Any]:
            return {}

        path = str(self._directory / f"a{number}")
        made = Coordination(BROKER, partitions, APIS)
        self._servers.append(await serve_unix(path, SECRET, {"role": "actor"}, made.adopt))
        link = self.links[number] = await connect_unix(path, SECRET, {"role": "coordinator"})
        self.log.attach(number, link)
        link.start(self.log.frame_received, lambda _: self.log.detach(number), heard)

    async def end(self, number: int) -> None:
        self.links[number].transport.abort()
        await self.links[number].ended
        await asyncio.sleep(0)

    def append(self, leader_epoch: int = EPOCH, partition: int = 0) -> asyncio.Future[tuple[ErrorCode, int]]:
        outcome: asyncio.Future[tuple[ErrorCode, int]] = asyncio.get_running_loop().create_future()
        records = build_batch([Record(b"k", b"v", 0)])
        self.log.append(partition, leader_epoch, records, 1000, lambda *found: outcome.set_result(found))
        return outcome

    async def close(self) -> None:
        for link in self.links.values():
            link.close()
            await link.ended
        for server in self._servers:
            server.close()


@asynccontextmanager
async def actors(directory: Path, *served: LedPartitions) -> AsyncIterator[Actors]:
    """A coordinator's links to actors 0, 1, ..., which serve what is given."""
    made = Actors(directory)
    try:
        for number, partitions in enumerate(served):
            await made.add(number, partitions)
        yield made
    finally:
        await made.close()


def only(partitions: LedPartitions) -> LedPartition:
    found = partitions.get((OFFSETS_TOPIC, 0))
    assert found is not None
    return found


def test_a_view_from_before_this_broker_led_does_not_say_where_the_offsets_log_ends(tmp_path: Path) -> None:
    """A coordinator that loaded up to there would not know of all that its predecessor answered (rule 24)."""

    async def test() -> None:
        with led_partitions(tmp_path) as served:
            async with actors(tmp_path, served) as coordinator:
                assert (await coordinator.append()) == (ErrorCode.NONE, 0)
                only(served).told(EPOCH + 1)
                answer, records = await coordinator.log.read(0, EPOCH + 1, 0, 1 << 20)
                assert (answer.error, len(records)) == (ErrorCode.OFFSET_NOT_AVAILABLE, 0)
                only(served).show()
                answer, records = await coordinator.log.read(0, EPOCH + 1, 0, 1 << 20)
                assert (answer.error, answer.high_watermark, answer.log_end_offset) == (ErrorCode.NONE, 1, 1)
                assert len(records)

    run(test)


def test_an_actor_that_has_not_heard_of_the_epoch_neither_says_where_the_log_ends_nor_appends(tmp_path: Path) -> None:
    """Its view may be of an epoch before another broker led; the coordinator knows the new one from another actor."""

    async def test() -> None:
        with led_partitions(tmp_path) as served:
            async with actors(tmp_path, served) as coordinator:
                await coordinator.append()
                for epoch in (EPOCH + 1, EPOCH - 1):
                    answer, records = await coordinator.log.read(0, epoch, 0, 1 << 20)
                    assert (answer.error, len(records)) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, 0)
                    assert (await coordinator.append(epoch)) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)
                answer, _ = await coordinator.log.read(0, EPOCH, 0, 1 << 20)
                assert answer.log_end_offset == 1
                only(served).told(EPOCH, leader=BROKER + 1)
                assert (await coordinator.append()) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)

    run(test)


def test_a_read_over_which_the_log_is_closed_does_not_look_like_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that found nothing below the high watermark would take what it has for everything."""

    def closed_meanwhile(self: LogReader, *args: Any, **more: Any) -> Any:
        raise StaleRange("planted")

    async def test() -> None:
        with led_partitions(tmp_path) as served:
            async with actors(tmp_path, served) as coordinator:
                await coordinator.append()
                with monkeypatch.context() as planted:
                    planted.setattr(LogReader, "fetch_bytes", closed_meanwhile)
                    answer, records = await coordinator.log.read(0, EPOCH, 0, 1 << 20)
                    assert (answer.error, len(records)) == (ErrorCode.OFFSET_NOT_AVAILABLE, 0)
                answer, records = await coordinator.log.read(0, EPOCH, 0, 1 << 20)
                assert answer.error is ErrorCode.NONE and len(records)
                answer, records = await coordinator.log.read(0, EPOCH, 1, 1 << 20)
                assert (answer.error, len(records)) == (ErrorCode.NONE, 0)

    run(test)


def test_appends_of_a_coordinator_count_as_traffic_of_its_topic(tmp_path: Path) -> None:
    async def test() -> None:
        with led_partitions(tmp_path) as served:
            async with actors(tmp_path, served) as coordinator:
                await asyncio.gather(coordinator.append(), coordinator.append())
                assert served.traffic[OFFSETS_TOPIC].records_in == 2

    run(test)


def test_a_partition_stays_on_one_link_while_that_lives(tmp_path: Path) -> None:
    async def test() -> None:
        with led_partitions(tmp_path / "0") as first, led_partitions(tmp_path / "1") as second:
            async with actors(tmp_path) as coordinator:
                assert (await coordinator.append()) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)
                assert (await coordinator.log.read(0, EPOCH, 0, 100))[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER
                await coordinator.add(1, second)
                await coordinator.append()
                await coordinator.add(0, first)
                await coordinator.append()
                assert (await coordinator.log.read(0, EPOCH, 0, 100))[0].log_end_offset == 2
                await coordinator.end(1)
                assert (await coordinator.append()) == (ErrorCode.NONE, 0)
                assert (await coordinator.log.read(0, EPOCH, 0, 100))[0].log_end_offset == 1

    run(test)


def test_what_was_on_a_link_that_ended_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        with led_partitions(tmp_path / "0") as first, led_partitions(tmp_path / "1") as second:
            async with actors(tmp_path, first, second) as coordinator:
                only(first).hold = True
                appending = coordinator.append()
                await until(lambda: only(first).held == 1)
                reading = asyncio.ensure_future(coordinator.log.read(0, EPOCH, 0, 100))
                await asyncio.sleep(0)
                coordinator.links[0].transport.abort()
                assert (await appending) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)
                assert (await reading)[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER
                assert (await coordinator.append()) == (ErrorCode.NONE, 0)
                only(first).release()  # its answer finds nobody

    run(test)


def test_requests_go_to_the_actor_that_has_the_log(tmp_path: Path) -> None:
    """Its view is as new as the log, and no append is on its way in a process that outlives it."""

    async def test() -> None:
        with led_partitions(tmp_path / "0") as first, led_partitions(tmp_path / "1") as second:
            async with actors(tmp_path) as coordinator:
                coordinator.log.placed({0: 1})
                await coordinator.add(0, first)
                assert (await coordinator.append()) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)
                assert (await coordinator.log.read(0, EPOCH, 0, 100))[0].error is ErrorCode.NOT_LEADER_OR_FOLLOWER
                await coordinator.add(1, second)
                assert (await coordinator.append()) == (ErrorCode.NONE, 0)
                assert (await coordinator.log.read(0, EPOCH, 0, 100))[0].log_end_offset == 1
                assert first.traffic[OFFSETS_TOPIC].records_in == 0

    run(test)


def _note(decided: list[str], name: str, _: asyncio.Future[Any]) -> None:
    decided.append(name)


def test_no_append_overtakes_those_before_it_when_a_log_moves_to_another_actor(tmp_path: Path) -> None:
    async def test() -> None:
        with led_partitions(tmp_path / "0") as first, led_partitions(tmp_path / "1") as second:
            async with actors(tmp_path, first, second) as coordinator:
                log = coordinator.log
                log.placed({0: 0})
                only(first).hold = True
                decided: list[str] = []
                before = coordinator.append()
                before.add_done_callback(partial(_note, decided, "before"))
                await until(lambda: only(first).held == 1)
                log.placed({0: NOWHERE})
                meanwhile = coordinator.append()  # waits in the actor that had it
                await until(lambda: only(first).held == 2)
                log.placed({0: 1})
                behind, last = coordinator.append(), coordinator.append()
                for future, name in ((behind, "behind"), (last, "last")):
                    future.add_done_callback(partial(_note, decided, name))
                await log.read(0, EPOCH, 0, 100)  # went to the new one behind whatever was sent there
                assert (only(second).log.view.log_end_offset, decided) == (0, [])  # type: ignore[union-attr]
                only(first).release()
                assert await asyncio.gather(before, meanwhile, behind, last) == [
                    *((ErrorCode.NONE, offset) for offset in (0, 1)),
                    *((ErrorCode.NONE, offset) for offset in (0, 1)),
                ]
                assert decided == ["before", "behind", "last"]

    run(test)
