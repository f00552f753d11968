"""Groups on a whole broker: over the wire its answers are Kafka's, and groups outlive their coordinator's process."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kio.index import load_payload_module
from kio.static.constants import EntityType

from raykafka.broker.children.child import COORDINATOR
from tests.lab.clusters.plain_broker import PATIENT_SESSION_MS, PlainBroker
from tests.lab.group_dialogues.dialogue import FIND_COORDINATOR, TOPIC, Connection, Dialogue, KafkaConnection
from tests.lab.group_dialogues.recorded import DIALOGUES, RECORDED, play

WITHIN_S = 120
NONE, REBALANCE_IN_PROGRESS = 0, 27
RETRIABLE = (14, 15, 16)  # loading, not available, not the coordinator
CONFIG = {
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "group.max.size": "3",
    "offsets.topic.num.partitions": "2",
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, zookeeper: str) -> Iterator[PlainBroker]:
    chroot = f"{zookeeper}/{secrets.token_hex(4)}"
    made = PlainBroker(tmp_path_factory.mktemp("broker"), chroot, config=CONFIG, session_ms=PATIENT_SESSION_MS)
    try:
        made.start()
        made.wait_serving(WITHIN_S)
        admin = AdminClient({"bootstrap.servers": made.bootstrap, "log_level": 0})
        admin.create_topics([NewTopic(TOPIC, 2, 1)])[TOPIC].result(WITHIN_S)
        asyncio.run(_wait_for_coordinators(made))
        yield made
    finally:
        print(made.log_text)
        made.end()


async def _connect(broker: PlainBroker) -> Connection:
    host, _, port = broker.bootstrap.rpartition(":")
    return KafkaConnection(*await asyncio.open_connection(host, int(port)))


async def _wait_for_coordinators(broker: PlainBroker) -> None:
    """Wait until both partitions of the offsets topic answer for their groups."""
    dialogue = Dialogue(lambda: _connect(broker))
    deadline = asyncio.get_running_loop().time() + WITHIN_S
    m = load_payload_module(FIND_COORDINATOR, 4, EntityType.request)
    groups = [f"g{i}" for i in range(8)]
    while True:
        found = await dialogue.begin("a", FIND_COORDINATOR, 4, key_type=m.i8(0), coordinator_keys=tuple(groups))
        errors = {c.error_code.value for c in found.coordinators}
        if errors == {NONE}:
            asked = {"groups": tuple(groups), "include_authorized_operations": False}
            described = (await dialogue.begin("a", 15, 5, **asked)).groups
            if {g.error_code.value for g in described} == {NONE}:
                return
        assert asyncio.get_running_loop().time() < deadline, f"no coordinator: {errors}"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", DIALOGUES)
def test_answers_over_the_wire_are_those_of_kafka(name: str, broker: PlainBroker) -> None:
    said = asyncio.run(play(name, lambda: _connect(broker)))
    for ours, kafkas in zip(said, json.loads(RECORDED.read_text())[name], strict=True):
        assert ours == kafkas


async def _retried(ask: Any) -> Any:
    """The first answer of ``ask()`` whose error is not one that says: later."""
    deadline = asyncio.get_running_loop().time() + WITHIN_S
    while True:
        answer = await ask()
        found = [g.error_code.value for g in answer.groups] if hasattr(answer, "groups") else [answer.error_code.value]
        if not set(found) & set(RETRIABLE):
            return answer
        assert asyncio.get_running_loop().time() < deadline, f"still {answer}"
        await asyncio.sleep(0.05)


def test_a_group_goes_on_after_its_coordinator_was_killed(broker: PlainBroker) -> None:
    async def story() -> None:
        d = Dialogue(lambda: _connect(broker))
        a = await d.member("a")
        await d.join("join", "a", a)
        await d.sync("sync", "a", a, 1, {a: b"all"})
        await d.commit("commit", "a", a, 1, 41)
        broker.children(COORDINATOR)[0].kill()
        fetched = await _retried(lambda: d.fetch("fetch", "a", 0))
        assert fetched.groups[0].topics[0].partitions[0].committed_offset == 41
        values = {"generation_id": 1, "member_id": a, "group_instance_id": None}
        assert (await d.begin("a", 12, 4, **values)).error_code.value == NONE
        assert (await d.syncing("a", a, 1)).assignment == b"all"
        b_joins = d.joining("b", await d.member("b"))
        await d.until("PreparingRebalance", 2)
        assert (await d.begin("a", 12, 4, **values)).error_code.value == REBALANCE_IN_PROGRESS
        assert (await d.join("join again", "a", a)).generation_id == 2
        assert (await b_joins).generation_id == 2

    asyncio.run(story())


def test_committed_offsets_are_answered_while_a_coordinator_starts(broker: PlainBroker) -> None:
    """librdkafka gives up on an OffsetFetch that is told of another coordinator."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "log_level": 0, "group.id": "patient"})
    try:
        consumer.commit(offsets=[TopicPartition(TOPIC, 0, 7)], asynchronous=False)
        (process,) = broker.children(COORDINATOR)
        process.kill()
        process.wait(WITHIN_S)
        assert [p.offset for p in consumer.committed([TopicPartition(TOPIC, 0)], timeout=WITHIN_S)] == [7]
    finally:
        consumer.close()


def test_offsets_of_a_deleted_topic_are_forgotten(broker: PlainBroker) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic("short-lived", 1, 1)])["short-lived"].result(WITHIN_S)

    async def story() -> None:
        d = Dialogue(lambda: _connect(broker))
        kept = await _retried(lambda: d.describe("describe", "a"))
        assert kept.groups[0].group_state == "Dead"
        committed = await d.commit("commit", "a", "", -1, topic="short-lived")
        assert committed.topics[0].partitions[0].error_code.value == NONE
        await asyncio.to_thread(lambda: admin.delete_topics(["short-lived"])["short-lived"].result(WITHIN_S))
        await d.until("Dead")
        refused = await d.commit("commit", "a", "", -1, topic="short-lived")
        assert refused.topics[0].partitions[0].error_code.value == 3

    asyncio.run(story())


def test_groups_go_on_from_their_commits_after_a_restart(broker: PlainBroker) -> None:
    async def before() -> str:
        d = Dialogue(lambda: _connect(broker))
        await d.commit("commit", "a", "", -1, 97)
        return d.group

    async def after(group: str) -> None:
        await _wait_for_coordinators(broker)
        d = Dialogue(lambda: _connect(broker))
        fetched = await _retried(lambda: d.fetch("fetch", "a", 0, group=group))
        assert fetched.groups[0].topics[0].partitions[0].committed_offset == 97

    group = asyncio.run(before())
    broker.kill()
    broker.start()
    broker.wait_serving(WITHIN_S)
    asyncio.run(after(group))
