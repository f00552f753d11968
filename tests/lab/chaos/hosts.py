"""A cluster over three simulated hosts, whose links and power can fail as well; clients are on a fourth."""

from __future__ import annotations

import contextlib
import random
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from raykafka.types import TopicPartition
from tests.lab import REPOSITORY
from tests.lab.chaos import system
from tests.lab.chaos.machine import empty
from tests.lab.chaos.system import Victim
from tests.lab.clusters.actors import AUTO, Actors
from tests.lab.clusters.deployed import ClusterError
from tests.lab.hosts.netlab import Host, Lab, LabError, unavailable
from tests.lab.hosts.power_cut import cut_logs
from tests.lab.hosts.production import NODES, Production

SUPERVISOR_TITLE = "SupervisorActor"


class Hosts:
    """``configs/cluster.yaml`` and ``configs/production.yaml``: a broker and a ZooKeeper server on each of three hosts.
    Raises LabError where this machine can't simulate hosts."""

    faults = ("process", "shutdown", "lost disk", "network")
    quick_clients = True

    def __init__(self, actors: Actors = AUTO) -> None:
        reason = unavailable()
        if reason is not None:
            raise LabError(f"simulated hosts: {reason}")
        self._lab = Lab(NODES + 1, visible=[REPOSITORY, Path(sys.prefix)])
        self._cluster = Production(self._lab, {"default.replication.factor": 3}, actors)
        self._at: dict[int, Host] = {}
        self._halted: set[int] = set()
        self.brokers: Sequence[int] = range(NODES)

    @property
    def bootstrap(self) -> str:
        return self._cluster.outside

    @property
    def folder(self) -> Path:
        return self._lab.folder / "chaos"

    @property
    def chroot(self) -> str:
        return f"/{self._cluster.name}"

    @property
    def zookeepers(self) -> list[Path]:
        return sorted(place for host in self._cluster.hosts for place in _data(host).glob("zookeeper-?"))

    @property
    def metrics_targets(self) -> Path:
        """The Supervisor keeps it on the node where it runs."""
        places = [_data(host) / "prometheus-targets.json" for host in self._cluster.hosts]
        return next((place for place in places if place.exists()), places[0])

    def host(self, broker: int) -> Host:
        """The host that has a broker's data: that does not change."""
        if broker not in self._at:
            found = {int(p.name[7:]): host for host in self._cluster.hosts for p in _data(host).glob("broker-?")}
            self._at.update(found)
        return self._at[broker]

    def data(self, broker: int) -> Path:
        return _data(self.host(broker)) / f"broker-{broker}"

    def start(self) -> None:
        self._lab.__enter__()
        self.folder.mkdir()
        self._cluster.up()
        self._cluster.deploy()

    def stop(self) -> None:
        self._lab.close()

    def keep_logs(self, to: Path) -> None:
        self._cluster.keep_logs(to)

    def client(self, words: Sequence[str]) -> list[str]:
        office = self._cluster.office
        return office.command(["env", f"--chdir={REPOSITORY}", *words], self._cluster.environment)

    # processes

    def victims(self, role: str) -> list[Victim]:
        found = []
        for broker in self.brokers:
            host = self.host(broker)
            if not host.up:
                continue
            match role:
                case "broker":
                    found += self._holder(host, broker, self.data(broker), f"broker {broker}")
                case system.ACTOR:
                    for line in _processes(host):
                        actor = system.replica_actor(line.title)
                        if actor is not None:
                            found.append(Victim(str(actor), broker, partial(_signal, host, line.pid)))
                case "zookeeper":
                    found += self._titled(host, -1, "QuorumPeerMain", f"ZooKeeper on {host.name}")
                case "supervisor":
                    found += self._titled(host, -1, SUPERVISOR_TITLE, "the Supervisor")
                case _:
                    title = f"{role} of broker {broker}"
                    found += self._titled(host, broker, title, title)
        return found

    def _holder(self, host: Host, broker: int, directory: Path, what: str) -> list[Victim]:
        """Who holds the lock of a directory; its pid is one of the host's own."""
        try:
            pid = int((directory / ".lock").read_text().split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return []
        return [Victim(what, broker, partial(_signal, host, pid))]

    def _titled(self, host: Host, broker: int, title: str, what: str) -> list[Victim]:
        pids = [line.pid for line in _processes(host) if title in line.title]
        return [Victim(what, broker, partial(_signal, host, pid)) for pid in pids[:1]]

    # links and power

    def cut(self, broker: int) -> None:
        self.host(broker).cut()

    def heal(self, broker: int) -> None:
        if self.host(broker).up:
            self.host(broker).heal()

    def lose_one_way(self, broker: int, to: int) -> None:
        self.host(broker).lose_to(self.host(to))

    def lose_nothing(self, broker: int, to: int) -> None:
        if self.host(broker).up:
            self.host(broker).lose_nothing_to(self.host(to))

    def has_head(self, broker: int) -> bool:
        """Whether Ray's head is on a broker's host: to lose it is to lose the Ray cluster (docs/deploy.md)."""
        return self.host(broker) is self._cluster.hosts[0]

    def power_off(self, broker: int) -> None:
        self.host(broker).power_off()

    def cut_logs(self, broker: int, rng: random.Random) -> int:
        """Take from a powered-off host's logs what its page cache had and its disk not; how many bytes."""
        directories = [path.name.rpartition("-") for path in self.data(broker).iterdir() if path.is_dir()]
        partitions = [TopicPartition(topic, int(number)) for topic, _, number in directories if number.isdigit()]
        return sum(cut.lost_bytes for cut in cut_logs(self.data(broker), partitions, rng).values())

    def power_on(self, broker: int) -> None:
        self.host(broker).power_on()

    # disks

    def lose_disk(self, broker: int) -> None:
        """Kill a broker and its replica actors and empty its data directory."""
        for victim in (*self.victims("broker"), *self.victims(system.ACTOR)):
            if victim.broker == broker:
                with contextlib.suppress(ProcessLookupError):
                    victim.signal(signal.SIGKILL)
        empty(self.data(broker))

    # what a person does

    def shut_down(self, broker: int) -> None:
        """A controlled shutdown; the broker stays away until ``bring_back``. Raises ClusterError."""
        self._halted.add(broker)
        self._command("stop", broker)

    def bring_back(self, broker: int) -> None:
        self._command("start", broker)
        self._halted.discard(broker)

    def halted(self) -> Sequence[int]:
        return sorted(self._halted)

    def _command(self, word: str, broker: int) -> None:
        words = ("raykafka", "brokers", word, str(broker), "-f", str(self._cluster.file))
        try:
            self._cluster.hosts[0].run(*words, environment=self._cluster.environment)
        except LabError as error:
            raise ClusterError(str(error)) from None


class _Process(NamedTuple):
    pid: int
    title: str


def _processes(host: Host) -> list[_Process]:
    """Those that run on a host, without the one that lists them."""
    lines = host.run("ps", "-eo", "pid,args", "--no-headers").splitlines()
    return [_Process(int(line.split()[0]), line) for line in lines if " ps " not in line]


def _data(host: Host) -> Path:
    return host.srv / "raykafka"


def _signal(host: Host, pid: int, number: int) -> None:
    try:
        host.run("kill", f"-{number}", str(pid))
    except LabError as error:
        raise ProcessLookupError(str(error)) from None
