"""A coordinator, its broker and the actors of that: who connects to whom, and the way of a commit between them."""

from __future__ import annotations

import asyncio
import struct
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raykafka.broker.coordinator_child import CoordinatorChild
from raykafka.cluster.image import ClusterImage, ImageDelta, PartitionState, Topic
from raykafka.coordinator import messages
from raykafka.coordinator.actor import CoordinatorServer
from raykafka.error_code import ErrorCode
from raykafka.link import Link, connect_unix, frame_kinds, serve_unix
from raykafka.replica_actor.coordination import Coordination
from raykafka.types import OFFSETS_TOPIC, TopicPartition
from tests.lab.led_partitions import BROKER, LedPartitions, led_partitions
from tests.lab.loop_waiting import until
from tests.lab.served import APIS, request_context

SECRET = b"s" * 32
OFFSET_COMMIT, COMMIT_VERSION = 8, 2
TOPIC_ID = uuid.UUID(int=1)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def image(leader_epoch: int = 1) -> ClusterImage:
    states = {0: PartitionState((BROKER,), BROKER, leader_epoch, (BROKER,), leader_epoch)}
    topics = {name: Topic(name, uuid.UUID(int=number), states) for number, name in enumerate((OFFSETS_TOPIC, "t"), 1)}
    return ClusterImage("c").apply(ImageDelta(topics=topics))


def commit_of(offset: int) -> memoryview:
    """The body of an OffsetCommit, version 2, of group g for t-0, by a consumer that is no member."""
    head = struct.pack(">h1sih", 1, b"g", -1, 0)
    return memoryview(head + struct.pack(">qih1siiqh", -1, 1, 1, b"t", 1, 0, offset, 0))


