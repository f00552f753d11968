"""Group requests on their way to the coordinator process: they wait for it where this broker coordinates, and reach it
behind what it has to know for them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raykafka.cluster.image import ClusterImage, ImageDelta, PartitionState, Topic
from raykafka.coordinator.messages import LOG_APPEND, LogAppend
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.link import Link, connect_unix, serve_unix
from raykafka.partition.appends import Done
from raykafka.partition.log_view import LogView
from raykafka.protocol.context import RequestContext
from raykafka.replica_actor import coordination
from raykafka.replica_actor.coordination import Coordination
from raykafka.replica_actor.partition import ServedPartition
from raykafka.types import OFFSETS_TOPIC, TopicPartition
from tests.lab.loop_waiting import until
from tests.lab.served import APIS, request_context

SECRET = b"s" * 32
OFFSET_FETCH, JOIN_GROUP, LIST_GROUPS = 9, 11, 16
OWN, OTHER = 0, 1


def _topic(name: str, topic_id: int, *states: PartitionState) -> Topic:
    return Topic(name, uuid.UUID(int=topic_id), dict(enumerate(states)))


def _led_by(leader: int, leader_epoch: int = 0) -> PartitionState:
    return PartitionState((OWN, OTHER), leader, leader_epoch, (OWN, OTHER), leader_epoch)


def _image(leader: int, leader_epoch: int = 0, *others: Topic) -> ClusterImage:
    topics = (_topic(OFFSETS_TOPIC, 1, _led_by(leader, leader_epoch)), *others)
    return ClusterImage("c").apply(ImageDelta(topics={topic.name: topic for topic in topics}))


def _context(api_key: int) -> RequestContext:
    return request_context(api_key, 0, "client")


class _Process:
    """A coordinator process, as an actor meets it: what it was told and asked, in order."""

    def __init__(self, *, ends_over_requests: bool = False) -> None:
        self.heard: list[str] = []
        self.told: list[dict[str, Any]] = []
        self._ends = ends_over_requests
        self._link: Link

    async def connect(self, path: str) -> None:
        self._link = await connect_unix(path, SECRET, {"role": "coordinator"})
        self._link.start(on_call=self._called, on_forward=self._asked)

    async def ended(self) -> None:
        await asyncio.wait_for(self._link.ended, 30)

    def append(self, correlation: int, records: bytes) -> None:
        self._link.send(LOG_APPEND, LogAppend(correlation, 0, 1, 60_000).pack(), records)

    async def _called(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        self.heard.append(method)
        self.told.append(args)
        return {}

    async def _asked(self, payload: memoryview) -> list[bytes | bytearray | memoryview]:
        self.heard.append("request")
        if self._ends:
            self._link.close()
        return [b"answer"]


@asynccontextmanager
async def _actor(folder: Path, partitions: Any = None) -> AsyncIterator[tuple[Coordination, str]]:
    """An actor's side without a coordinator process, and where one connects."""
    made, path = Coordination(OWN, partitions, APIS), str(folder / "s")
    server = await serve_unix(path, SECRET, {"role": "actor"}, made.adopt)
    yield made, path
    server.close()


def test_a_request_waits_for_the_coordinator_process(tmp_path: Path) -> None:
    async def run() -> None:
        async with _actor(tmp_path) as (actor, path):
            actor.apply(_image(leader=OWN), 1)
            answer = asyncio.ensure_future(actor.forward(_context(JOIN_GROUP), memoryview(b"")))
            await asyncio.sleep(0)
            process = _Process()
            await process.connect(path)
            assert bytes(await answer) == b"answer"
            assert process.heard == ["image", "request"]

    asyncio.run(run())


def test_the_coordinator_is_told_of_an_image_before_the_requests_of_clients_who_know_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with _actor(tmp_path) as (actor, path):
            actor.apply(_image(leader=OTHER), 1)
            process = _Process()
            await process.connect(path)
            await actor.forward(_context(LIST_GROUPS), memoryview(b""))
            process.heard.clear()
            # in one step of the event loop
            actor.apply(_image(leader=OWN, leader_epoch=1), 2)
            await actor.forward(_context(JOIN_GROUP), memoryview(b""))
            assert process.heard == ["image", "request"]
            assert process.told[-1]["leads"] == [[0, 1]]

    asyncio.run(run())


def test_the_coordinator_is_told_what_changed_that_it_has_to_know(tmp_path: Path) -> None:
    async def run() -> None:
        async with _actor(tmp_path) as (actor, path):
            process = _Process()
            await process.connect(path)
            a, b = _topic("a", 10, _led_by(OTHER)), _topic("b", 11, _led_by(OTHER))
            new_a = _topic("a", 12, _led_by(OTHER), _led_by(OTHER))
            first = _image(OWN, 3, a, b)
            images = [
                first,
                first.apply(ImageDelta(partitions={TopicPartition("a", 0): _led_by(OWN, 4)})),
                first.apply(ImageDelta(topics={"a": _topic("a", 10, _led_by(OTHER), _led_by(OTHER))})),
                first.apply(ImageDelta(topics={"a": new_a}, deleted_topics=("b",))),
                _image(OTHER, 4, new_a),
            ]
            for number, image in enumerate(images, 1):
                actor.apply(image, number)
            # one that it was not given is between, and may have made a topic that is gone again
            actor.apply(images[-1], 7)
            await actor.forward(_context(LIST_GROUPS), memoryview(b""))
            ids = {name: str(uuid.UUID(int=number)) for name, number in (("a", 10), ("b", 11), ("new a", 12))}
            offsets = {OFFSETS_TOPIC: [str(uuid.UUID(int=1)), 1]}
            common = {"full": False, "deleted": [], "leads": [[0, 3]], "partitions": 1}
            assert process.told == [
                {**common, "image": 1, "full": True, "topics": {**offsets, "a": [ids["a"], 1], "b": [ids["b"], 1]}},
                {**common, "image": 3, "topics": {"a": [ids["a"], 2]}},
                {**common, "image": 4, "topics": {"a": [ids["new a"], 2]}, "deleted": ["b"]},
                {**common, "image": 5, "topics": {}, "leads": []},
                {**common, "image": 7, "full": True, "topics": {**offsets, "a": [ids["new a"], 2]}, "leads": []},
            ]

    asyncio.run(run())


