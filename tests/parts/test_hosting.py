"""The replicas that a replica actor has open, over changes of the image that concern those which are about to go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from raykafka.cluster.image import ImageDelta
from raykafka.errors import KafkaError, LinkError
from raykafka.log import Log, lock_holder
from raykafka.types import PartitionKey, TopicPartition
from tests.lab.dataplane import TOPIC, Dataplane, batch
from tests.lab.loop_waiting import until

WITHIN_S = 30
TP = TopicPartition(TOPIC, 0)


def run(directory: Path, test: Callable[[Dataplane], Awaitable[None]]) -> None:
    async def body() -> None:
        async with Dataplane(directory) as dataplane:
            await test(dataplane)

    asyncio.run(asyncio.wait_for(body(), WITHIN_S))


def test_configs_change_while_the_log_of_a_deleted_topic_is_still_open(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.create("kept")
        for delta in (
            ImageDelta(deleted_topics=(TOPIC,)),
            ImageDelta(broker_configs={"": {"log.retention.check.interval.ms": "1000"}}),
        ):
            dataplane.image = dataplane.image.apply(delta)
            await dataplane._tell(False, delta)
        assert (await dataplane.produce(batch(b"x"), "kept")).error_code == 0
        await dataplane.close(TP)

    run(tmp_path, test)


def test_a_log_whose_replica_has_failed_is_not_said_to_be_closed_before_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory may be renamed, and one of that name be made, once its broker has heard that it is closed."""
    closes, goes_on, close = threading.Event(), threading.Event(), Log.close

    def slowly(log: Log, *args: object, **more: object) -> None:
        closes.set()
        goes_on.wait(WITHIN_S)
        close(log, *args, **more)  # type: ignore[arg-type]

    async def test(dataplane: Dataplane) -> None:
        dataplane.elects = False
        topic_id = await dataplane.create()
        hosted = dataplane.server._hosting.get(PartitionKey(TOPIC, topic_id, 0))
        assert hosted is not None
        with monkeypatch.context() as patch:
            patch.setattr(Log, "close", slowly)
            hosted.replica._give_up("the disk failed")
            await until(closes.is_set)
            closing = asyncio.ensure_future(dataplane.close(TP))
            await until(lambda: any(method == "failed" for method, _ in dataplane.heard))
            assert not closing.done()
            goes_on.set()
            with pytest.raises(KafkaError):
                await closing

    run(tmp_path, test)


def test_configs_of_topics_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        for number in range(5):
            await dataplane.create(f"brief-{number}")
            await dataplane.delete(f"brief-{number}")
        await dataplane.create("kept")
        assert set(dataplane.server._hosting._topic_configs) == {"kept"}

    run(tmp_path, test)


def test_open_logs_are_closed_at_the_end_while_another_is_still_being_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next life of the broker waits for their locks."""
    opens, goes_on, open_log = threading.Event(), threading.Event(), Log.open

    def slowly(directory: Path, *args: object, **more: object) -> Log:
        opens.set()
        goes_on.wait(WITHIN_S)
        return open_log(directory, *args, **more)  # type: ignore[arg-type]

    async def test(dataplane: Dataplane) -> None:
        topic_id = await dataplane.create()
        hosted = dataplane.server._hosting.get(PartitionKey(TOPIC, topic_id, 0))
        assert hosted is not None
        with monkeypatch.context() as patch:
            patch.setattr(Log, "open", slowly)
            opening = asyncio.ensure_future(dataplane.create("slow"))
            await until(opens.is_set)
            dataplane.broker.close()
            try:
                await until(lambda: lock_holder(hosted.replica.log.directory) is None, within_s=WITHIN_S / 2)
            finally:
                goes_on.set()
            with pytest.raises(LinkError):
                await opening

    run(tmp_path, test)
