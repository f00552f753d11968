"""A raykafka cluster over three simulated hosts, started as docs/deploy.md says: `ray up` and `raykafka deploy` from a
fourth host, the office."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

from raykafka.deploy.zookeeper_process import ask
from tests.lab import REPOSITORY
from tests.lab.clusters.actors import AUTO, Actors
from tests.lab.hosts.netlab import Host, Lab
from tests.lab.hosts.production import NODES, Production
from tests.lab.waiting import until
from tests.lab.wire import WireConnection, metadata_request

IN_SYNC_WITHIN_S = 150.0
_ZOOKEEPER_PORT = 2181
# while hosts are away, what asks them may fail in any way
until_answered = partial(until, within_s=60.0, despite=(Exception,))


class Cluster(Production):
    """The cluster, what was done to it, and when."""

    def __init__(self, lab: Lab, actors: Actors = AUTO) -> None:
        super().__init__(lab, actors=actors)
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

    def data(self, host: Host) -> Path:
        """The data directory of the broker on that host."""
        (found,) = (host.srv / "raykafka").glob("broker-*")
        return found

    def roles(self, host: Host) -> list[str]:
        """What the host has beside its broker: the active controller, ZooKeeper's leader."""
        found = []
        if self.admin().list_topics(timeout=10).controller_id == self.broker_of(host):
            found.append("the controller")
        if "Mode: leader" in ask(host.address, _ZOOKEEPER_PORT):
            found.append("ZooKeeper's leader")
        return found

    def described(self, host: Host) -> str:
        """Its name, and its roles."""
        return f"{host.name} ({', '.join(self.roles(host)) or 'a follower'})"

    def leader(self, topic: str, partition: int) -> int:
        return self.admin().list_topics(topic, timeout=10).topics[topic].partitions[partition].leader

    def create(self, topic: str, partitions: int) -> None:
        admin = self.admin()
        admin.create_topics([NewTopic(topic, partitions, 3)])[topic].result(30)

    def await_in_sync(self, what: str, within_s: float = IN_SYNC_WITHIN_S) -> None:
        """Wait until every broker knows three replicas in sync of every partition, all name the same leaders, and all
        ZooKeeper servers are in step."""
        began = time.time()

        def whole() -> bool:
            views = [_partitions(host) for host in self.hosts]
            in_sync = all(isr == 3 and leader >= 0 for leader, _, isr in views[0].values())
            return in_sync and views[0] == views[1] == views[2] and self.zookeeper_in_step()

        until_answered(whole, f"all replicas are in sync after {what}", within_s=within_s)
        self.say(f"in sync again {time.time() - began:.1f} s after {what}")

    def zookeeper_in_step(self) -> bool:
        """Whether every ZooKeeper server leads or follows."""
        return all("Mode: " in ask(host.address, _ZOOKEEPER_PORT) for host in self.hosts)

    def status(self, host: Host) -> dict[str, Any]:
        words = ("raykafka", "status", "--json", "-f", str(self.file))
        text = host.run(*words, environment=self.environment, check=False)
        return json.loads(text) if text.startswith("{") else {"problems": [text], "actors": []}


def _partitions(host: Host) -> dict[tuple[str, int], tuple[int, int, int]]:
    """Leader, its epoch, and how many are in sync, of every partition, as this host's broker knows it."""
    with WireConnection(f"{host.address}:9192", timeout_s=5.0) as wire:
        answer = wire.call(metadata_request(None))
    return {
        (topic.name, p.partition_index): (p.leader_id, p.leader_epoch, len(p.isr_nodes))
        for topic in answer.topics
        for p in topic.partitions
    }


@contextmanager
def started(actors: Actors = AUTO) -> Iterator[Cluster]:
    """A deployed cluster, until the context ends. Where RAYKAFKA_TEST_LOGS names a folder, what the hosts logged
    outlives the lab."""
    with Lab(NODES + 1, visible=[REPOSITORY, Path(sys.prefix)]) as lab:
        cluster = Cluster(lab, actors)
        try:
            cluster.up()
            cluster.say("ray up returned")
            out = cluster.deploy()
            cluster.say("deployed:\n" + out[out.find("Ray runs") - 10 :])
            yield cluster
        finally:
            if logs := os.environ.get("RAYKAFKA_TEST_LOGS"):
                cluster.keep_logs(Path(logs))
