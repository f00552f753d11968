"""A cluster over three hosts, started as docs/deploy.md says, while hosts and links fail and a client goes on.

`ray up` and `raykafka deploy` run from a fourth host, and the client is there too, on the OUTSIDE listener. One cluster
and one stream of flights serve all tests of this file; they run in order, and the last one counts what arrived.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from raykafka import types
from tests.lab.hosts.cluster import Cluster, started, until_answered
from tests.lab.hosts.netlab import Host
from tests.lab.hosts.power_cut import cut_logs

PARTITIONS = 3
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with started() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def flights(cluster: Cluster) -> Iterator[subprocess.Popen[bytes]]:
    """The client on the fourth host, once records go out and come in."""
    cluster.create("flights", PARTITIONS)
    folder = cluster.lab.folder
    words = [sys.executable, "-m", "tests.lab.hosts.flights", cluster.outside, "flights", str(folder)]
    with (folder / "flights.log").open("wb") as log:
        client = subprocess.Popen(cluster.office.command(words, cluster.environment), stdout=log, stderr=log)
    try:
        until_answered(
            lambda: (p := _progress(cluster)).get("read") and len(p["acked"]) == PARTITIONS, "flights are read"
        )
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

    until_answered(all_acked, f"records of all partitions are acknowledged {what}")
    until_answered(lambda: _progress(cluster)["read"] > sum(before.values()), f"records are read {what}")


def test_each_host_has_a_broker_and_a_zookeeper_server(cluster: Cluster) -> None:
    status = until_answered(lambda: (s := cluster.status(cluster.hosts[2]))["problems"] == [] and s, "nothing is amiss")
    for role in ("broker", "zookeeper"):
        nodes = [row["node"] for row in status["actors"] if row["role"] == role]
        assert nodes == [host.address for host in cluster.hosts]
    for host in cluster.hosts:
        assert oct((host.srv / "raykafka/secret").stat().st_mode)[-3:] == "600"
        assert any("QuorumPeerMain" in line for line in host.processes())
    secrets = {(host.srv / "raykafka/secret").read_text() for host in cluster.hosts}
    assert len(secrets) == 1


def test_zookeeper_servers_killed_in_turn_and_all_together_are_a_wait(cluster: Cluster, flights: Any) -> None:
    before = _broker_processes(cluster)
    for hosts in (*([host] for host in cluster.hosts), cluster.hosts):
        names = ", ".join(cluster.described(host) for host in hosts)
        cluster.fault(f"kill -9 of the ZooKeeper servers of {names}")
        for host in hosts:
            host.run("pkill", "-KILL", "-f", "QuorumPeerMain")
        assert not cluster.zookeeper_in_step()
        _await_acks(cluster, "after a ZooKeeper server was killed")
        until_answered(cluster.zookeeper_in_step, "all ZooKeeper servers are in step")
        cluster.say("all ZooKeeper servers are in step")
    cluster.create("after-zookeepers-restart", 1)
    assert _broker_processes(cluster) == before


def _broker_processes(cluster: Cluster) -> list[tuple[str, int, int]]:
    """Node, pid and restarts of each broker."""
    rows = cluster.status(cluster.hosts[0])["actors"]
    return sorted((row["node"], row["pid"], row["restarts"] or 0) for row in rows if row["role"] == "broker")


def test_a_cut_off_leader_acknowledges_nothing_that_is_lost(cluster: Cluster, flights: Any) -> None:
    cluster.create("island", 1)
    partition = 0
    leader = cluster.leader("island", partition)
    host = cluster.host_of(leader)
    folder = host.folder
    address = f"{host.address}:9192"
    words = [sys.executable, "-m", "tests.lab.hosts.islander", address, "island", str(partition), str(folder)]
    islander = subprocess.Popen(host.command(words, cluster.environment))
    until_answered(
        lambda: any(a["acks"] == -1 and _acknowledged(a) for a in _answers(folder)), "acks=all is acknowledged"
    )
    cut = cluster.fault(f"{cluster.described(host)} is cut off")
    host.cut()
    until_answered(lambda: cluster.leader("island", partition) not in (leader, -1), "another leader")
    cluster.say(f"{host.name} is no leader any more {time.time() - cut:.1f} s after the cut")
    _await_acks(cluster, "while a host is cut off")
    # The lease runs out one session time-out after the last answer of ZooKeeper, which may be late by a second.
    until_answered(lambda: time.time() > cut + cluster.session_s + 3.0, "the lease has run out")
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
    cluster.fault(f"what {cluster.described(other)} sends to {leader.name} is lost")
    other.lose_to(leader)
    _await_acks(cluster, "while a follower's acknowledgements are lost")
    other.lose_nothing_to(leader)
    cluster.say(f"{other.name} reaches {leader.name} again")
    _await_acks(cluster, "after the loss")
    cluster.await_in_sync("the loss ended")


def test_a_host_without_power_comes_back_with_its_broker_and_what_its_disk_had(cluster: Cluster, flights: Any) -> None:
    host = _busiest_worker(cluster)
    broker_id = cluster.broker_of(host)
    mark = (host.srv / "raykafka/mark").read_text()
    off = cluster.fault(f"{cluster.described(host)} loses power")
    host.power_off()
    until_answered(lambda: broker_id not in {cluster.leader("flights", p) for p in range(PARTITIONS)}, "others lead")
    cluster.say(f"others lead {time.time() - off:.1f} s after the power cut")
    _await_acks(cluster, "while a host is down")
    seed = random.randrange(1 << 32)
    cut = cut_logs(cluster.data(host), _partitions_on(cluster.data(host)), random.Random(seed))
    lost = {f"{tp.topic}-{tp.partition}": f"{c.lost_bytes} of {c.unflushed_bytes}" for tp, c in cut.items()}
    cluster.say(f"bytes that did not get to the disk (seed {seed}): {lost}")
    assert sum(c.lost_bytes for c in cut.values()) > 0
    host.power_on()
    cluster.say(f"{host.name} has power again")
    cluster.await_in_sync("the power came back", 240.0)
    assert cluster.broker_of(host) == broker_id
    assert (host.srv / "raykafka/mark").read_text() == mark
    until_answered(lambda: cluster.status(cluster.hosts[0])["problems"] == [], "nothing is amiss", within_s=120.0)


def _busiest_worker(cluster: Cluster) -> Host:
    """Of the hosts beside the head of the Ray cluster that with most to be taken over: the controller, ZooKeeper's
    leader, leaders of partitions."""
    leaders = [cluster.leader("flights", partition) for partition in range(PARTITIONS)]

    def burden(host: Host) -> tuple[int, int]:
        return len(cluster.roles(host)), leaders.count(cluster.broker_of(host))

    return max(cluster.hosts[1:], key=burden)


def _partitions_on(data: Path) -> list[types.TopicPartition]:
    names = (path.parent.name for path in data.glob("*-*/partition.metadata"))
    return [types.TopicPartition(name.rpartition("-")[0], int(name.rpartition("-")[2])) for name in names]


def test_every_flight_arrived_once(cluster: Cluster, flights: subprocess.Popen[bytes]) -> None:
    (cluster.lab.folder / "hurry").touch()
    flights.wait(240)
    log = (cluster.lab.folder / "flights.log").read_text()
    result = json.loads((cluster.lab.folder / "result.json").read_text())
    for what, at in cluster.faults:
        until_next = min((b for _, b in cluster.faults if b > at), default=float("inf"))
        gaps = [till - since for since, till, _ in result["gaps"] if at < till <= until_next]
        cluster.say(f"{what}: acknowledgements stood still for {max(gaps, default=0):.1f} s at worst")
    cluster.say(f"{result['acked']} of {result['sent']} acknowledged, {result['read_again']} read again")
    assert result["error"] == "", log
    assert result["failed"] == {}
    assert result["acked"] == result["sent"] == result["distinct_offsets"] == result["read"] == 336_776
    assert result["carriers_read"] == result["carriers_sent"]
    assert result["out_of_order"] == 0
    print(log)


def test_all_hosts_hold_the_same_bytes(cluster: Cluster, flights: Any) -> None:
    cluster.await_in_sync("the last flight")
    for partition in range(PARTITIONS):
        logs = [sorted((cluster.data(host) / f"flights-{partition}").glob("*.log")) for host in cluster.hosts]
        assert logs[0]
        assert len({tuple((path.name, path.read_bytes()) for path in found) for found in logs}) == 1


def test_undeploy_leaves_no_process_on_any_host(cluster: Cluster) -> None:
    words = ("raykafka", "undeploy", "--delete-data", "-f", str(cluster.file))
    out = cluster.hosts[1].run(*words, environment=cluster.environment)
    assert "Cluster production is down" in out
    for host in cluster.hosts:
        assert not [line for line in host.processes() if "QuorumPeerMain" in line]
        assert not (host.srv / "raykafka").exists()
