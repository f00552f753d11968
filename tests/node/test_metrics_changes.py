"""Counts of elections and ISR changes in a real ZooKeeper: deletions, and controllers that end half-way, lose none."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace

import pytest
from kazoo.client import KazooClient

from raykafka.cluster.changes import Changes
from raykafka.controller.rules.elections import BrokerLife, first_state
from raykafka.types import TopicPartition
from raykafka.zookeeper import broker_store as store
from raykafka.zookeeper import controller_election, controller_store
from raykafka.zookeeper.controller_store import ControllerFenced, ControllerStore
from raykafka.zookeeper.znodes import ControllerNode, TopicNode
from tests.node.controller_parts import random_id

LIVES = {b: BrokerLife(1, 1, 1) for b in (0, 1)}
PARTITIONS = 5


@pytest.fixture
def client(zookeeper: str) -> Iterator[KazooClient]:
    session = store.connect(f"{zookeeper}/changes-{secrets.token_hex(4)}")
    yield session
    store.close(session)


def next_controller(client: KazooClient, name: str) -> ControllerStore:
    node, _ = controller_election.read_controller(client)
    if node is not None:
        client.delete("/controller")
    claim = controller_election.claim_controller(client, ControllerNode(0, "127.0.0.1", 1, name))
    assert claim is not None
    return ControllerStore(client, claim)


def totals(controller: ControllerStore) -> Changes:
    """What an active controller that begins now would export."""
    metadata = controller.load()
    total = metadata.deleted_changes
    for record in (*metadata.topics.values(), *metadata.deleting.values()):
        for state in record.states.values():
            total = total.plus(state.changes)
    return total


def change_all(controller: ControllerStore, topic: str) -> None:
    """An election that shrinks the ISR and then an ISR that expands, in every partition."""
    states = {TopicPartition(topic, p): s for p, s in controller.load().topics[topic].states.items()}
    elected = {tp: replace(s, leader=1, leader_epoch=1, isr=(1,), isr_epochs=(1,)) for tp, s in states.items()}
    for tp, state in controller.write_states(elected).items():
        assert controller.write_isrs({tp: replace(state, isr=(1, 0), isr_epochs=(9, 9))}) is None  # other lives
        assert controller.write_isrs({tp: replace(state, isr=(1, 0), isr_epochs=(0, 0))})


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_deletion_that_is_cut_short_loses_no_count(
    client: KazooClient, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """Another controller is elected before the ``cut``-th write of it."""
    monkeypatch.setattr(controller_store, "_OPERATIONS_AT_ONCE", 4)
    first = next_controller(client, "first")
    for topic in ("doomed", "state"):  # the second's path ends as those of states do
        node = TopicNode(random_id(), {p: (0, 1) for p in range(PARTITIONS)}, {}, {})
        first.create_topic(topic, node, {}, {p: first_state((0, 1), LIVES, 1) for p in range(PARTITIONS)})
    for broker in LIVES:
        client.create(f"/brokers/epochs/{broker}", b"")
    change_all(first, "doomed")
    change_all(first, "state")
    one = Changes(PARTITIONS, 0, PARTITIONS, PARTITIONS)
    assert totals(first) == one.plus(one)

    first.mark_deleting("doomed")
    writes = 0
    write = ControllerStore._write

    def cut_short(controller: ControllerStore, operations: list) -> None:
        nonlocal writes
        writes += 1
        if writes == cut:
            next_controller(client, "second")
        write(controller, operations)

    monkeypatch.setattr(ControllerStore, "_write", cut_short)
    with pytest.raises(ControllerFenced):
        first.finish_deleting("doomed")
    monkeypatch.undo()
    third = next_controller(client, "third")
    assert totals(third) == one.plus(one)
    assert third.finish_deleting("doomed") == one
    assert totals(third) == one.plus(one)
    third.mark_deleting("state")
    assert third.finish_deleting("state") == one.plus(one) == totals(third)