class Actor:
    """One actor: what it has of coordination, and a socket on which coordinators connect."""

    def __init__(self, path: str, partitions: LedPartitions) -> None:
        self.path = path
        self.coordination = Coordination(BROKER, partitions, APIS)
        self.accepted: list[Link] = []
        self._server: asyncio.AbstractServer | None = None

    async def listen(self) -> None:
        self._server = await serve_unix(self.path, SECRET, {"role": "actor"}, self._accept)

    def _accept(self, link: Link) -> None:
        self.accepted.append(link)
        self.coordination.adopt(link)

    def living(self) -> list[Link]:
        return [link for link in self.accepted if not link.is_closed]

    async def commit(self, offset: int) -> ErrorCode:
        """The code that a commit is answered with, as a client of this actor sees it."""
        context = request_context(OFFSET_COMMIT, COMMIT_VERSION, "client")
        body = await self.coordination.forward(context, commit_of(offset))
        return ErrorCode(struct.unpack(">ih1siih", body)[-1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for link in self.accepted:
            link.transport.abort()
            await link.ended


class Broker:
    """A broker's coordinator child, without the rest of it. The coordinator runs in the test's own event loop."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / "b")
        self.child = CoordinatorChild()
        self.coordinator: CoordinatorServer

    async def start(self) -> None:
        accepted: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        server = await serve_unix(self._path, SECRET, {"role": "broker"}, accepted.set_result)
        link = await connect_unix(self._path, SECRET, {"role": "coordinator"})
        self.coordinator = CoordinatorServer(link, SECRET, BROKER, {})
        self.coordinator.start()
        child: Any = SimpleNamespace(link=await accepted)
        self.child.adopt(child)
        server.close()

    async def loaded(self, leader_epoch: int = 1) -> None:
        await until(
            lambda: self.coordinator.coordinator.status()["partitions"].get("0", {}).get("leader_epoch") == leader_epoch
        )
        await self.coordinator.coordinator.loaded()

    async def close(self) -> None:
        self.coordinator._link.close()
        await self.coordinator.ended


@asynccontextmanager
async def node(folder: Path, *partitions: LedPartitions) -> AsyncIterator[tuple[Broker, list[Actor]]]:
    """A broker with a coordinator, and actors that it has not named yet. They go by image 1."""
    broker = Broker(folder)
    actors = [Actor(str(folder / f"a{number}"), served) for number, served in enumerate(partitions)]
    await broker.start()
    try:
        for actor in actors:
            await actor.listen()
            actor.coordination.apply(image(), 1)
        yield broker, actors
    finally:
        await broker.close()
        for actor in actors:
            await actor.close()


def test_a_commit_crosses_between_processes_four_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    send = Link.send

    def recorded(link: Link, kind: Any, *parts: Any) -> None:
        sent.append(kind)
        send(link, kind, *parts)

    async def test() -> None:
        with led_partitions(tmp_path) as served:
            async with node(tmp_path, served) as (broker, (actor,)):
                broker.child.actors({0: actor.path})
                broker.child.placed([(TopicPartition(OFFSETS_TOPIC, 0), TOPIC_ID, 0)])
                await broker.loaded()
                monkeypatch.setattr(Link, "send", recorded)
                assert await actor.commit(5) is ErrorCode.NONE
                monkeypatch.undo()
                assert sent == [
                    frame_kinds.FORWARD,
                    messages.LOG_APPEND,
                    messages.LOG_APPENDED,
                    frame_kinds.FORWARDED,
                ]
                assert await broker.child.committed(10, 30) == [("g", TopicPartition("t", 0), 5)]

    run(test)


def test_the_coordinator_connects_to_the_actors_that_the_broker_names_and_to_no_others(tmp_path: Path) -> None:
    async def test() -> None:
        with led_partitions(tmp_path / "0") as first, led_partitions(tmp_path / "1") as second:
            async with node(tmp_path, first, second) as (broker, (one, two)):
                broker.child.actors({0: one.path, 1: two.path})
                await until(lambda: len(one.living()) == len(two.living()) == 1)
                broker.child.actors({1: two.path})
                await until(lambda: not one.living())
                broker.child.actors({1: two.path})
                await broker.loaded()
                assert await two.commit(7) is ErrorCode.NONE
                assert (len(one.accepted), len(two.accepted)) == (1, 1)

    run(test)


def test_an_actor_is_connected_to_again_while_the_broker_names_it(tmp_path: Path) -> None:
    async def test() -> None:
        with led_partitions(tmp_path / "0") as first, led_partitions(tmp_path / "1") as second:
            async with node(tmp_path, first) as (broker, (one,)):
                late = Actor(str(tmp_path / "late"), second)
                broker.child.actors({0: one.path, 1: late.path})
                await until(lambda: len(one.living()) == 1)
                await late.listen()
                await until(lambda: len(late.living()) == 1)
                one.living()[0].transport.abort()
                await until(lambda: len(one.accepted) == 2 and len(one.living()) == 1)
                await broker.loaded()
                assert await one.commit(1) is ErrorCode.NONE
                await late.close()

    run(test)


def test_a_coordinator_takes_an_image_from_whichever_actor_has_it_first(tmp_path: Path) -> None:
    async def test() -> None:
        with led_partitions(tmp_path / "0") as first, led_partitions(tmp_path / "1") as second:
            async with node(tmp_path, first, second) as (broker, (one, two)):
                broker.child.actors({0: one.path, 1: two.path})
                await broker.loaded()
                assert await two.commit(1) is ErrorCode.NONE
                for served in (first, second):
                    partition = served.get((OFFSETS_TOPIC, 0))
                    assert partition is not None
                    partition.told(2)
                    partition.show()
                two.coordination.apply(image(2), 2)
                assert await two.commit(2) in (ErrorCode.NONE, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
                await broker.loaded(leader_epoch=2)
                one.coordination.apply(image(2), 2)
                assert await one.commit(3) is ErrorCode.NONE
                (shard,) = broker.coordinator.coordinator.status()["partitions"].values()
                assert (shard["leader_epoch"], shard["loaded"]) == (2, True)

    run(test)


def test_the_links_to_the_actors_end_with_the_one_to_the_broker(tmp_path: Path) -> None:
    async def test() -> None:
        with led_partitions(tmp_path) as served:
            async with node(tmp_path, served) as (broker, (actor,)):
                broker.child.actors({0: actor.path})
                await until(lambda: len(actor.living()) == 1)
                await broker.close()
                await until(lambda: not actor.living())
                assert await broker.child.committed(10, 30) == []

    run(test)


def test_a_new_coordinator_is_told_what_its_predecessor_was(tmp_path: Path) -> None:
    async def test() -> None:
        with led_partitions(tmp_path) as served:
            async with node(tmp_path, served) as (broker, (actor,)):
                broker.child.placed(
                    [(TopicPartition(OFFSETS_TOPIC, 0), TOPIC_ID, 0), (TopicPartition("t", 0), TOPIC_ID, 3)]
                )
                broker.child.actors({0: actor.path})
                await broker.loaded()
                assert await actor.commit(4) is ErrorCode.NONE
                await broker.close()
                await broker.start()
                await broker.loaded()
                assert await broker.child.committed(10, 30) == [("g", TopicPartition("t", 0), 4)]
                assert broker.coordinator._log._homes == {0: 0}

    run(test)
