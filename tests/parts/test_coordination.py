"""Group requests on their way to the coordinator process: they wait for it where this broker coordinates, and reach it
behind what it has to know for them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raykafka.broker import coordination
from raykafka.broker.coordination import Coordination
from raykafka.cluster.image import ClusterImage, ImageDelta, PartitionState, Topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.link import Link, connect_unix, serve_unix
from raykafka.protocol.context import RequestContext
from raykafka.types import OFFSETS_TOPIC
from tests.lab.served import APIS, request_context

SECRET = b"s" * 32
OFFSET_FETCH, JOIN_GROUP, LIST_GROUPS = 9, 11, 16
OWN, OTHER = 0, 1


def _image(leader: int, leader_epoch: int = 0) -> ClusterImage:
    states = {0: PartitionState((OWN, OTHER), leader, leader_epoch, (OWN, OTHER), leader_epoch)}
    return ClusterImage("c").apply(ImageDelta(topics={OFFSETS_TOPIC: Topic(OFFSETS_TOPIC, uuid.UUID(int=1), states)}))


def _context(api_key: int) -> RequestContext:
    return request_context(api_key, 0, "client")


class _Process:
    """A coordinator process, as the broker meets it: what it was told and asked, in order."""

    def __init__(self, *, ends_over_requests: bool = False) -> None:
        self.heard: list[str] = []
        self._ends = ends_over_requests
        self._link: Link

    async def connect(self, path: str) -> None:
        self._link = await connect_unix(path, SECRET, {"role": "coordinator"})
        self._link.start(on_call=self._called, on_forward=self._asked)

    async def _called(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        self.heard.append(method)
        return {}

    async def _asked(self, payload: memoryview) -> list[bytes | bytearray | memoryview]:
        self.heard.append("request")
        if self._ends:
            self._link.close()
        return [b"answer"]


@asynccontextmanager
async def _broker(folder: Path) -> AsyncIterator[tuple[Coordination, str]]:
    """A broker's side without a coordinator process, and where one connects."""
    no_partitions: Any = None
    made, path = Coordination(OWN, no_partitions, APIS), str(folder / "s")
    server = await serve_unix(path, SECRET, {"role": "broker"}, lambda link: made.adopt(SimpleNamespace(link=link)))  # type: ignore[arg-type]
    yield made, path
    server.close()


def test_a_request_waits_for_the_coordinator_process(tmp_path: Path) -> None:
    async def run() -> None:
        async with _broker(tmp_path) as (broker, path):
            broker.apply(_image(leader=OWN))
            answer = asyncio.ensure_future(broker.forward(_context(JOIN_GROUP), memoryview(b"")))
            await asyncio.sleep(0)
            process = _Process()
            await process.connect(path)
            assert bytes(await answer) == b"answer"
            assert process.heard == ["topics", "lead", "request"]

    asyncio.run(run())


def test_what_clients_may_know_already_the_coordinator_is_told_before_their_requests(tmp_path: Path) -> None:
    async def run() -> None:
        async with _broker(tmp_path) as (broker, path):
            broker.apply(_image(leader=OTHER))
            process = _Process()
            await process.connect(path)
            await broker.forward(_context(LIST_GROUPS), memoryview(b""))
            process.heard.clear()
            broker.expect()
            answer = asyncio.ensure_future(broker.forward(_context(JOIN_GROUP), memoryview(b"")))
            for _ in range(10):
                await asyncio.sleep(0)
            broker.apply(_image(leader=OWN, leader_epoch=1))
            await answer
            assert process.heard == ["topics", "lead", "request"]

    asyncio.run(run())


def test_a_broker_that_coordinates_nothing_says_so_at_once(tmp_path: Path) -> None:
    async def run() -> None:
        async with _broker(tmp_path) as (broker, _):
            broker.apply(_image(leader=OTHER))
            with pytest.raises(KafkaError) as refused:
                await asyncio.wait_for(broker.forward(_context(OFFSET_FETCH), memoryview(b"")), 10)
            assert refused.value.code is ErrorCode.NOT_COORDINATOR

    asyncio.run(run())


def test_a_coordinator_that_stays_away_leaves_an_answer_after_which_clients_ask_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordination, "COORDINATOR_WITHIN_S", 0.01)

    async def run() -> None:
        async with _broker(tmp_path) as (broker, _):
            broker.apply(_image(leader=OWN))
            codes = {}
            for api_key in (OFFSET_FETCH, JOIN_GROUP, LIST_GROUPS):
                with pytest.raises(KafkaError) as refused:
                    await broker.forward(_context(api_key), memoryview(b""))
                codes[api_key] = refused.value.code
            assert codes == {
                OFFSET_FETCH: ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
                JOIN_GROUP: ErrorCode.NOT_COORDINATOR,
                LIST_GROUPS: ErrorCode.COORDINATOR_NOT_AVAILABLE,
            }

    asyncio.run(run())


def test_only_what_changes_nothing_is_asked_again_when_the_coordinator_ends_over_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with _broker(tmp_path) as (broker, path):
            broker.apply(_image(leader=OWN))
            for api_key in (OFFSET_FETCH, JOIN_GROUP):
                first, second = _Process(ends_over_requests=True), _Process()
                await first.connect(path)
                answer = asyncio.ensure_future(broker.forward(_context(api_key), memoryview(b"")))
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
