"""A raykafka cluster over three simulated hosts, started as docs/deploy.md says: `ray up` and `raykafka deploy` from a
fourth host, the office."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from confluent_kafka.admin import AdminClient, NewTopic

from raykafka.deploy.zookeeper_process import ask
from tests.integration.wire import METADATA, WireConnection, request_module
from tests.multihost.netlab import Host, Lab

_T = TypeVar("_T")
_REPOSITORY = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_ZOOKEEPER_PORT = 2181


@dataclass
class Cluster:
    """The lab, and the cluster on its first three hosts; ``office`` is the fourth."""

    lab: Lab
    began: float = field(default_factory=time.time)
    faults: list[tuple[str, float]] = field(default_factory=list)

    @property
    def hosts(self) -> list[Host]:
        return self.lab.hosts[:3]

    @property
    def office(self) -> Host:
        return self.lab.hosts[3]

    @property
    def outside(self) -> str:
        return ",".join(f"{host.address}:9192" for host in self.hosts)

    @property
    def production(self) -> Path:
        return self.lab.folder / "production.yaml"

    @property
    def session_s(self) -> float:
        return yaml.safe_load(self.production.read_text())["zookeeper"]["session_timeout_ms"] / 1000

    @property
    def environment(self) -> dict[str, str]:
        path = f"{_BIN}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "PYTHONPATH": str(_REPOSITORY), "RAY_USAGE_STATS_ENABLED": "0"}

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

    def await_in_sync(self, what: str, within_s: float = 150.0) -> None:
        """Wait until every broker knows three replicas in sync of every partition, all name the same leaders, and all
        ZooKeeper servers are in step."""
        began = time.time()

        def whole() -> bool:
            views = [_partitions(host) for host in self.hosts]
            in_sync = all(isr == 3 and leader >= 0 for leader, _, isr in views[0].values())
            return in_sync and views[0] == views[1] == views[2] and self.zookeeper_in_step()

        until(f"all replicas are in sync after {what}", whole, within_s)
        self.say(f"in sync again {time.time() - began:.1f} s after {what}")

    def zookeeper_in_step(self) -> bool:
        """Whether every ZooKeeper server leads or follows."""
        return all("Mode: " in ask(host.address, _ZOOKEEPER_PORT) for host in self.hosts)

    def status(self, host: Host) -> dict[str, Any]:
        words = ("raykafka", "status", "--json", "-f", str(self.production))
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


@contextmanager
def started() -> Iterator[Cluster]:
    """A deployed cluster, until the context ends."""
    with Lab(4, visible=[_REPOSITORY, Path(sys.prefix)]) as lab:
        cluster = Cluster(lab)
        try:
            _fill_in(lab)
            office = cluster.office
            up = ("ray", "up", "-y", "--no-config-cache", str(lab.folder / "cluster.yaml"))
            office.run("ray", "get-auth-token", "--generate", environment=cluster.environment)
            office.run(*up, environment=cluster.environment, within_s=150)
            cluster.say("ray up returned")
            deploy = f"raykafka deploy -f {cluster.production}"
            out = office.run("ray", "exec", up[-1], deploy, environment=cluster.environment, within_s=200)
            cluster.say("deployed:\n" + out[out.find("Ray runs") - 10 :])
            yield cluster
        finally:
            _keep_logs(lab)


def _fill_in(lab: Lab) -> None:
    """The files of configs/ with this lab's addresses, and less memory: three hosts share one small machine."""
    cluster = yaml.safe_load((_REPOSITORY / "configs/cluster.yaml").read_text())
    addresses = [host.address for host in lab.hosts[:3]]
    cluster["provider"] |= {"head_ip": addresses[0], "worker_ips": addresses[1:]}
    # The hosts see this machine's files and have no way to a package index: there is nothing to install.
    cluster["file_mounts"].pop("~/raykafka")
    profile = f"export RAY_AUTH_MODE=token PYTHONPATH={_REPOSITORY} PATH={_BIN}:$PATH"
    cluster["setup_commands"] = [f"grep -q RAY_AUTH_MODE ~/.bashrc || echo '{profile}' >> ~/.bashrc"]
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        cluster[key] = [command.replace("ray start ", "ray start --num-cpus=1 ") for command in cluster[key]]
    (lab.folder / "cluster.yaml").write_text(yaml.safe_dump(cluster, width=10_000))
    production = yaml.safe_load((_REPOSITORY / "configs/production.yaml").read_text())
    production["zookeeper"]["managed"]["heap_mb"] = 128
    production["brokers"] |= {"memory_mb": 256, "spare_replicas": 1}
    # Few partitions: Ray starts one process at a time on a host with one CPU, and a host that comes back starts all.
    production["brokers"]["config"] |= {"group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 2}
    (lab.folder / "production.yaml").write_text(yaml.safe_dump(production))


def _keep_logs(lab: Lab) -> None:
    """Where RAYKAFKA_TEST_LOGS says so, what the hosts logged outlives the lab."""
    target = os.environ.get("RAYKAFKA_TEST_LOGS")
    for file in lab.folder.glob("*.*") if target else ():
        Path(target or "").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target or "")
    for host in lab.hosts[:3] if target else ():
        sessions = [(session.name, session / "logs") for session in host.tmp.glob("ray/session_2*")]
        for name, folder in [*sessions, ("srv", host.srv)]:
            to = Path(target or "") / host.name / name
            shutil.copytree(folder, to, dirs_exist_ok=True, symlinks=True, ignore=_sockets)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_socket()]
