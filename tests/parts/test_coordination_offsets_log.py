"""What a broker relays between its coordinator and the partitions of the offsets topic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raykafka.broker.coordination import Coordination
from raykafka.broker.partitions.partition_host import PartitionHost
from raykafka.coordinator.runtime.topic_log import LinkedTopicLog
from raykafka.error_code import ErrorCode
from raykafka.link import Link, connect_unix, serve_unix
from raykafka.log import LogReader, StaleRange
from raykafka.types import OFFSETS_TOPIC
from tests.lab.dataplane import BROKER, SECRET, Dataplane, append, batch
from tests.lab.served import APIS


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


@asynccontextmanager
async def offsets_log(dataplane: Dataplane, directory: Path) -> AsyncIterator[LinkedTopicLog]:
    """The offsets topic as the coordinator of this broker gets at it."""

    async def heard(method: str, args: dict[str, Any]) -> dict[str, Any]:
        return {}

    accepted: asyncio.Queue[Link] = asyncio.Queue()
    server = await serve_unix(str(directory / "c"), SECRET, {"role": "broker"}, accepted.put_nowait)
    link = await connect_unix(str(directory / "c"), SECRET, {"role": "coordinator"})
    log = LinkedTopicLog(OFFSETS_TOPIC, link)
    link.start(on_frame=log.frame_received, on_call=heard)
    child: Any = SimpleNamespace(link=await accepted.get())
    Coordination(BROKER, dataplane.partitions, APIS).adopt(child)
    try:
        yield log
    finally:
        link.close()
        child.link.close()
        server.close()


def test_a_view_from_before_this_broker_led_does_not_say_where_the_offsets_log_ends(tmp_path: Path) -> None:
    """A coordinator that loaded up to there would not know of all that its predecessor answered (rule 24)."""

    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane, offsets_log(dataplane, tmp_path) as log:
            await dataplane.create(OFFSETS_TOPIC)
            host = dataplane.partitions.get((OFFSETS_TOPIC, 0))
            assert isinstance(host, PartitionHost)
            assert (await append(host, memoryview(batch(b"a")), -1, 1000)).error is ErrorCode.NONE
            replica = await dataplane.lead_unheard(OFFSETS_TOPIC)
            answer, records = await log.read(0, 0, 1 << 20)
            assert (answer.error, len(records)) == (ErrorCode.OFFSET_NOT_AVAILABLE, 0)
            replica.read_on()
            while (answer := (await log.read(0, 0, 1 << 20))[0]).error:
                await asyncio.sleep(0.005)
            assert (answer.high_watermark, answer.log_end_offset) == (1, 1)

    run(test)


def test_a_read_over_which_the_log_is_closed_does_not_look_like_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that found nothing below the high watermark would take what it has for everything."""

    def closed_meanwhile(self: LogReader, *args: Any, **more: Any) -> Any:
        raise StaleRange("planted")

    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane, offsets_log(dataplane, tmp_path) as log:
            await dataplane.create(OFFSETS_TOPIC)
            host = dataplane.partitions.get((OFFSETS_TOPIC, 0))
            assert isinstance(host, PartitionHost)
            await append(host, memoryview(batch(b"a")), -1, 1000)
            with monkeypatch.context() as planted:
                planted.setattr(LogReader, "fetch_bytes", closed_meanwhile)
                answer, records = await log.read(0, 0, 1 << 20)
                assert (answer.error, len(records)) == (ErrorCode.OFFSET_NOT_AVAILABLE, 0)
            answer, records = await log.read(0, 0, 1 << 20)
            assert answer.error is ErrorCode.NONE and len(records)
            answer, records = await log.read(0, 1, 1 << 20)
            assert (answer.error, len(records)) == (ErrorCode.NONE, 0)

    run(test)
