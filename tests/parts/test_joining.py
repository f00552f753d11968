"""Who is asked for when a sleeping leader's replicas come back: pure, and as one broker tells another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from raykafka.replica.rules.sealed import SealedEnd, propose_asleep

from raykafka.broker.partitions.joining import METHOD
from raykafka.cluster.image import ImageDelta, PartitionState, Topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.replica.rules.events import Propose, Seal
from tests.lab.dataplane import TOPIC, Dataplane, batch

STATE = PartitionState((1, 2, 3, 4), 1, 7, (1, 2), 5)
SEAL = Seal(7, True, 90, 100, 100, 3)
OWN = SealedEnd(7, 100, 6)
EPOCHS = {1: 11, 2: 12, 3: 13, 4: 14}


def test_all_replicas_that_sleep_on_the_same_log_are_asked_for_at_once() -> None:
    proposal = propose_asleep(1, SEAL, OWN, STATE, EPOCHS, {3: OWN, 4: OWN})
    assert proposal == Propose((1, 2, 3, 4), (11, 12, 13, 14), 7, 5)


@pytest.mark.parametrize(
    "other", [OWN._replace(epoch=6), OWN._replace(log_end=99), OWN._replace(last_epoch=5), None], ids=str
)
def test_a_replica_that_follows_another_epoch_or_ends_elsewhere_is_left_out(other: SealedEnd | None) -> None:
    found = {3: OWN} if other is None else {3: OWN, 4: other}
    assert propose_asleep(1, SEAL, OWN, STATE, EPOCHS, found) == Propose((1, 2, 3), (11, 12, 13), 7, 5)


def test_nobody_is_asked_for_by_who_does_not_lead_or_for_who_is_dead_or_in_sync() -> None:
    found = {2: OWN, 3: OWN, 4: OWN}
    assert propose_asleep(1, SEAL._replace(leading=False), OWN, STATE, EPOCHS, found) is None
    assert propose_asleep(2, SEAL, OWN, STATE, EPOCHS, found) is None
    assert propose_asleep(1, SEAL, OWN, STATE, {1: 11, 2: 12}, found) is None


def test_a_broker_tells_how_its_sleeping_replicas_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path, config={"replica.idle.ms": "1"}) as dataplane:
            with pytest.raises(KafkaError) as refusal:
                await dataplane.broker_calls.answer(METHOD, {"partitions": []})
            assert refusal.value.code is ErrorCode.BROKER_NOT_AVAILABLE
            topic_id = str(await dataplane.create(partitions=2))
            await dataplane.produce(batch(b"a"))
            while (host := dataplane.partitions.get((TOPIC, 0))) is None or host.life != "asleep":
                await asyncio.sleep(0.005)
            asked = [[TOPIC, topic_id, 0], [TOPIC, topic_id, 1], [TOPIC, topic_id, 2], [TOPIC, "another", 0]]
            ends = await dataplane.broker_calls.answer(METHOD, {"partitions": asked})
            assert ends == [[0, 1, 0], [0, 0, -1], None, None]
            dataplane.children.gate.clear()
            waiting = asyncio.ensure_future(dataplane.produce(batch(b"b")))
            while host.life == "asleep":
                await asyncio.sleep(0.005)
            assert await dataplane.broker_calls.answer(METHOD, {"partitions": asked[:1]}) == [[]]
            dataplane.children.gate.set()
            await waiting

    asyncio.run(asyncio.wait_for(test(), 60))


def test_an_isr_that_was_asked_for_asleep_is_told_to_the_replica_that_wakes(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create()
            topic = dataplane.image.topics[TOPIC]
            state = PartitionState((0, 1), 0, 0, (0,), 1)
            await dataplane.take(ImageDelta(topics={TOPIC: Topic(TOPIC, topic.id, {0: state})}))
            host = dataplane.partitions.get((TOPIC, 0))
            assert host is not None and host.behind() == (1,)
            proposal = host.propose_asleep({1: SealedEnd(0, 0, -1)})
            assert proposal == Propose((0, 1), (0, 0), 0, 1)
            waiting = asyncio.ensure_future(dataplane.produce(batch(b"a"), acks=1))
            await waiting
            (child,) = dataplane.children.acquired
            leading = child.replica._opened().partition.leading
            assert leading is not None and leading.counted() == {0, 1}

    asyncio.run(asyncio.wait_for(test(), 60))
