"""A raykafka cluster of one's own, deployed by the command line: its own name, Ray, ports, data, all in one folder.

Tests and benchmarks use it, so that they pass while other clusters run on the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import yaml

from tests.lab.peer.ports import free_port_block

COMMAND_TIMEOUT_S = 120.0
_LINK, _METRICS, _ZOOKEEPER, _RAY, _BLOCK = 20, 30, 40, 41, 42  # offsets in the block: INSIDE 0-9, OUTSIDE 10-19, ...


class ClusterError(Exception):
    """A raykafka command failed; the message is what it printed."""


class RaykafkaCluster:
    """As a context: deployed at the start, undeployed with its data at the end.

    ``config`` holds Kafka's broker settings; ``brokers`` at most 10.
    """

    def __init__(self, *, brokers: int = 3, config: Mapping[str, object] | None = None) -> None:
        # Not under a test's own folder: Ray puts Unix sockets below it, whose paths hold only 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="rk-"))
        self.name = f"own-{secrets.token_hex(3)}"
        self.brokers = brokers
        self.port = free_port_block(_BLOCK)
        self.data_dir = self.folder / "data"
        self.config_file = self.folder / "cluster.yaml"
        self.settings: dict[str, Any] = {
            "cluster": self.name,
            "data_dir": str(self.data_dir),
            "ray": {"address": "auto", "start_local": True, "temp_dir": f"{self.folder}/ray", "port": self.port + _RAY},
            "zookeeper": {"managed": {"servers": 1, "client_port": self.port + _ZOOKEEPER}},
            "brokers": {
                "count": brokers,
                "listeners": f"INSIDE://127.0.0.1:{self.port},OUTSIDE://127.0.0.1:{self.port + 10}",
                "link_port": self.port + _LINK,
                "metrics_port": self.port + _METRICS,
                "config": dict(config or {}),
            },
        }

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{self.port + i}" for i in range(self.brokers))

    @property
    def bootstrap_outside(self) -> str:
        return ",".join(f"127.0.0.1:{self.port + 10 + i}" for i in range(self.brokers))

    def __enter__(self) -> Self:
        try:
            self.deploy()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.take_down()

    def take_down(self) -> None:
        """Undeploy it and leave nothing behind. Raises ``ClusterError``."""
        try:
            self.run("undeploy", "-f", str(self.config_file), "--delete-data")
        finally:
            self.remove()

    def deploy(self) -> str:
        """Deploy, or deploy again; returns what the command printed. Raises ``ClusterError``."""
        self.config_file.write_text(yaml.safe_dump(self.settings, sort_keys=False))
        return self.run("deploy", "-f", str(self.config_file))

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.run("status", "-f", str(self.config_file), "--json"))
        return status

    def run(self, *arguments: str) -> str:
        """Run ``raykafka`` with these arguments; its standard output. Raises ``ClusterError``."""
        environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_NAMESPACE")}
        command = [str(Path(sys.executable).with_name("raykafka")), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
        if done.returncode != 0:
            raise ClusterError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def processes(self) -> list[psutil.Process]:
        """Every process of this cluster and of its Ray: who names this cluster's folder, and their descendants."""
        found: dict[int, psutil.Process] = {}
        own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid not in own and any(str(self.folder) in word for word in process.cmdline()):
                    found[process.pid] = process
                    found |= {child.pid: child for child in process.children(recursive=True)}
        return list(found.values())

    def kill_everything(self) -> int:
        """``kill -9`` of every process, all stopped first so that none sees another's death; how many there were."""
        killed: dict[int, psutil.Process] = {}
        while alive := [process for process in self.processes() if process.status() != psutil.STATUS_ZOMBIE]:
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            for process in alive:
                killed[process.pid] = process
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(alive, timeout=10)
        return len(killed)

    def remove(self) -> None:
        """End whatever is left of it and delete its folder."""
        self.kill_everything()
        shutil.rmtree(self.folder, ignore_errors=True)
