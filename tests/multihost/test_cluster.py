"""A cluster over three hosts, started as docs/deploy.md says, while hosts and links fail and a client goes on.

`ray up` and `raykafka deploy` run from a fourth host, and the client is there too, on the OUTSIDE listener. One cluster
and one stream of flights serve all tests of this file; they run in order, and the last one counts what arrived.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.integration.wire import METADATA, WireConnection, request_module
from tests.multihost.netlab import Host, Lab
from tests.multihost.production import REPOSITORY, Production

_T = TypeVar("_T")
PARTITIONS = 3
pytestmark = [pytest.mark.timeout(300), pytest.mark.long]


class Cluster(Production):
    """The cluster, what was done to it, and when."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.began = time.time()
        self.faults: list[tuple[str, float]] = []

    def say(self, what: str) -> None:
        print(f"{time.time() - self.began:6.1f} s  {what}", flush=True)

    def fault(self, what: str) -> float:
        self.say(what)
        self.faults.append((what, time.time()))
        return time.time()

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.outside, "socket.timeout.ms": 3000})

    def broker_of(self, host: Host) -> int:
        found = self.admin().list_topics(timeout=10).brokers.values()
        return next(broker.id for broker in found if broker.host == host.address)

    def host_of(self, broker_id: int) -> Host:
        broker = self.admin().list_topics(timeout=10).brokers[broker_id]
        return next(host for host in self.hosts if host.address == broker.host)

    def leader(self, topic: str, partition: int) -> int:
        return self.admin().list_topics(topic, timeout=10).topics[topic].partitions[partition].leader

    def create(self, topic: str, partitions: int) -> None:
        admin = self.admin()
        admin.create_topics([NewTopic(topic, partitions, 3)])[topic].result(30)

    def await_in_sync(self, what: str, within_s: float = 150.0) -> None:
        """Wait until every broker knows three replicas in sync of every partition, and all name the same leaders."""
        began = time.time()

        def whole() -> bool:
            views = [_partitions(host) for host in self.hosts]
            in_sync = all(isr == 3 and leader >= 0 for leader, _, isr in views[0].values())
            return in_sync and views[0] == views[1] == views[2]

        until(f"all replicas are in sync after {what}", whole, within_s)
        self.say(f"in sync again {time.time() - began:.1f} s after {what}")

    def status(self, host: Host) -> dict[str, Any]:
        words = ("raykafka", "status", "--json", "-f", str(self.file))
        text = host.run(*words, environment=self.environment, check=False)
        return json.loads(text) if text.startswith("{") else {"problems": [text], "actors": []}


def until(what: str, condition: Callable[[], _T | None], within_s: float = 60.0) -> _T:
    deadline, problem = time.monotonic() + within_s, ""
    while True:
        try:
            if answer := condition():
                return answer
        except Exception as error:  # hosts are away: what asks them may fail in any way
            problem = f" ({error})"
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}{problem}"
        time.sleep(0.2)


