"""Brokers of Apache Kafka that are measured as ours are: killed, stopped in order, started again."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.lab.clusters.systems import BROKERS
from tests.lab.peer.kafka import ApacheKafka, PeerError

HEAP = "1G"  # that of Kafka's own start script
HEALED_WITHIN_S = 180.0
NO_SETTINGS: Mapping[str, str] = {}


class Peer:
    """Kafka 3.9 with a ZooKeeper, or 4.3 in KRaft mode, where each process is broker and controller; ``settings`` are
    more broker properties."""

    def __init__(self, version: str, brokers: int = BROKERS, settings: Mapping[str, str] = NO_SETTINGS) -> None:
        self.name = f"Kafka {version}"
        self._folder = Path(tempfile.mkdtemp(prefix="peer-kafka-"))
        self._kafka = ApacheKafka(self._folder, brokers, heap=HEAP, version=version, settings=dict(settings))

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

    def broker(self, broker: int) -> psutil.Process:
        return psutil.Process(self._kafka.pids()[f"broker-{broker}"])

    def heal(self, broker: int) -> None:
        """Start it until it stays: with a ZooKeeper, it ends at once while the session of its life before lives on."""
        self._kafka.wait_ended(broker)
        deadline = time.monotonic() + HEALED_WITHIN_S
        while True:
            self.bring_back(broker)
            if self._kafka.has_started(broker):
                return
            if time.monotonic() > deadline:
                raise PeerError(f"broker {broker} has not started again within {HEALED_WITHIN_S:.0f} s")

    def shut_down(self, broker: int) -> None:
        self._kafka.stop_broker(broker)

    def bring_back(self, broker: int) -> None:
        self._kafka.launch_broker(broker)

    def logs(self) -> list[Path]:
        return sorted(self._folder.glob("broker-?.log"))

    def pids(self) -> list[int]:
        return list(self._kafka.pids().values())

    def roles(self) -> dict[int, str]:
        return {pid: name.partition("-")[0] for name, pid in self._kafka.pids().items()}
