"""A cluster on this machine, deployed inside Ray, and a hand on everything of it that can fail."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from tests.lab.chaos import system
from tests.lab.chaos.system import Victim
from tests.lab.clusters.actors import AUTO, Actors
from tests.lab.clusters.deployed import ClusterError, RaykafkaCluster
from tests.lab.processes import running_holder, runs

BROKERS = 3
DISK_MB = 1024  # of memory, where a broker's disk is one of its own
BALLAST = "ballast"
ZOOKEEPER_ID = 1
CONFIG = {
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.replication.factor": "3",
    "offsets.topic.num.partitions": "2",
    "default.replication.factor": "3",
}


class Machine:
    """Three brokers and a ZooKeeper. Where this may mount (as root), each broker has a small disk of its own, which can
    be full. As a context: deployed, and taken down."""

    brokers = range(BROKERS)
    faults: tuple[str, ...] = ("process", "shutdown", "lost disk", "actors")
    quick_clients = False

    def __init__(self, actors: Actors = AUTO) -> None:
        self.actors = actors
        self._cluster = RaykafkaCluster(brokers=BROKERS, config=dict(CONFIG), actors=actors)
        self._folder = Path(tempfile.mkdtemp(prefix="rk-chaos-"))
        self._halted: set[int] = set()

    @property
    def bootstrap(self) -> str:
        return self._cluster.bootstrap

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def chroot(self) -> str:
        return f"/{self._cluster.name}"

    @property
    def zookeepers(self) -> list[Path]:
        return [self._cluster.data_dir / f"zookeeper-{ZOOKEEPER_ID}"]

    @property
    def metrics_targets(self) -> Path:
        return self._cluster.data_dir / "prometheus-targets.json"

    def data(self, broker: int) -> Path:
        return self._cluster.data(broker)

    def start(self) -> None:
        self._cluster.data_dir.mkdir(mode=0o700)
        if all([self._mount(broker) for broker in self.brokers]):
            self.faults = (*self.faults, "full disk")
        self._cluster.deploy()

    def stop(self) -> None:
        try:
            self._cluster.run("undeploy", "-f", str(self._cluster.config_file))
        except (ClusterError, subprocess.TimeoutExpired) as error:
            print(f"undeploy: {error}", flush=True)
        finally:
            self._cluster.kill_everything()
            for broker in self.brokers:
                subprocess.run(["umount", "-l", str(self.data(broker))], capture_output=True)
            for folder in (self._cluster.folder, self._folder):
                shutil.rmtree(folder, ignore_errors=True)

    def keep_logs(self, to: Path) -> None:
        for path in self._cluster.logs():
            shutil.copy(path, to)

    def client(self, words: Sequence[str]) -> list[str]:
        """The command that runs a client where clients are."""
        return list(words)

    def _mount(self, broker: int) -> bool:
        path = self.data(broker)
        path.mkdir()
        if os.geteuid() != 0:
            return False
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=700", f"raykafka-{broker}", str(path)]
        return subprocess.run(command, capture_output=True).returncode == 0

    # processes

    def victims(self, role: str) -> list[Victim]:
        """The processes of a role that run now."""
        match role:
            case "broker":
                found = [(f"broker {b}", b, running_holder(self.data(b))) for b in self.brokers]
            case system.ACTOR:
                found = [
                    (str(actor), actor.broker, process)
                    for title, process in sorted(self._cluster.titles().items())
                    if (actor := system.replica_actor(title)) is not None
                ]
            case "zookeeper":
                found = [("ZooKeeper", -1, self._zookeeper())]
            case "supervisor":
                found = [("the Supervisor", -1, self._cluster.titled("Supervisor"))]
            case _:
                found = [
                    (f"{role} of broker {b}", b, self._cluster.titled(f"{role} of broker {b}")) for b in self.brokers
                ]
        return [Victim(what, broker, process.send_signal) for what, broker, process in found if process is not None]

    def _zookeeper(self) -> psutil.Process | None:
        """The ZooKeeper server, a Java process."""
        with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
            process = psutil.Process(int((self.zookeepers[0] / "zookeeper.pid").read_text().split()[0]))
            return process if runs(process) else None
        return None

    # what a person does

    def shut_down(self, broker: int) -> None:
        """A controlled shutdown; the broker stays away until ``bring_back``. Raises ClusterError."""
        self._halted.add(broker)
        self._cluster.shut_down(broker)

    def bring_back(self, broker: int) -> None:
        self._cluster.bring_back(broker)
        self._halted.discard(broker)

    def halted(self) -> Sequence[int]:
        return sorted(self._halted)

    def use_actors(self, actors: Actors) -> None:
        self._cluster.use_actors(actors)

    # disks

    def fill_disk(self, broker: int) -> None:
        """Leave no byte free on a broker's disk."""
        path = self.data(broker) / BALLAST
        with path.open("wb") as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(b"\0" * 1_048_576)

    def free_disk(self, broker: int) -> None:
        (self.data(broker) / BALLAST).unlink(missing_ok=True)

    def lose_disk(self, broker: int) -> None:
        """Kill a broker with all its processes and empty its data directory, before anybody starts it again."""
        for process in list(self._writers(broker)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        empty(self.data(broker))

    def _writers(self, broker: int) -> Iterator[psutil.Process]:
        data = self.data(broker)
        for directory in (data, *(path for path in data.iterdir() if path.is_dir())):
            process = running_holder(directory)
            if process is not None:
                yield process


def empty(directory: Path) -> None:
    """Delete all that is in a directory, which stays."""
    for entry in list(directory.iterdir()):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
