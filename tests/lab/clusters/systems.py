"""The clusters that faults are done to: deployed inside Ray, or the same brokers as plain processes (lighter)."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import psutil

from raykafka.deploy.zookeeper_process import ZooKeeperProcess
from tests.lab.clusters.actors import AUTO, Actors, here
from tests.lab.clusters.deployed import RaykafkaCluster
from tests.lab.clusters.plain_broker import PlainBroker
from tests.lab.free_ports import free_port
from tests.lab.processes import holder

BROKERS = 3
ACTOR, ZOOKEEPER, RAY = "replica actor", "zookeeper", "Ray's daemons"
CONFIG = {"group.initial.rebalance.delay.ms": "0", "offsets.topic.replication.factor": "3"}
# a worker that is still starting counts as one of Ray's
_TITLES = {
    "ray::BrokerActor": "broker",
    "controller of broker": "controller",
    "coordinator of broker": "coordinator",
    "raykafka::replicas": ACTOR,
    "ray::ReplicaActor": ACTOR,
    "ray::Supervisor": "supervisor",
    "ray::ZooKeeperServer": ZOOKEEPER,
    "java": ZOOKEEPER,
}
_LINE = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) (.*)")


class Cluster(Protocol):
    """Brokers that are measured, Kafka's or ours; ``name`` is what figures are shown under."""

    name: str

    @property
    def bootstrap(self) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class CountedCluster(Cluster, Protocol):
    """A cluster whose processes are counted and timed."""

    def pids(self) -> list[int]:
        """Every process of the cluster."""
        ...

    def roles(self) -> dict[int, str]:
        """What each process of the cluster is, by pid. It takes time: ask outside of what is measured."""
        ...


class Target(Cluster, Protocol):
    """A cluster that faults are done to, and whose logs are read then."""

    def logs(self) -> list[Path]: ...


class Restartable(Target, CountedCluster, Protocol):
    """A cluster whose brokers can be ended and started one by one."""

    def broker(self, broker: int) -> psutil.Process:
        """The process of a broker."""
        ...

    def heal(self, broker: int) -> None:
        """Have a killed broker run again, where nobody does it unasked."""
        ...

    def shut_down(self, broker: int) -> None:
        """Stop a broker in order; returns when it has stopped."""
        ...

    def bring_back(self, broker: int) -> None:
        """Start a broker that was shut down."""
        ...


class System(Restartable, Protocol):
    """A cluster whose processes can be killed one by one."""

    def data(self, broker: int) -> Path:
        """The data directory of a broker."""
        ...

    def controller(self, broker: int) -> psutil.Process:
        """The controller process of a broker."""
        ...

    def actor(self, broker: int, topic: str, partition: int) -> psutil.Process:
        """The replica actor that has a partition open. Raises as ``holder``."""
        ...


class Deployed:
    """``raykafka deploy``: a Ray, a ZooKeeper and brokers of its own."""

    name = "raykafka in Ray"

    def __init__(self, config: Mapping[str, str] = CONFIG, actors: Actors = AUTO) -> None:
        self._cluster = RaykafkaCluster(brokers=BROKERS, config=dict(config), actors=actors)

    @property
    def bootstrap(self) -> str:
        return self._cluster.bootstrap

    def start(self) -> None:
        self._cluster.deploy()

    def stop(self) -> None:
        self._cluster.take_down()

    def data(self, broker: int) -> Path:
        return self._cluster.data(broker)

    def broker(self, broker: int) -> psutil.Process:
        return holder(self.data(broker))

    def controller(self, broker: int) -> psutil.Process:
        title = f"controller of broker {broker}"
        if (found := self._cluster.titled(title)) is None:
            raise LookupError(f"no process is the {title}")
        return found

    def actor(self, broker: int, topic: str, partition: int) -> psutil.Process:
        return holder(self.data(broker) / f"{topic}-{partition}")

    def heal(self, broker: int) -> None:
        """Ray restarts it."""

    def shut_down(self, broker: int) -> None:
        self._cluster.shut_down(broker)

    def bring_back(self, broker: int) -> None:
        self._cluster.bring_back(broker)

    def logs(self) -> list[Path]:
        return self._cluster.logs()

    def pids(self) -> list[int]:
        return [process.pid for process in self._cluster.processes()]

    def roles(self) -> dict[int, str]:
        roles = {}
        for process in self._cluster.processes():
            with contextlib.suppress(psutil.Error):
                roles[process.pid] = _role_of_title(" ".join(process.cmdline()))
        return roles