def _partitions(host: Host) -> dict[tuple[str, int], tuple[int, int, int]]:
    """Leader, its epoch, and how many are in sync, of every partition, as this host's broker knows it."""
    module = request_module(METADATA, 12)
    request = module.MetadataRequest(
        topics=None, allow_auto_topic_creation=False, include_topic_authorized_operations=False
    )
    with WireConnection(f"{host.address}:9192", timeout_s=5.0) as wire:
        answer = wire.call(request)
    return {
        (topic.name, p.partition_index): (p.leader_id, p.leader_epoch, len(p.isr_nodes))
        for topic in answer.topics
        for p in topic.partitions
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Where RAYKAFKA_TEST_LOGS names a folder, what the hosts logged outlives the lab."""
    with Lab(4, visible=[REPOSITORY, Path(sys.prefix)]) as lab:
        cluster = Cluster(lab)
        try:
            cluster.up()
            cluster.say("ray up returned")
            out = cluster.deploy()
            cluster.say("deployed:\n" + out[out.find("Ray runs") - 10 :])
            yield cluster
        finally:
            if logs := os.environ.get("RAYKAFKA_TEST_LOGS"):
                cluster.keep_logs(Path(logs))


@pytest.fixture(scope="module")
def flights(cluster: Cluster) -> Iterator[subprocess.Popen[bytes]]:
    """The client on the fourth host, once records go out and come in."""
    cluster.create("flights", PARTITIONS)
    folder = cluster.lab.folder
    words = [sys.executable, "-m", "tests.multihost.flights", cluster.outside, "flights", str(folder)]
    with (folder / "flights.log").open("wb") as log:
        client = subprocess.Popen(cluster.office.command(words, cluster.environment), stdout=log, stderr=log)
    try:
        until("flights are read", lambda: (p := _progress(cluster)).get("read") and len(p["acked"]) == PARTITIONS)
        yield client
    finally:
        client.kill()
        client.wait(30)


def _progress(cluster: Cluster) -> dict[str, Any]:
    path = cluster.lab.folder / "progress.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _await_acks(cluster: Cluster, what: str) -> None:
    """Wait until records of every partition that are sent from now on are acknowledged, and read."""
    before = _progress(cluster)["acked"]

    def all_acked() -> bool:
        now = _progress(cluster)["acked"]
        return all(now[partition] > before[partition] + 50 for partition in before)

    until(f"records of all partitions are acknowledged {what}", all_acked)
    until(f"records are read {what}", lambda: _progress(cluster)["read"] > sum(before.values()))


def test_each_host_has_a_broker_and_a_zookeeper_server(cluster: Cluster) -> None:
    status = until("nothing is amiss", lambda: (s := cluster.status(cluster.hosts[2]))["problems"] == [] and s)
    for role in ("broker", "zookeeper"):
        nodes = [row["node"] for row in status["actors"] if row["role"] == role]
        assert nodes == [host.address for host in cluster.hosts]
    for host in cluster.hosts:
        assert oct((host.srv / "raykafka/secret").stat().st_mode)[-3:] == "600"
        assert any("QuorumPeerMain" in line for line in host.processes())
    secrets = {(host.srv / "raykafka/secret").read_text() for host in cluster.hosts}
    assert len(secrets) == 1


def test_a_cut_off_leader_acknowledges_nothing_that_is_lost(cluster: Cluster, flights: Any) -> None:
    cluster.create("island", 1)
    partition = 0
    leader = cluster.leader("island", partition)
    host = cluster.host_of(leader)
    folder = host.folder
    address = f"{host.address}:9192"
    words = [sys.executable, "-m", "tests.multihost.islander", address, "island", str(partition), str(folder)]
    islander = subprocess.Popen(host.command(words, cluster.environment))
    until("acks=all is acknowledged", lambda: any(a["acks"] == -1 and _acknowledged(a) for a in _answers(folder)))
    cut = cluster.fault(f"{host.name} is cut off")
    host.cut()
    until("another leader", lambda: cluster.leader("island", partition) not in (leader, -1))
    cluster.say(f"{host.name} is no leader any more {time.time() - cut:.1f} s after the cut")
    _await_acks(cluster, "while a host is cut off")
    # The lease runs out one session time-out after the last answer of ZooKeeper, which may be late by a second.
    until("the lease has run out", lambda: time.time() > cut + cluster.session_s + 3.0)
    (folder / "enough").touch()
    islander.wait(20)
    host.heal()
    answers = _answers(folder)
    acked = [a for a in answers if a["acks"] == -1 and _acknowledged(a)]
    assert not [a for a in acked if a["sent"] > cut + 0.5]
    late = [a for a in answers if a["acks"] == 1 and a["sent"] > cut + cluster.session_s + 1.5]
    assert late
    assert not [a for a in late if _acknowledged(a)]
    cluster.await_in_sync("the link was healed")
    assert {(a["offset"], a["value"]) for a in acked} <= _records(cluster, "island", partition)


def _answers(folder: Path) -> list[dict[str, Any]]:
    """What the client on the cut-off host was answered so far."""
    path = folder / "answers"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _acknowledged(answer: dict[str, Any]) -> bool:
    return answer.get("error") == "none"


def _records(cluster: Cluster, topic: str, partition: int) -> set[tuple[int, str]]:
    consumer = Consumer({"bootstrap.servers": cluster.outside, "group.id": "checks", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, partition, 0)])
    found: set[tuple[int, str]] = set()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is not None:
            break
        found.add((message.offset(), message.value().decode()))
    consumer.close()
    return found


def test_loss_one_way_holds_nothing_up_for_good(cluster: Cluster, flights: Any) -> None:
    leader = cluster.host_of(cluster.leader("flights", 0))
    other = next(host for host in cluster.hosts if host is not leader)
    cluster.fault(f"what {other.name} sends to {leader.name} is lost")
    other.lose_to(leader)
    _await_acks(cluster, "while a follower's acknowledgements are lost")
    other.lose_nothing_to(leader)
    cluster.say(f"{other.name} reaches {leader.name} again")
    _await_acks(cluster, "after the loss")
    cluster.await_in_sync("the loss ended")


def test_a_host_without_power_comes_back_with_its_broker(cluster: Cluster, flights: Any) -> None:
    workers = [cluster.broker_of(host) for host in cluster.hosts[1:]]
    leaders = [cluster.leader("flights", partition) for partition in range(PARTITIONS)]
    host = cluster.host_of(next((leader for leader in leaders if leader in workers), workers[0]))
    broker_id = cluster.broker_of(host)
    mark = (host.srv / "raykafka/mark").read_text()
    off = cluster.fault(f"{host.name} loses power")
    host.power_off()
    until("others lead", lambda: broker_id not in {cluster.leader("flights", p) for p in range(PARTITIONS)})
    cluster.say(f"others lead {time.time() - off:.1f} s after the power cut")
    _await_acks(cluster, "while a host is down")
    host.power_on()
    cluster.say(f"{host.name} has power again")
    cluster.await_in_sync("the power came back", 240.0)
    assert cluster.broker_of(host) == broker_id
    assert (host.srv / "raykafka/mark").read_text() == mark
    until("nothing is amiss", lambda: cluster.status(cluster.hosts[0])["problems"] == [], 120.0)


def test_every_flight_arrived_once(cluster: Cluster, flights: subprocess.Popen[bytes]) -> None:
    (cluster.lab.folder / "hurry").touch()
    flights.wait(240)
    log = (cluster.lab.folder / "flights.log").read_text()
    result = json.loads((cluster.lab.folder / "result.json").read_text())
    for what, at in cluster.faults:
        later = [b for _, b in cluster.faults if b > at]
        end = min(later, default=float("inf"))
        gaps = [till - since for since, till, _ in result["gaps"] if till > at and since < end]
        cluster.say(f"{what}: acknowledgements stood still for {max(gaps, default=0):.1f} s at worst")
    cluster.say(f"{result['acked']} of {result['sent']} acknowledged, {result['read_again']} read again")
    assert result["error"] == "", log
    assert result["failed"] == {}
    assert result["acked"] == result["sent"] == result["distinct_offsets"] == result["read"] == 336_776
    assert result["carriers_read"] == result["carriers_sent"]
    assert result["out_of_order"] == 0
    print(log)


def test_undeploy_leaves_no_process_on_any_host(cluster: Cluster) -> None:
    words = ("raykafka", "undeploy", "--delete-data", "-f", str(cluster.file))
    out = cluster.hosts[1].run(*words, environment=cluster.environment)
    assert "Cluster production is down" in out
    for host in cluster.hosts:
        assert not [line for line in host.processes() if "QuorumPeerMain" in line]
        assert not (host.srv / "raykafka").exists()
