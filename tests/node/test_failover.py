"""Whoever is killed or stands still is replaced, and what was acknowledged is there: three brokers without Ray, and a
ZooKeeper of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from confluent_kafka import Consumer, KafkaException

from raykafka.broker.life import LOST_EXIT_CODE
from raykafka.cluster.coordinator_partition import partition_for
from raykafka.deploy.zookeeper_process import ZooKeeperProcess
from raykafka.types import OFFSETS_TOPIC
from tests.lab.clusters.plain_broker import SESSION_MS, PlainBroker
from tests.lab.clusters.replicated import (
    BROKERS,
    WITHIN_S,
    Load,
    admin,
    bootstrap,
    check,
    controller,
    create,
    leader_and_follower,
    running_brokers,
    wait_in_sync,
)
from tests.lab.free_ports import free_port
from tests.lab.waiting import until
from tests.node.workload import RETRIABLE

pytestmark = pytest.mark.timeout(400)
KILLED = -9
LONGER_THAN_A_SESSION_S = 8.0


@pytest.fixture(scope="module")
def own_zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperProcess]:
    server = ZooKeeperProcess(tmp_path_factory.mktemp("zookeeper"), free_port())
    server.start()
    try:
        server.wait_ready(60)
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory, own_zookeeper: ZooKeeperProcess) -> Iterator[list[PlainBroker]]:
    """For all tests here: each leaves all of them running."""
    with running_brokers(tmp_path_factory.mktemp("brokers"), own_zookeeper.hosts, session_ms=SESSION_MS) as made:
        yield made


def has_controller(broker: PlainBroker, zookeeper: ZooKeeperProcess) -> bool:
    """Whether its controller is up: a process that has a ZooKeeper session."""
    try:
        found = [c for process in broker.children("controller") for c in process.net_connections("tcp")]
    except psutil.NoSuchProcess:
        return False
    return any(c.status == psutil.CONN_ESTABLISHED and c.raddr.port == zookeeper.client_port for c in found)


def start_again(brokers: list[PlainBroker], broker: PlainBroker) -> None:
    """What Ray and the Supervisor do."""
    broker.start()
    broker.wait_serving(WITHIN_S)
    until(lambda: len(admin(brokers).list_topics(timeout=10).brokers) == BROKERS, "all brokers are known again")


class Member:
    """A consumer in a group that reads and commits until told to stop."""

    def __init__(self, brokers: list[PlainBroker], topic: str, group: str) -> None:
        self.read: dict[int, int] = {}
        self.commits = 0
        self.refused: list[str] = []
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap(brokers),
                "log_level": 0,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": 30_000,
                "reconnect.backoff.max.ms": 200,
            }
        )
        self._consumer.subscribe([topic])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(0.05)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                if error.code() not in RETRIABLE:
                    self.refused.append(str(error))
                continue
            self.read[message.offset() or 0] = int(message.value() or b"")
            self._commit()
        self._consumer.close()

    def _commit(self) -> None:
        try:
            self._consumer.commit(asynchronous=False)
            self.commits += 1
        except KafkaException as raised:
            if raised.args[0].code() not in RETRIABLE:
                self.refused.append(str(raised))

    def wait_more(self, commits: int = 20) -> None:
        target = self.commits + commits
        until(lambda: self.commits >= target, f"{commits} more commits")

    def stop(self) -> dict[int, int]:
        self._stop.set()
        self._thread.join(WITHIN_S)
        assert self.refused == []
        return self.read


def coordinator(brokers: list[PlainBroker], group: str) -> PlainBroker:
    states = admin(brokers).list_topics(OFFSETS_TOPIC, timeout=10).topics[OFFSETS_TOPIC].partitions
    return brokers[states[partition_for(group, len(states))].leader]


def test_a_killed_leader_that_is_controller_and_coordinator_too_is_replaced(brokers: list[PlainBroker]) -> None:
    create(brokers, "kills", min_insync_replicas="2")
    load, member = Load(brokers, "kills"), Member(brokers, "kills", "readers")
    load.wait_more()
    member.wait_more()
    for find in (
        lambda: controller(brokers),
        lambda: coordinator(brokers, "readers"),
        lambda: leader_and_follower(brokers, "kills")[0],
    ):
        victim = find()
        others = [broker for broker in brokers if broker is not victim]
        victim.kill()
        load.wait_more()
        member.wait_more()
        assert controller(others) in others
        start_again(brokers, victim)
        wait_in_sync(brokers, "kills", BROKERS)
    acked, read = load.stop(), member.stop()
    check(brokers, "kills", acked)
    assert list(read.values()) == sorted(set(read.values()))
    assert set(read) == set(range(len(read))), "no offset was left out"


def test_a_replica_actor_that_stands_still_is_replaced(brokers: list[PlainBroker]) -> None:
    create(brokers, "still", min_insync_replicas="2")
    load = Load(brokers, "still")
    load.wait_more()
    leader, follower = leader_and_follower(brokers, "still")
    stopped = [leader.actor_of("still"), follower.actor_of("still")]
    for process in stopped:
        process.suspend()
        load.wait_more(1000)
        until(lambda process=process: not process.is_running(), "the stopped process was killed")
        wait_in_sync(brokers, "still", BROKERS)
    check(brokers, "still", load.stop())


def test_a_controller_that_stands_still_is_succeeded(brokers: list[PlainBroker]) -> None:
    before = controller(brokers)
    (process,) = before.children("controller")
    process.suspend()
    until(lambda: not process.is_running(), "the stopped process was killed")
    until(lambda: controller(brokers) is not before, "another controller is active")
    create(brokers, "decided")
    until(lambda: before.children("controller"), "the broker has a controller again")


def test_a_broker_that_stands_still_is_deposed_and_ended(
    brokers: list[PlainBroker], own_zookeeper: ZooKeeperProcess
) -> None:
    """Its own controller kills it; where that stands still as well, it exits by itself once it goes on."""
    create(brokers, "stopped", min_insync_replicas="2")
    load = Load(brokers, "stopped")
    load.wait_more()
    for with_children in (False, True):
        leader, _ = leader_and_follower(brokers, "stopped")
        others = [broker for broker in brokers if broker is not leader]
        until(lambda leader=leader: has_controller(leader, own_zookeeper), "its controller is up")
        broker = psutil.Process(leader.process.pid)
        children = leader.children() if with_children else []
        for process in (broker, *children):
            process.suspend()
        until(lambda others=others, leader=leader: _is_gone(others, leader), "the others do without it")
        if with_children:
            assert leader.process.poll() is None
            for process in (broker, *children):
                process.resume()
        assert leader.wait_ended(WITHIN_S) == (LOST_EXIT_CODE if with_children else KILLED)
        load.wait_more()
        start_again(brokers, leader)
        wait_in_sync(brokers, "stopped", BROKERS)
    check(brokers, "stopped", load.stop())


def _is_gone(others: list[PlainBroker], broker: PlainBroker) -> bool:
    return broker.settings.broker_id not in admin(others).list_topics(timeout=10).brokers


def test_an_outage_of_zookeeper_is_a_wait(brokers: list[PlainBroker], own_zookeeper: ZooKeeperProcess) -> None:
    create(brokers, "outage", min_insync_replicas="2")
    load = Load(brokers, "outage")
    load.wait_more()
    before = [broker.process.pid for broker in brokers]
    for outage_s in (LONGER_THAN_A_SESSION_S, 0.0):
        own_zookeeper.kill()
        over_at = time.monotonic() + outage_s
        while time.monotonic() < over_at:
            load.wait_more()
        own_zookeeper.start()
        own_zookeeper.wait_ready(60)
        load.wait_more()
    create(brokers, "after-outage")
    assert [broker.process.pid for broker in brokers] == before
    assert all(broker.process.poll() is None for broker in brokers)
    check(brokers, "outage", load.stop())
