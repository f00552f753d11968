"""``kill -9`` of every process, then ``ray start`` and the same deploy: nothing acknowledged is lost, groups go on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.lab.clusters.deployed import RaykafkaCluster
from tests.lab.clusters.under_test import TEST_BROKER_CONFIG
from tests.lab.waiting import until
from tests.node.workload import (
    AT_LEAST_ONCE,
    IDEMPOTENT,
    RETRIABLE,
    ProduceRun,
    check,
    check_once,
)

PARTITIONS = 3
GROUP = "survivors"
TIMEOUT_S = 600  # a whole cluster starts, twice, and a busy machine takes its time
BROKERS = 3
OF_A_BROKER = ("replica", "coordinator", "controller", "broker")
ROLES = (*OF_A_BROKER, "zookeeper", "supervisor")


@pytest.fixture
def cluster() -> Iterator[RaykafkaCluster]:
    with RaykafkaCluster(brokers=BROKERS, config=TEST_BROKER_CONFIG) as deployed:
        yield deployed


def create_topics(bootstrap: str, *names: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        future.result(30)


def group_consumer(bootstrap: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": GROUP,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
        }
    )


def consume_and_commit(bootstrap: str, topic: str, count: int) -> dict[int, int]:
    """Take ``count`` records or more in the group and commit; the committed offset of each partition."""
    consumer = group_consumer(bootstrap)
    try:
        consumer.subscribe([topic])
        positions: dict[int, int] = {}
        taken = 0

        def enough() -> bool:
            nonlocal taken
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                taken += 1
                positions[message.partition()] = message.offset() + 1
            return taken >= count

        until(enough, lambda: f"{taken} of {count} records consumed in a group")
        offsets = [TopicPartition(topic, partition, offset) for partition, offset in positions.items()]
        committed = consumer.commit(offsets=offsets, asynchronous=False)
        assert all(partition.error is None for partition in committed)
        return positions
    finally:
        consumer.close()


def check_group_goes_on(bootstrap: str, topic: str, committed: dict[int, int]) -> None:
    """The group's commits are as they were, and a member's first record of each partition is the one at its commit."""
    consumer = group_consumer(bootstrap)
    try:
        found: dict[int, int] = {}

        def answered() -> bool:
            try:
                asked = consumer.committed([TopicPartition(topic, partition) for partition in committed], timeout=60)
            except KafkaException as error:  # librdkafka leaves it to us to ask again where the coordinator has moved
                assert error.args[0].code() in RETRIABLE, error
                return False
            found.update((partition.partition, partition.offset) for partition in asked)
            return True

        until(answered, "the coordinator tells what was committed")
        assert found == committed
        consumer.subscribe([topic])
        first: dict[int, int] = {}

        def seen_all() -> bool:
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                first.setdefault(message.partition(), message.offset())
            return first.keys() >= committed.keys()

        until(seen_all, lambda: f"first records after the restart: {first}, commits: {committed}")
        assert {partition: first[partition] for partition in committed} == committed
    finally:
        consumer.close()


def ray_start(cluster: RaykafkaCluster) -> None:
    ray = cluster.settings["ray"]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={ray['port']}"]
    command += [f"--temp-dir={ray['temp_dir']}", "--include-dashboard=false", "--disable-usage-stats"]
    command += ["--dashboard-agent-listen-port=0", "--object-store-memory=104857600"]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def survive_kill_of_everything(cluster: RaykafkaCluster) -> None:
    bootstrap = cluster.bootstrap
    create_topics(bootstrap, "leader-acks", "idempotent")
    with (
        ProduceRun(bootstrap, "leader-acks", PARTITIONS, AT_LEAST_ONCE) as leader_acks,
        ProduceRun(bootstrap, "idempotent", PARTITIONS, IDEMPOTENT) as idempotent,
    ):
        for run in (leader_acks, idempotent):
            run.wait_for_more(100)
        committed = consume_and_commit(bootstrap, "idempotent", 100)
        before = [run.count() for run in (leader_acks, idempotent)]
        assert cluster.kill_everything() > BROKERS * len(OF_A_BROKER)
        assert cluster.processes() == []
        ray_start(cluster)
        cluster.deploy()
        for run, count in zip((leader_acks, idempotent), before, strict=True):
            assert run.count() >= count
            run.wait_for_more(100)
            run.finish()
    check(bootstrap, leader_acks, in_order=False)
    check_once(bootstrap, idempotent)
    check_group_goes_on(bootstrap, "idempotent", committed)


@pytest.mark.timeout(TIMEOUT_S)
def test_acknowledged_records_and_commits_survive_kill_9_of_every_process(cluster: RaykafkaCluster) -> None:
    survive_kill_of_everything(cluster)


def pids_of(cluster: RaykafkaCluster, role: str) -> list[int]:
    actors = [actor for actor in cluster.status()["actors"] if actor["role"] == role]
    assert actors, f"status shows no {role}"
    pids = [actor["pid"] for actor in actors]
    if role == "zookeeper":  # the actor runs the server as a process of its own
        pids = [process.pid for process in cluster.processes() if process.name() == "java"]
    return pids


@pytest.mark.long
@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("role", ROLES)
def test_the_cluster_heals_by_itself_when_a_role_is_killed(cluster: RaykafkaCluster, role: str) -> None:
    """Each process of one role is killed, one after the other, while producers run; nobody repairs anything."""
    bootstrap = cluster.bootstrap
    create_topics(bootstrap, "idempotent")
    with ProduceRun(bootstrap, "idempotent", PARTITIONS, IDEMPOTENT) as run:
        run.wait_for_more(100)
        committed = consume_and_commit(bootstrap, "idempotent", 100)
        for pid in pids_of(cluster, role)[:3]:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()
            run.wait_for_more(100)
        run.finish()
    check_once(bootstrap, run)
    check_group_goes_on(bootstrap, "idempotent", committed)
