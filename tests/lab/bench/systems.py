"""The systems that race: how each is started, stopped, and which of its processes plays which role."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.lab.clusters.deployed import RaykafkaCluster
from tests.lab.clusters.systems import RAY, CountedCluster
from tests.lab.peer.kafka import ApacheKafka

HEAP = "1G"  # that of Kafka's own start script


class Kafka:
    def __init__(self, version: str, brokers: int) -> None:
        self.name = f"Kafka {version}"
        self._folder = Path(tempfile.mkdtemp(prefix="bench-kafka-"))
        self._kafka = ApacheKafka(self._folder, brokers, heap=HEAP, version=version)

    @property
    def bootstrap(self) -> str:
        return self._kafka.bootstrap

    def start(self) -> None:
        self._kafka.start()

    def stop(self) -> None:
        try:
            self._kafka.stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def pids(self) -> list[int]:
        return list(self._kafka.pids().values())

    def roles(self) -> dict[int, str]:
        return {pid: name.partition("-")[0] for name, pid in self._kafka.pids().items()}


class Raykafka:
    name = "raykafka"

    def __init__(self, brokers: int) -> None:
        self._cluster = RaykafkaCluster(brokers=brokers, config={"group.initial.rebalance.delay.ms": 0})

    @property
    def bootstrap(self) -> str:
        return self._cluster.bootstrap

    def start(self) -> None:
        self._cluster.deploy()

    def stop(self) -> None:
        self._cluster.take_down()

    def pids(self) -> list[int]:
        return [process.pid for process in self._cluster.processes()]

    def roles(self) -> dict[int, str]:
        roles = {actor["pid"]: actor["role"] for actor in self._cluster.status()["actors"] if actor["pid"]}
        for process in self._cluster.processes():
            roles.setdefault(process.pid, "zookeeper" if process.name() == "java" else RAY)
        return roles


# By the name that --system takes; each is called with the number of brokers. In the order in which they take turns.
SYSTEMS: dict[str, Callable[[int], CountedCluster]] = {
    "raykafka": Raykafka,
    "kafka-3.9.2": partial(Kafka, "3.9.2"),
    "kafka-4.3.1": partial(Kafka, "4.3.1"),
}
NAMES = {"raykafka": "raykafka", "kafka-3.9.2": "Kafka 3.9.2", "kafka-4.3.1": "Kafka 4.3.1"}