def _role_of_title(title: str) -> str:
    """The role of a process by what ``ps`` shows of it: Ray names its workers, raykafka some of its own."""
    return next((role for part, role in _TITLES.items() if part in title), RAY)


class Plain:
    """Brokers and their children as plain processes, and a ZooKeeper; what the Supervisor would do is done here."""

    name = "raykafka without Ray"

    def __init__(self, config: Mapping[str, str] = CONFIG, actors: Actors = AUTO) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rk-"))
        self._zookeeper = ZooKeeperProcess(self._folder / "zookeeper", free_port())
        hosts, secret = f"{self._zookeeper.hosts}/failover", secrets.token_hex(32)
        self._brokers = [
            PlainBroker(
                self._folder / f"broker-{i}",
                hosts,
                broker_id=i,
                secret_hex=secret,
                config=dict(config),
                replica_actors=here(actors, BROKERS),
            )
            for i in range(BROKERS)
        ]

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.bootstrap for broker in self._brokers)

    def start(self) -> None:
        self._zookeeper.start()
        self._zookeeper.wait_ready(60)
        for broker in self._brokers:
            broker.start()
        for broker in self._brokers:
            broker.wait_serving()

    def stop(self) -> None:
        for broker in self._brokers:
            broker.end()
        self._zookeeper.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def data(self, broker: int) -> Path:
        return self._brokers[broker].data_dir

    def broker(self, broker: int) -> psutil.Process:
        return psutil.Process(self._brokers[broker].process.pid)

    def controller(self, broker: int) -> psutil.Process:
        return self._brokers[broker].children("controller")[0]

    def actor(self, broker: int, topic: str, partition: int) -> psutil.Process:
        return self._brokers[broker].actor_of(topic, partition)

    def heal(self, broker: int) -> None:
        process = self._brokers[broker].process
        process.wait(60)
        time.sleep(0.5)  # about what Ray takes to notice
        self._brokers[broker].start()

    def shut_down(self, broker: int) -> None:
        self._brokers[broker].stop()

    def bring_back(self, broker: int) -> None:
        self._brokers[broker].start()

    def logs(self) -> list[Path]:
        return [broker.directory / "broker.log" for broker in self._brokers]

    def pids(self) -> list[int]:
        own = [pid for pid in (self._zookeeper.pid,) if pid is not None]
        for broker in self._brokers:
            if broker.process.poll() is None:
                own += [broker.process.pid, *(child.pid for child in broker.children())]
        return own

    def roles(self) -> dict[int, str]:
        roles = {} if self._zookeeper.pid is None else {self._zookeeper.pid: ZOOKEEPER}
        for broker in self._brokers:
            roles[broker.process.pid] = "broker"
            for role, shown in (("controller", "controller"), ("coordinator", "coordinator"), ("replica", ACTOR)):
                roles |= {child.pid: shown for child in broker.children(role)}
        return roles


def timeline(system: Target, begin: float, end: float) -> list[str]:
    """What the processes logged between two moments, merged, with seconds since ``begin``."""
    found: list[tuple[float, str]] = []
    for path in system.logs():
        name = path.parent.name if path.name == "broker.log" else path.stem.rpartition("-")[2]
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_text(errors="replace").splitlines():
                match = _LINE.match(line)
                if match is None:
                    continue
                moment = time.mktime(time.strptime(match[1], "%Y-%m-%d %H:%M:%S")) + int(match[2]) / 1000
                if begin - 0.001 <= moment <= end:
                    found.append((moment, f"{moment - begin:8.3f}  {name:10}  {match[3][:200]}"))
    return [text for _, text in sorted(found)]
