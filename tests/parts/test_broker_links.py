"""The inter-broker port: who may give orders, in which order they come into force, and what is asked back."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from raykafka.broker.neighbourhood.controller_calls import ControllerCalls, FailedLeadership
from raykafka.broker.neighbourhood.controller_link import CONTROLLER_ROLE, ControllerLink, ImageUpdate
from raykafka.broker.neighbourhood.inter_broker_port import InterBrokerPort
from raykafka.cluster.image import ClusterImage, ImageDelta, PartitionState, Topic, delta_from_json, delta_to_json
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link, connect_tcp
from raykafka.protocol.context import unpack_forward
from raykafka.types import TopicPartition
from tests.lab.served import request_context

SECRET = b"s" * 32
EPOCH = 5
_ID = uuid.UUID(int=1)


class _Port:
    def __init__(self) -> None:
        self.applied: list[ClusterImage] = []
        self.updates: list[ImageUpdate] = []
        self.hold: asyncio.Event | None = None
        self.link = ControllerLink(self.apply)
        self.calls = ControllerCalls(self.link)
        self.inter_broker_port = InterBrokerPort(SECRET, {CONTROLLER_ROLE: self.link.take})
        self.port = 0

    async def serve(self) -> None:
        self.link.begin("cluster", EPOCH)
        await self.inter_broker_port.serve("cluster", 1, EPOCH)

    async def apply(self, image: ClusterImage, update: ImageUpdate) -> None:
        if self.hold is not None:
            await self.hold.wait()
        self.applied.append(image)
        self.updates.append(update)

    async def controller(self, epoch: int, **start: Any) -> Link:
        identity = {"role": "controller", "broker_id": 0, "controller_epoch": epoch}
        link = await connect_tcp("127.0.0.1", self.port, SECRET, identity)
        link.start(**start)
        return link


@asynccontextmanager
async def _port() -> AsyncIterator[_Port]:
    made = _Port()
    made.port = made.inter_broker_port.open("127.0.0.1", 0)
    await made.serve()
    yield made
    made.inter_broker_port.stop()


def _topic(name: str, leader_epoch: int, version: int = 0, topic_id: uuid.UUID = _ID) -> Topic:
    return Topic(name, topic_id, {0: PartitionState((1,), 1, leader_epoch, (1,), version)})


def _update(delta: ImageDelta, *, full: bool = False, epoch: int = 1, broker_epoch: int = EPOCH) -> dict[str, Any]:
    return {"controller_epoch": epoch, "broker_epoch": broker_epoch, "full": full, "delta": delta_to_json(delta)}


def test_updates_come_into_force_one_by_one_and_are_answered_after_that() -> None:
    async def run() -> None:
        async with _port() as port:
            controller = await port.controller(1)
            port.hold = asyncio.Event()
            first = asyncio.ensure_future(
                controller.call("update", _update(ImageDelta(topics={"a": _topic("a", 0)}), full=True))
            )
            second = asyncio.ensure_future(
                controller.call("update", _update(ImageDelta(topics={"b": _topic("b", 0, 0, uuid.UUID(int=2))})))
            )
            await controller.ping(5)
            assert not first.done() and not second.done() and port.applied == []
            port.hold.set()
            assert await first == {} and await second == {}
            assert [sorted(image.topics) for image in port.applied] == [["a"], ["a", "b"]]
            full = _update(ImageDelta(topics={"b": _topic("b", 1, 1, uuid.UUID(int=2))}), full=True)
            await controller.call("update", full)
            assert sorted(port.link.image.topics) == ["b"]
            assert [update.full for update in port.updates] == [True, False, True]
            relayed = ClusterImage("cluster")
            for image, update in zip(port.applied, port.updates, strict=True):
                base = ClusterImage("cluster") if update.full else relayed
                relayed = base.apply(delta_from_json(json.loads(json.dumps(update.delta))))
                assert relayed == image

    asyncio.run(run())


def test_a_controller_of_a_lower_epoch_is_refused_and_one_of_a_higher_epoch_takes_over() -> None:
    async def run() -> None:
        async with _port() as port:
            old = await port.controller(3)
            await old.ping(5)
            new = await port.controller(4)
            await new.ping(5)
            await asyncio.wait_for(old.ended, 5)
            late = await port.controller(3)
            await asyncio.wait_for(late.ended, 5)
            assert await port.link.active(1) is not None
            with pytest.raises(KafkaError) as refused:
                await new.call("update", _update(ImageDelta(), epoch=3))
            assert refused.value.code is ErrorCode.STALE_CONTROLLER_EPOCH

    asyncio.run(run())


def test_an_update_for_another_life_or_back_in_time_is_refused() -> None:
    async def run() -> None:
        async with _port() as port:
            controller = await port.controller(1)
            with pytest.raises(KafkaError) as refused:
                await controller.call("update", _update(ImageDelta(), broker_epoch=EPOCH - 1))
            assert refused.value.code is ErrorCode.STALE_BROKER_EPOCH
            await controller.call("update", _update(ImageDelta(topics={"a": _topic("a", 4, 2)}), full=True))
            for older in (_topic("a", 3, 9), _topic("a", 4, 1)):
                with pytest.raises(KafkaError) as refused:
                    await controller.call("update", _update(ImageDelta(topics={"a": older})))
                assert refused.value.code is ErrorCode.FENCED_LEADER_EPOCH
                older_state = {TopicPartition("a", 0): older.partitions[0]}
                with pytest.raises(KafkaError) as refused:
                    await controller.call("update", _update(ImageDelta(partitions=older_state)))
                assert refused.value.code is ErrorCode.FENCED_LEADER_EPOCH
            newer = _topic("a", 5, 3)
            await controller.call(
                "update", _update(ImageDelta(partitions={TopicPartition("a", 0): newer.partitions[0]}))
            )
            assert port.link.image.topics["a"] == newer
            remade = _topic("a", 0, 0, uuid.UUID(int=9))
            await controller.call("update", _update(ImageDelta(topics={"a": remade})))
            assert port.link.image.topics["a"] == remade

    asyncio.run(run())


def test_who_connects_before_the_broker_is_registered_waits_for_its_answer() -> None:
    async def run() -> None:
        port = _Port()
        port.port = port.inter_broker_port.open("127.0.0.1", 0)
        connecting = asyncio.ensure_future(port.controller(1))
        await asyncio.sleep(0.1)
        assert not connecting.done()
        await port.serve()
        link = await asyncio.wait_for(connecting, 5)
        assert link.peer["broker_epoch"] == EPOCH
        port.inter_broker_port.stop()
        with pytest.raises((OSError, LinkError)):
            await port.controller(1)

    asyncio.run(run())


def test_a_request_over_which_a_controller_dies_is_taken_to_the_next_one() -> None:
    async def run() -> None:
        async with _port() as port:
            asked = asyncio.Event()

            async def hang(payload: memoryview) -> list[bytes]:
                asked.set()
                await asyncio.sleep(600)
                return []

            async def answer(payload: memoryview) -> list[bytes]:
                context, body = unpack_forward(payload)
                return [b"answer to ", bytes(body), b" of API %d" % context.api_key]

            first = await port.controller(1, on_forward=hang)
            context = request_context(19, 7, "c")
            request = asyncio.ensure_future(port.calls.forward(context, memoryview(b"body")))
            await asyncio.wait_for(asked.wait(), 10)
            first.close()
            await port.controller(2, on_forward=answer)
            assert bytes(await asyncio.wait_for(request, 10)) == b"answer to body of API 19"

    asyncio.run(run())


def test_without_a_controller_requests_fail_retriably_and_failed_leaders_are_reported_to_the_next_one() -> None:
    async def run() -> None:
        async with _port() as port:
            with pytest.raises(KafkaError) as refused:
                await port.link.active(0.05)
            assert refused.value.code is ErrorCode.NOT_CONTROLLER
            first = await port.controller(1)
            topic = Topic("a", _ID, {p: PartitionState((1,), 1, 4, (1,), 0) for p in range(3)})
            await first.call("update", _update(ImageDelta(topics={"a": topic}), full=True))
            first.close()
            await first.ended
            leaderships = [FailedLeadership(TopicPartition("a", p), _ID, 4, "it died") for p in range(3)]
            report = asyncio.ensure_future(port.calls.report_failed(leaderships))
            heard: list[tuple[str, dict[str, Any]]] = []

            async def answer(method: str, args: dict[str, Any]) -> dict[str, Any]:
                heard.append((method, args))
                return {}

            async def refuse(method: str, args: dict[str, Any]) -> dict[str, Any]:
                raise KafkaError(ErrorCode.NOT_CONTROLLER, "deposed")

            second = await port.controller(2, on_call=refuse)
            # what is over already is not reported any more
            over = Topic("a", _ID, {**topic.partitions, 1: PartitionState((1,), 1, 5, (1,), 1)})
            await second.call("update", _update(ImageDelta(topics={"a": over}), full=True, epoch=2))
            await port.controller(3, on_call=answer)
            await asyncio.wait_for(report, 10)
            ((method, args),) = heard
            assert method == "partitions_failed"
            named = {"topic": "a", "topic_id": str(_ID), "leader_epoch": 4, "reason": "it died", "short_log": False}
            assert args["partitions"] == [{**named, "partition": 0}, {**named, "partition": 2}]

    asyncio.run(run())
