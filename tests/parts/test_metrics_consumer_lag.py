"""Consumer lag: from a commit to the high watermark, asked of the leaders' brokers; what is not known has no lag."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from raykafka.broker.neighbourhood.broker_calls import BROKER_ROLE, BrokerCalls
from raykafka.broker.neighbourhood.log_ends import LogEnds
from raykafka.cluster.image import BrokerInfo, ClusterImage, ImageDelta, PartitionState, Topic
from raykafka.errors import KafkaError
from raykafka.link import Link, serve_tcp
from raykafka.metrics import consumer_lag
from raykafka.metrics.consumer_lag import Lag, consumer_lags
from raykafka.types import TopicPartition

SECRET = b"s" * 32
LED, FAR, NOWHERE, GONE = (TopicPartition("t", p) for p in range(4))


class FakeActors(dict[TopicPartition, int]):
    """The replica actors of a broker, which know these high watermarks."""

    async def ends(self, partitions: Iterable[TopicPartition], within_s: float) -> dict[TopicPartition, int]:
        return {tp: self[tp] for tp in partitions if tp in self}


class FakeCoordination:
    def __init__(self) -> None:
        self.commits: list[tuple[str, TopicPartition, int]] = []

    async def committed(self, most: int, within_s: float) -> list[tuple[str, TopicPartition, int]]:
        return self.commits


class FakeBroker:
    """Broker ``broker_id`` of two: 0 leads partition 0, 1 leads 1, nobody leads 2, and 3 is not there."""

    def __init__(self, broker_id: int, ports: dict[int, int]) -> None:
        self.broker_id = broker_id
        self.coordination = FakeCoordination()
        self.local_ends = FakeActors()
        self.lease = True
        leaders = {0: 0, 1: 1, 2: -1}
        states = {p: PartitionState((0, 1), leader, 3, (0, 1), 0) for p, leader in leaders.items()}
        brokers = {b: BrokerInfo(b, 1, (), "127.0.0.1", port, "", "", True) for b, port in ports.items()}
        topic = Topic("t", uuid.uuid4(), states)
        self.image = ClusterImage("c").apply(ImageDelta(brokers=brokers, topics={"t": topic}))
        self.broker_calls = BrokerCalls(self, SECRET)
        self.log_ends = LogEnds(self)

    def holds_lease(self) -> bool:
        return self.lease

    async def lags(self) -> list[Lag]:
        """The consumer lags that this broker tells."""
        return await consumer_lags(self.coordination, self.log_ends)


async def serve_life(epoch: int, accept: Callable[[Link], None]) -> Any:
    """The inter-broker port of that life of broker 1."""
    return await serve_tcp("127.0.0.1", 0, SECRET, {"role": "broker", "broker_id": 1, "broker_epoch": epoch}, accept)


def port_of(server: Any) -> int:
    return int(server.sockets[0].getsockname()[1])


def run(test: Callable[[FakeBroker, FakeBroker], Awaitable[None]]) -> None:
    """Two brokers and a real link between them; the lag is that of broker 0."""

    async def body() -> None:
        far = FakeBroker(1, {})
        accepted: list[Link] = []

        def accept(link: Link) -> None:
            assert link.peer["role"] == BROKER_ROLE
            accepted.append(link)
            far.broker_calls.take(link)

        server = await serve_life(1, accept)
        near = FakeBroker(0, {1: port_of(server)})
        try:
            await test(near, far)
        finally:
            near.broker_calls.close()
            server.close()
            for link in accepted:
                link.close()

    asyncio.run(asyncio.wait_for(body(), 30))


def test_lag_is_counted_to_the_high_watermark_wherever_the_leader_is() -> None:
    async def test(near: FakeBroker, far: FakeBroker) -> None:
        near.local_ends[LED], far.local_ends[FAR] = 100, 50
        near.coordination.commits = [("a", LED, 90), ("a", FAR, 0), ("b", FAR, 50), ("b", LED, 120)]
        for _ in range(2):
            assert await near.lags() == [Lag("a", LED, 10), Lag("a", FAR, 50), Lag("b", FAR, 0), Lag("b", LED, 0)]

    run(test)


def test_what_is_not_known_is_not_zero() -> None:
    async def test(near: FakeBroker, far: FakeBroker) -> None:
        near.coordination.commits = [("g", tp, 0) for tp in (LED, FAR, NOWHERE, GONE)]
        assert await near.lags() == []
        near.local_ends[LED], far.local_ends[FAR] = 100, 50
        assert await near.lags() == [Lag("g", LED, 100), Lag("g", FAR, 50)]
        far.lease = False  # another may lead by now
        assert await near.lags() == [Lag("g", LED, 100)]

    run(test)


def test_a_broker_that_does_not_answer_costs_its_own_partitions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_lag, "ANSWER_WITHIN_S", 0.05)

    async def test(near: FakeBroker, far: FakeBroker) -> None:
        async def hangs(method: str, args: dict[str, Any]) -> Any:
            await asyncio.sleep(60)

        near.local_ends[LED] = 100
        near.coordination.commits = [("g", LED, 0), ("g", FAR, 0)]
        silent = await serve_life(2, lambda link: link.start(on_call=hangs))
        next_life = await serve_life(3, lambda link: link.start(on_call=far.broker_calls.answer))
        info, there = near.image.brokers[1], near.image
        near.image = there.apply(ImageDelta(brokers={1: replace(info, link_port=port_of(silent), epoch=2)}))
        assert await near.lags() == [Lag("g", LED, 100)]
        silent.close()
        # the next life of the broker is asked at its own address
        far.local_ends[FAR] = 7
        near.image = there.apply(ImageDelta(brokers={1: replace(info, epoch=3)}))
        assert await near.lags() == [Lag("g", LED, 100)]  # another life answers at its address
        near.image = there.apply(ImageDelta(brokers={1: replace(info, link_port=port_of(next_life), epoch=3)}))
        assert await near.lags() == [Lag("g", LED, 100), Lag("g", FAR, 7)]
        next_life.close()

    run(test)


def test_a_peer_may_ask_for_what_brokers_tell_each_other_only() -> None:
    async def test(near: FakeBroker, far: FakeBroker) -> None:
        with pytest.raises(KafkaError):
            await near.broker_calls.call(1, "update", {}, 10)

    run(test)
