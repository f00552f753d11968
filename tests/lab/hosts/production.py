"""configs/cluster.yaml and configs/production.yaml on the hosts of a lab, started as docs/deploy.md says."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.lab import REPOSITORY
from tests.lab.clusters.actors import AUTO, Actors
from tests.lab.hosts.netlab import Host, Lab

_BIN = Path(sys.executable).parent
NODES = 3


class Production:
    """A cluster on the first three hosts of ``lab``; the fourth one, ``office``, is where people and clients are."""

    name = "production"

    def __init__(self, lab: Lab, broker_config: dict[str, Any] | None = None, actors: Actors = AUTO) -> None:
        self.lab = lab
        self._broker_config = broker_config or {}
        self._actors = actors

    @property
    def hosts(self) -> list[Host]:
        return self.lab.hosts[:NODES]

    @property
    def office(self) -> Host:
        return self.lab.hosts[NODES]

    @property
    def outside(self) -> str:
        return ",".join(f"{host.address}:9192" for host in self.hosts)

    @property
    def file(self) -> Path:
        return self.lab.folder / "production.yaml"

    @property
    def session_s(self) -> float:
        return float(yaml.safe_load(self.file.read_text())["zookeeper"]["session_timeout_ms"]) / 1000

    @property
    def environment(self) -> dict[str, str]:
        path = f"{_BIN}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "PYTHONPATH": str(REPOSITORY), "RAY_USAGE_STATS_ENABLED": "0"}

    def up(self) -> None:
        """``ray up`` from the office."""
        self._fill_in()
        self.office.run("ray", "get-auth-token", "--generate", environment=self.environment)
        words = ("ray", "up", "-y", "--no-config-cache", str(self._cluster_file))
        self.office.run(*words, environment=self.environment, within_s=150)

    def deploy(self) -> str:
        """``raykafka deploy`` on the head; what it printed."""
        words = ("ray", "exec", str(self._cluster_file), f"raykafka deploy -f {self.file}")
        return self.office.run(*words, environment=self.environment, within_s=200)

    @property
    def _cluster_file(self) -> Path:
        return self.lab.folder / "cluster.yaml"

    def _fill_in(self) -> None:
        """The files of configs/ with this lab's addresses, and less memory: three hosts share one small machine."""
        cluster = yaml.safe_load((REPOSITORY / "configs/cluster.yaml").read_text())
        addresses = [host.address for host in self.hosts]
        cluster["provider"] |= {"head_ip": addresses[0], "worker_ips": addresses[1:]}
        # The hosts see this machine's files and have no way to a package index: there is nothing to install.
        cluster["file_mounts"].pop("~/raykafka")
        profile = f"export RAY_AUTH_MODE=token PYTHONPATH={REPOSITORY} PATH={_BIN}:$PATH"
        cluster["setup_commands"] = [f"grep -q RAY_AUTH_MODE ~/.bashrc || echo '{profile}' >> ~/.bashrc"]
        for key in ("head_start_ray_commands", "worker_start_ray_commands"):
            cluster[key] = [command.replace("ray start ", "ray start --num-cpus=1 ") for command in cluster[key]]
        self._cluster_file.write_text(yaml.safe_dump(cluster, width=10_000))
        production = yaml.safe_load((REPOSITORY / "configs/production.yaml").read_text())
        production["zookeeper"]["managed"]["heap_mb"] = 128
        # Each host takes all of the machine's cores for its own.
        actors = 1 if self._actors == AUTO else self._actors
        production["brokers"] |= {"memory_mb": 256, "replica.actors": actors}
        few = {"group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 2}
        production["brokers"]["config"] |= few | self._broker_config
        self.file.write_text(yaml.safe_dump(production))

    def keep_logs(self, to: Path) -> None:
        """Copy what the hosts logged."""
        to.mkdir(parents=True, exist_ok=True)
        for file in self.lab.folder.glob("*.*"):
            shutil.copy(file, to)
        for host in self.hosts:
            sessions = [(session.name, session / "logs") for session in host.tmp.glob("ray/session_2*")]
            for name, folder in [*sessions, ("srv", host.srv)]:
                shutil.copytree(folder, to / host.name / name, dirs_exist_ok=True, symlinks=True, ignore=_sockets)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_socket()]
