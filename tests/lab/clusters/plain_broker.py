"""A whole broker without Ray: its class in one plain process, its children as plain processes beside it.

``python -m tests.lab.clusters.plain_broker SETTINGS.json`` runs one until SIGTERM; at SIGHUP it has as many replica
actors as the file says then. ``PlainBroker`` does so for tests.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import uvloop

from raykafka.broker.actor import child_arguments
from raykafka.broker.broker import Broker
from raykafka.broker.children.child import CONTROLLER, COORDINATOR, REPLICA
from raykafka.broker.settings import BrokerSettings, ListenerAddress, ZooKeeperSettings
from raykafka.metrics.exporter import Exporter
from raykafka.process.log_output import log_to_stderr
from tests.lab.free_ports import free_port
from tests.lab.processes import holder

MODULES = {
    REPLICA: "raykafka.replica_actor.actor",
    COORDINATOR: "raykafka.coordinator.actor",
    CONTROLLER: "raykafka.controller.actor",
}
SESSION_MS = 6000
# the longest that ZooKeeper grants: a machine that is busy with other tests must not look like a dead one
PATIENT_SESSION_MS = 10_000
FAST_CONFIG = {
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "3",
    "offsets.topic.replication.factor": "1",
}


class PlainChild:
    """A child process; its end is seen on a pidfd, so that waiting for many costs no threads."""

    actor_id = ""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._ended = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._process.wait()
        self._ended.set_result("" if code == 0 else f"it ended with code {code}")

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def wait(self) -> str:
        return await asyncio.shield(self._ended)


class PlainStarter:
    """Starts children as ``python -m`` of their actor's module."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings

    def start(self, role: str, socket_path: str, token: str) -> PlainChild:
        command = [sys.executable, "-m", MODULES[role], "--socket", socket_path, "--token", token]
        command += ["--arguments", json.dumps(child_arguments(self._settings, role))]
        environment = {**os.environ, "RAYKAFKA_SECRET_HEX": self._settings.secret_hex}
        return PlainChild(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL))


async def run(file: Path) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    broker = Broker(PlainStarter, exporter=Exporter)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: broker.use_actors(_read(file).replica_actors))
    await broker.start(_read(file))
    await stop.wait()
    await broker.stop()


def _read(file: Path) -> BrokerSettings:
    settings: dict[str, Any] = json.loads(file.read_text())
    return BrokerSettings.from_json(settings)


class PlainBroker:
    """One broker process for a test. ``settings`` may be changed between ``kill`` or ``stop`` and ``start``."""

    def __init__(
        self,
        directory: Path,
        zookeeper: str,
        *,
        broker_id: int = 0,
        secret_hex: str | None = None,
        config: dict[str, str] | None = None,
        session_ms: int = SESSION_MS,
        replica_actors: int = 1,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        address = ListenerAddress("INSIDE", "127.0.0.1", free_port())
        self.settings = BrokerSettings(
            cluster="test",
            broker_id=broker_id,
            secret_hex=secret_hex or secrets.token_hex(32),
            data_dir=str(directory / "data"),
            zookeeper=ZooKeeperSettings(zookeeper, session_timeout_ms=session_ms),
            listeners=(address,),
            advertised=(address,),
            link_host="127.0.0.1",
            link_port=free_port(),
            metrics_port=free_port(),
            inter_broker_listener_name="INSIDE",
            config={**FAST_CONFIG, **(config or {})},
            replica_actors=replica_actors,
        )
        self._process: subprocess.Popen[bytes] | None = None

    def set_data_dir(self, path: Path) -> None:
        """Have the next start use another data directory."""
        self.settings = dataclasses.replace(self.settings, data_dir=str(path))

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.settings.listeners[0].port}"

    @property
    def data_dir(self) -> Path:
        return Path(self.settings.data_dir)

    @property
    def log_text(self) -> str:
        """What it has logged in all its lives."""
        path = self.directory / "broker.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; ``wait_serving`` or ``wait_ended`` tells what became of it."""
        path = self._write_settings()
        with open(self.directory / "broker.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.lab.clusters.plain_broker", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _write_settings(self) -> Path:
        path = self.directory / "settings.json"
        path.write_text(json.dumps(self.settings.to_json()))
        return path

    def use_actors(self, count: int) -> None:
        """Have the running broker keep so many replica actors from now on, 0 for one each replica."""
        self.settings = dataclasses.replace(self.settings, replica_actors=count)
        self._write_settings()
        self.process.send_signal(signal.SIGHUP)

    def wait_serving(self, within_s: float = 120.0) -> None:
        """Until the listener takes connections, which is when the first image is in force."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.settings.listeners[0].port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, f"the broker ended:\n{self.log_text}"
                assert time.monotonic() < deadline, f"the broker does not serve:\n{self.log_text}"
                time.sleep(0.05)

    def wait_ended(self, within_s: float = 120.0) -> int:
        return self.process.wait(within_s)

    def stop(self) -> None:
        """Stop cleanly."""
        self.process.terminate()
        assert self.process.wait(30) == 0, self.log_text

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.process.wait(30)

    def end(self) -> None:
        """Leave nothing running, however the test went."""
        if self._process is None:
            return
        children = self.children()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(30)
        for child in children:
            if child.is_running():
                child.kill()

    def children(self, role: str = "") -> list[psutil.Process]:
        """The child processes that run now, of one role or all."""
        if not self.runs:
            return []
        module = MODULES.get(role, "")
        found: list[psutil.Process] = []
        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []
        for process in children:
            try:
                if module in " ".join(process.cmdline()):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found

    def actor_of(self, topic: str, partition: int = 0) -> psutil.Process:
        """The replica actor that has a partition open: the holder of its directory's lock. Raises as ``holder``."""
        return holder(self.data_dir / f"{topic}-{partition}")


def main(argv: list[str]) -> None:
    log_to_stderr()
    uvloop.run(run(Path(argv[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
