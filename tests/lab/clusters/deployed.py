"""A raykafka cluster of one's own, deployed by the command line: its own name, Ray, ports, data, all in one folder.

Tests and benchmarks use it, so that they pass while other clusters run on the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
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

from tests.lab.clusters.actors import AUTO, Actors
from tests.lab.clusters.files import cluster_settings
from tests.lab.free_ports import addresses
from tests.lab.processes import runs

COMMAND_TIMEOUT_S = 120.0


class ClusterError(Exception):
    """A raykafka command failed; the message is what it printed."""


class RaykafkaCluster:
    """As a context: deployed at the start, undeployed with its data at the end.

    ``config`` holds Kafka's broker settings, ``actors`` how many replica actors each broker has.
    """

    def __init__(self, *, brokers: int = 3, config: Mapping[str, object] | None = None, actors: Actors = AUTO) -> None:
        # Not under a test's own folder: Ray puts Unix sockets below it, whose paths hold only 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="rk-"))
        self.name = f"own-{secrets.token_hex(3)}"
        self.brokers = brokers
        self.data_dir = self.folder / "data"
        self.config_file = self.folder / "cluster.yaml"
        self.settings = cluster_settings(self.name, self.data_dir, brokers, config, self.folder / "ray", actors)

    @property
    def bootstrap(self) -> str:
        return self._addresses("INSIDE")

    @property
    def bootstrap_outside(self) -> str:
        return self._addresses("OUTSIDE")

    def _addresses(self, listener: str) -> str:
        (first,) = re.findall(rf"{listener}://[^:]*:(\d+)", self.settings["brokers"]["listeners"])
        return addresses(int(first), self.brokers)

    def data(self, broker: int) -> Path:
        """The data directory of a broker."""
        return self.data_dir / f"broker-{broker}"

    def logs(self) -> list[Path]:
        """What Ray's workers wrote on their standard error, the brokers' processes among them."""
        return sorted((self.folder / "ray").glob("session_latest/logs/worker-*.err"))

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

    def shut_down(self, broker: int) -> None:
        """A controlled shutdown; the broker stays away until ``bring_back``. Raises ``ClusterError``."""
        self.run("brokers", "stop", str(broker), "-f", str(self.config_file))

    def bring_back(self, broker: int) -> None:
        """Start a broker that was shut down. Raises ``ClusterError``."""
        self.run("brokers", "start", str(broker), "-f", str(self.config_file))

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

    def titles(self) -> dict[str, psutil.Process]:
        """The processes of this cluster that run, by the title that Ray or raykafka gave them."""
        found = {}
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline()).strip()
                if title.startswith("ray") and runs(process):
                    found[title] = process
        return found

    def titled(self, words: str) -> psutil.Process | None:
        """The process of this cluster that runs and has ``words`` in its title."""
        return next((process for title, process in self.titles().items() if words in title), None)

    def use_actors(self, actors: Actors) -> None:
        """Deploy again, with so many replica actors for each broker. Raises ``ClusterError``."""
        self.settings["brokers"]["replica.actors"] = actors
        self.deploy()

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
