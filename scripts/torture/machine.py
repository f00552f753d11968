"""A cluster on this machine, deployed inside Ray, and a hand on everything of it that can fail."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from raykafka_cluster import ClusterError, RaykafkaCluster

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

    def __init__(self) -> None:
        self._cluster = RaykafkaCluster(brokers=BROKERS, config=dict(CONFIG))
        self.has_disks = False
        self._halted: set[int] = set()

    @property
    def bootstrap(self) -> str:
        return self._cluster.bootstrap

    @property
    def folder(self) -> Path:
        return self._cluster.folder

    @property
    def chroot(self) -> str:
        return f"/{self._cluster.name}"

    @property
    def zookeeper_data(self) -> Path:
        return self._cluster.data_dir / f"zookeeper-{ZOOKEEPER_ID}"

    @property
    def metrics_targets(self) -> Path:
        return self._cluster.data_dir / "prometheus-targets.json"

    def data(self, broker: int) -> Path:
        return self._cluster.data_dir / f"broker-{broker}"

    def start(self) -> None:
        self._cluster.data_dir.mkdir(mode=0o700)
        self.has_disks = all([self._mount(broker) for broker in self.brokers])
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
            shutil.rmtree(self.folder, ignore_errors=True)

    def _mount(self, broker: int) -> bool:
        path = self.data(broker)
        path.mkdir()
        if os.geteuid() != 0:
            return False
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=700", f"raykafka-{broker}", str(path)]
        return subprocess.run(command, capture_output=True).returncode == 0

    # processes

    def broker(self, broker: int) -> psutil.Process | None:
        """The process of a broker, None while there is none."""
        return _lock_holder(self.data(broker))

    def replicas(self) -> list[tuple[str, psutil.Process]]:
        """Every replica process that writes a partition, by broker and directory."""
        found = []
        for broker in self.brokers:
            for directory in sorted(path for path in self.data(broker).iterdir() if path.is_dir()):
                process = _lock_holder(directory)
                if process is not None:
                    found.append((f"replica of {directory.name} on broker {broker}", process))
        return found

    def replica(self, broker: int, topic: str, partition: int) -> psutil.Process | None:
        return _lock_holder(self.data(broker) / f"{topic}-{partition}")

    def child(self, role: str, broker: int) -> psutil.Process | None:
        """The coordinator or controller of a broker."""
        return self._titled(f"{role} of broker {broker}")

    def supervisor(self) -> psutil.Process | None:
        return self._titled("Supervisor")

    def _titled(self, words: str) -> psutil.Process | None:
        for process in self._cluster.processes():
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline()).strip()
                if title.startswith("ray") and words in title and _runs(process):
                    return process
        return None

    def zookeeper(self) -> psutil.Process | None:
        """The ZooKeeper server, a Java process."""
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int((self.zookeeper_data / "zookeeper.pid").read_text().split()[0]))
            return process if _runs(process) else None
        return None

    # what a person does

    def shut_down(self, broker: int) -> None:
        """A controlled shutdown; the broker stays away until ``bring_back``. Raises ClusterError."""
        self._halted.add(broker)
        self._cluster.run("brokers", "stop", str(broker), "-f", str(self._cluster.config_file))

    def bring_back(self, broker: int) -> None:
        self._cluster.run("brokers", "start", str(broker), "-f", str(self._cluster.config_file))
        self._halted.discard(broker)

    def halted(self) -> Sequence[int]:
        return sorted(self._halted)

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
        directory = self.data(broker)
        for process in self._writers(broker):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for entry in list(directory.iterdir()):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def _writers(self, broker: int) -> Iterator[psutil.Process]:
        process = self.broker(broker)
        if process is not None:
            yield process
        for directory in self.data(broker).iterdir():
            if directory.is_dir() and (replica := _lock_holder(directory)) is not None:
                yield replica


def _lock_holder(directory: Path) -> psutil.Process | None:
    with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
        process = psutil.Process(int((directory / ".lock").read_text().split()[0]))
        return process if _runs(process) else None
    return None


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
