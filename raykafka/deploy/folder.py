"""A cluster's data folder: what was deployed, the cluster secret, and where each server keeps its data.

The deployed config in it is what the Supervisor makes true; everything else about a running cluster is read from Ray,
ZooKeeper and the brokers.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raykafka.config.cluster import ClusterConfig, parse_cluster_config
from raykafka.deploy.roster import Roster
from raykafka.errors import ConfigError, DeployError
from raykafka.metrics.targets import FILE_NAME
from raykafka.process.durable import write_whole

_SECRET_BYTES = 32
_FORMAT = 1
# what records of earlier versions may hold, of the brokers or of their config
_GONE = {"spare_replicas", "spare.replicas", "replica.idle.ms"}
_OWN_FILES = ("cluster.json", "secret", "mark", "ray.json", "record.lock", "deploy.lock", "deploy.log", FILE_NAME)


@dataclass(frozen=True, slots=True)
class Deployed:
    """What was deployed. Of several nodes' folders the one with the highest ``generation`` counts; ``roster`` says
    which node has which broker and ZooKeeper server, and is None for a cluster on one node."""

    config: ClusterConfig
    generation: int = 0
    roster: Roster | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, as it stands in the folder's record file."""
        roster = self.roster.to_json() if self.roster is not None else None
        return {
            "format": _FORMAT,
            "generation": self.generation,
            "config": self.config.to_json(),
            "roster": roster,
        }

    @staticmethod
    def from_json(data: Any, origin: str) -> Deployed:
        """The inverse of ``to_json``. Raises ConfigError."""
        if "format" not in data:  # what came before rosters: the config alone
            return Deployed(parse_cluster_config(_of_today(data), origin))
        if data["format"] != _FORMAT:
            raise ConfigError(f"{origin} has format {data['format']}; this raykafka reads {_FORMAT}.")
        roster = Roster.from_json(data["roster"]) if data["roster"] is not None else None
        return Deployed(parse_cluster_config(_of_today(data["config"]), origin), data["generation"], roster)


def _of_today(config: dict[str, Any]) -> dict[str, Any]:
    """A config as a record has it, without what an earlier raykafka wrote there and this one does not know: a cluster
    that runs must not be lost to an upgrade."""
    brokers = {key: value for key, value in config.get("brokers", {}).items() if key not in _GONE}
    if "config" in brokers:
        brokers["config"] = {key: text for key, text in brokers["config"].items() if key not in _GONE}
    return {**config, "brokers": brokers}


class ClusterFolder:
    """The folder at ``path``. Files are for the owner alone: they hold the secret and what it protects."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def _config_path(self) -> Path:
        return self.path / "cluster.json"

    @property
    def _secret_path(self) -> Path:
        return self.path / "secret"

    @property
    def _ray_path(self) -> Path:
        return self.path / "ray.json"

    @property
    def metrics_targets(self) -> Path:
        """Where Prometheus reads which brokers there are."""
        return self.path / FILE_NAME

    def broker(self, broker_id: int) -> Path:
        """The data directory of a broker."""
        return self.path / f"broker-{broker_id}"

    def zookeeper(self, server_id: int) -> Path:
        """The data directory of a ZooKeeper server."""
        return self.path / f"zookeeper-{server_id}"

    def make(self) -> None:
        """Create the folder where it is missing. Raises DeployError when that can't be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise DeployError(f"The data folder {self.path} cannot be made: {error.strerror}.") from None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the folder for one deploy or undeploy. Raises DeployError while another one runs."""
        self.make()
        try:
            lock = os.open(self.path / "deploy.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DeployError(f"The data folder {self.path} cannot be used: {error.strerror}.") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise DeployError(f"Another deploy or undeploy works on {self.path} just now.") from None
        try:
            yield
        finally:
            os.close(lock)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the record while it is compared and replaced; waits for whoever does so just now."""
        with open(self.path / "record.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def record(self) -> Deployed | None:
        """What was deployed last, or None."""
        try:
            text = self._config_path.read_text()
        except FileNotFoundError:
            return None
        return Deployed.from_json(json.loads(text), str(self._config_path))

    def deployed(self) -> ClusterConfig | None:
        """The config that was deployed last, or None."""
        record = self.record()
        return record.config if record is not None else None

    def write_deployed(self, config: ClusterConfig | None) -> None:
        """Make ``config`` the deployed one of a cluster on this node; None forgets it."""
        self.write_record(Deployed(config) if config is not None else None)

    def write_record(self, record: Deployed | None) -> None:
        """Make ``record`` what was deployed last; None forgets it."""
        if record is None:
            self._config_path.unlink(missing_ok=True)
        else:
            _write(self._config_path, json.dumps(record.to_json(), indent=1))

    def mark(self, make: bool) -> str:
        """The name of this folder among those of all nodes, made on first use; empty when it has none and ``make`` is
        false."""
        path = self.path / "mark"
        if make and not path.exists():
            _write(path, secrets.token_hex(8))
        return path.read_text() if path.exists() else ""

    def server_ids(self, role: str) -> tuple[int, ...]:
        """The ids of the brokers (``broker``) or ZooKeeper servers (``zookeeper``) that have data here."""
        names = (path.name.removeprefix(f"{role}-") for path in self.path.glob(f"{role}-*") if path.is_dir())
        return tuple(sorted(int(name) for name in names if name.isdecimal()))

    def secret(self) -> bytes:
        """The cluster secret; made on first use, and the same for as long as the folder lives."""
        if not self._secret_path.exists():
            self.write_secret(secrets.token_bytes(_SECRET_BYTES))
        return bytes.fromhex(self._secret_path.read_text())

    def has_secret(self) -> bool:
        """Whether the cluster secret is here."""
        return self._secret_path.exists()

    def write_secret(self, secret: bytes) -> None:
        """Make ``secret`` the cluster secret."""
        _write(self._secret_path, secret.hex())

    def started_ray(self) -> dict[str, Any] | None:
        """What ``write_started_ray`` noted of the Ray that a deploy started, or None."""
        try:
            return json.loads(self._ray_path.read_text())
        except FileNotFoundError:
            return None

    def write_started_ray(self, note: dict[str, Any] | None) -> None:
        """Note the Ray that a deploy started (``local_ray.start``); None forgets it."""
        if note is None:
            self._ray_path.unlink(missing_ok=True)
        else:
            _write(self._ray_path, json.dumps(note))

    def delete(self) -> None:
        """Delete what raykafka made in the folder, and the folder itself when nothing else is in it."""
        if not self.path.exists():
            return
        for entry in self.path.iterdir():
            if entry.is_dir() and entry.name.startswith(("broker-", "zookeeper-")):
                shutil.rmtree(entry)
            elif entry.name in _OWN_FILES:
                entry.unlink()
        if not any(self.path.iterdir()):
            self.path.rmdir()


def _write(path: Path, text: str) -> None:
    """Replace the file whole or not at all, readable by its owner only."""
    write_whole(path, text.encode(), mode=0o600)
