"""Updates that wait for a slow broker are merged: the merged one does what all of them did, in order."""

from __future__ import annotations

import asyncio
import socket
import uuid
from dataclasses import replace
from functools import reduce
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raykafka.broker.neighbourhood.controller_link import CONTROLLER_ROLE, ControllerLink, ImageUpdate
from raykafka.broker.neighbourhood.inter_broker_port import InterBrokerPort
from raykafka.cluster.image import (
    BrokerInfo,
    ClusterImage,
    ImageDelta,
    PartitionState,
    Topic,
    delta_from_json,
    delta_to_json,
)
from raykafka.controller.channel import BrokerChannel, merged
from raykafka.types import TopicPartition
from raykafka.zookeeper.znodes import Registration

SECRET = b"secret"
NAMES = ("a", "b", "c")
topics = st.builds(
    lambda name, number, leader: Topic(
        name, uuid.UUID(int=10 * ord(name) + number), {0: PartitionState((0,), leader, 0, (0,), 0)}
    ),
    st.sampled_from(NAMES),
    st.integers(1, 4),
    st.integers(-1, 2),
)
partitions = st.builds(
    lambda name, leader, version: (TopicPartition(name, 0), PartitionState((0,), leader, 0, (0,), version)),
    st.sampled_from(NAMES),
    st.integers(-1, 2),
    st.integers(1, 9),
)
brokers = st.builds(
    lambda b, epoch: BrokerInfo(b, epoch, (), "127.0.0.1", 1, "d", "b", True), st.integers(0, 3), st.integers(1, 4)
)
deltas = st.builds(
    lambda brokers, removed, topics, deleted, partitions, configs, epoch: ImageDelta(
        brokers={b.id: b for b in brokers},
        removed_brokers=tuple(r for r in removed if r not in {b.id for b in brokers}),
        topics={t.name: t for t in topics},
        deleted_topics=deleted,
        partitions=dict(partitions),
        broker_configs=configs,
        controller_epoch=epoch,
    ),
    st.lists(brokers, max_size=3),
    st.lists(st.integers(0, 3), max_size=2, unique=True),
    st.lists(topics, max_size=2),
    st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple),
    st.lists(partitions, max_size=2),
    st.dictionaries(st.sampled_from(["", "0"]), st.just({"log.retention.ms": "5"}), max_size=1),
    st.one_of(st.none(), st.integers(1, 3)),
)


@settings(deadline=None, max_examples=500)
@given(st.lists(deltas, min_size=1, max_size=5))
def test_a_merged_delta_does_what_its_parts_do_in_order(parts: list[ImageDelta]) -> None:
    one_by_one, possible = ClusterImage("c"), []
    for delta in parts:
        # only topics that stand have new states of partitions
        stand = (one_by_one.topics.keys() - set(delta.deleted_topics)) | delta.topics.keys()
        delta = replace(delta, partitions={tp: s for tp, s in delta.partitions.items() if tp.topic in stand})
        possible.append(delta)
        one_by_one = one_by_one.apply(delta)
    at_once = ClusterImage("c").apply(reduce(merged, possible))
    assert at_once == one_by_one


def test_a_new_state_of_one_partition_leaves_the_others_untouched() -> None:
    states = {p: PartitionState((0,), 0, 0, (0,), 0) for p in range(3)}
    image = ClusterImage("c").apply(ImageDelta(topics={"a": Topic("a", uuid.UUID(int=1), states, {"k": "v"})}))
    moved = PartitionState((0,), -1, 1, (0,), 1)
    after = image.apply(ImageDelta(partitions={TopicPartition("a", 1): moved})).topics["a"]
    assert after.partitions == {0: states[0], 1: moved, 2: states[2]}
    assert after.partitions[2] is states[2] and after.config is image.topics["a"].config


@settings(deadline=None)
@given(deltas)
def test_a_delta_survives_its_way_over_the_link(delta: ImageDelta) -> None:
    assert delta_from_json(delta_to_json(delta)) == delta


def _channel(port: int, *, silent_after_s: float, silent_s: float = 0.0) -> BrokerChannel:
    ready = asyncio.Event()
    ready.set()
    return BrokerChannel(
        Registration(BrokerInfo(1, 1, (), "127.0.0.1", port, "d", "b", True), "incarnation", 1, 1),
        identity={"role": "controller", "broker_id": 0, "controller_epoch": 1},
        secret=SECRET,
        silent_after_s=silent_after_s,
        current=lambda: (ClusterImage("c"), 0),
        on_progress=lambda: None,
        on_call=_refuse,
        on_forward=_refuse,
        ready=ready,
        silent_s=silent_s,
    )


@pytest.mark.parametrize(("silent_after_s", "silent_s"), [(0.5, 0.0), (1000.0, 1000.0)])
def test_a_broker_that_stays_out_of_reach_is_dead_though_nobody_refuses(silent_after_s: float, silent_s: float) -> None:
    """Rule 14: silence for the session time-out means dead, also where the connection itself gets no answer, and
    where some of it had gone by when this controller came."""

    async def verdict(port: int) -> str:
        channel = _channel(port, silent_after_s=silent_after_s, silent_s=silent_s)
        return await asyncio.wait_for(channel.run(), 30)

    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections, and says nothing
        assert asyncio.run(verdict(mute.getsockname()[1])) == f"it was out of reach for {silent_after_s:g} s"


def test_a_broker_that_was_silent_and_answers_is_alive() -> None:
    async def scenario() -> None:
        async def apply(image: ClusterImage, update: ImageUpdate) -> None: ...

        link = ControllerLink(apply)
        link.begin("c", 1)
        inter_broker_port = InterBrokerPort(SECRET, {CONTROLLER_ROLE: link.take})
        port = inter_broker_port.open("127.0.0.1", 0)
        await inter_broker_port.serve("c", 1, 1)
        channel = _channel(port, silent_after_s=1000.0, silent_s=2000.0)
        running = asyncio.create_task(channel.run())
        async with asyncio.timeout(30):
            while channel.acknowledged < 0:
                await asyncio.sleep(0.01)
        assert not running.done()
        running.cancel()
        inter_broker_port.stop()

    asyncio.run(scenario())


async def _refuse(*_: object) -> NoReturn:
    raise AssertionError("nobody is there to call")