def test_a_new_coordinator_is_told_everything_and_its_predecessor_is_heard_no_more(tmp_path: Path) -> None:
    """What a dead one has sent, and nobody has read, must not get into a log that its successor has loaded."""

    async def run() -> None:
        async with _actor(tmp_path) as (actor, path):
            actor.apply(_image(leader=OWN), 1)
            old, new = _Process(), _Process()
            await old.connect(path)
            await actor.forward(_context(LIST_GROUPS), memoryview(b""))
            await new.connect(path)
            await old.ended()
            await actor.forward(_context(LIST_GROUPS), memoryview(b""))
            assert new.heard == ["image", "request"] and new.told == old.told
            actor.apply(_image(leader=OTHER), 2)
            await actor.forward(_context(LIST_GROUPS), memoryview(b""))
            assert [len(old.told), len(new.told)] == [1, 2]

    asyncio.run(run())


def test_a_broker_that_coordinates_nothing_says_so_at_once(tmp_path: Path) -> None:
    async def run() -> None:
        async with _actor(tmp_path) as (actor, _):
            actor.apply(_image(leader=OTHER), 1)
            with pytest.raises(KafkaError) as refused:
                await asyncio.wait_for(actor.forward(_context(OFFSET_FETCH), memoryview(b"")), 10)
            assert refused.value.code is ErrorCode.NOT_COORDINATOR

    asyncio.run(run())


def test_a_coordinator_that_stays_away_leaves_an_answer_after_which_clients_ask_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordination, "COORDINATOR_WITHIN_S", 0.01)

    async def run() -> None:
        async with _actor(tmp_path) as (actor, _):
            actor.apply(_image(leader=OWN), 1)
            codes = {}
            for api_key in (OFFSET_FETCH, JOIN_GROUP, LIST_GROUPS):
                with pytest.raises(KafkaError) as refused:
                    await actor.forward(_context(api_key), memoryview(b""))
                codes[api_key] = refused.value.code
            assert codes == {
                OFFSET_FETCH: ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
                JOIN_GROUP: ErrorCode.NOT_COORDINATOR,
                LIST_GROUPS: ErrorCode.COORDINATOR_NOT_AVAILABLE,
            }

    asyncio.run(run())


def test_only_what_changes_nothing_is_asked_again_when_the_coordinator_ends_over_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with _actor(tmp_path) as (actor, path):
            actor.apply(_image(leader=OWN), 1)
            for api_key in (OFFSET_FETCH, JOIN_GROUP):
                first, second = _Process(ends_over_requests=True), _Process()
                await first.connect(path)
                answer = asyncio.ensure_future(actor.forward(_context(api_key), memoryview(b"")))
                while "request" not in first.heard:
                    await asyncio.sleep(0.001)
                await second.connect(path)
                if api_key == OFFSET_FETCH:
                    assert bytes(await answer) == b"answer"
                else:
                    with pytest.raises(KafkaError) as refused:
                        await answer
                    assert refused.value.code is ErrorCode.NOT_COORDINATOR
                    assert "request" not in second.heard

    asyncio.run(run())


class _Written:
    """The writer of an open log: what it was handed, in order."""

    def __init__(self) -> None:
        self.records: list[bytes] = []

    async def delete_records(self, offset: int) -> int:
        raise NotImplementedError

    def append(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        self.records.append(bytes(records))


def test_what_a_coordinator_sent_that_has_ended_is_not_written_when_the_log_opens(tmp_path: Path) -> None:
    """Its successor may have read the log before (rule 24)."""

    async def run() -> None:
        with ThreadPoolExecutor(1) as threads:
            log = LogView(tmp_path / f"{OFFSETS_TOPIC}-0", threads)
            tp, topic_id = TopicPartition(OFFSETS_TOPIC, 0), uuid.UUID(int=1)
            opening = ServedPartition(OWN, tp, topic_id, _led_by(OWN, 1), log, lambda: True)
            partitions = SimpleNamespace(get={tp: opening}.get, traffic={})
            async with _actor(tmp_path, partitions) as (actor, path):
                actor.apply(_image(OWN, 1), 1)
                old, new = _Process(), _Process()
                await old.connect(path)
                old.append(1, b"of the old one")
                await until(lambda: opening._waiting)
                await new.connect(path)
                await old.ended()
                new.append(1, b"of the new one")
                await until(lambda: [append.records for append in opening._waiting] == [b"of the new one"])
                writer = _Written()
                opening.attach(writer)
                assert writer.records == [b"of the new one"]

    asyncio.run(asyncio.wait_for(run(), 60))
