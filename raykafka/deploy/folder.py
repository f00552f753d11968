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
from pathlib import Path
from typing import Any

from raykafka.config.cluster import ClusterConfig, parse_cluster_config
from raykafka.errors import DeployError

_SECRET_BYTES = 32


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

    def broker(self, broker_id: int) -> Path:
        return self.path / f"broker-{broker_id}"

    def zookeeper(self, server_id: int) -> Path:
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

    def deployed(self) -> ClusterConfig | None:
        """The config that was deployed last, or None."""
        try:
            text = self._config_path.read_text()
        except FileNotFoundError:
            return None
        return parse_cluster_config(json.loads(text), str(self._config_path))

    def write_deployed(self, config: ClusterConfig | None) -> None:
        """Make ``config`` the deployed one; None forgets it."""
        if config is None:
            self._config_path.unlink(missing_ok=True)
        else:
            _write(self._config_path, json.dumps(config.to_json(), indent=1))

    def secret(self) -> bytes:
        """The cluster secret; made on first use, and the same for as long as the folder lives."""
        if not self._secret_path.exists():
            _write(self._secret_path, secrets.token_hex(_SECRET_BYTES))
        return bytes.fromhex(self._secret_path.read_text())

    def started_ray(self) -> dict[str, Any] | None:
        """What ``write_started_ray`` noted of the Ray that a deploy started, or None."""
        try:
            return json.loads(self._ray_path.read_text())
        except FileNotFoundError:
            return None

    def write_started_ray(self, note: dict[str, Any] | None) -> None:
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
            elif entry.name in ("cluster.json", "secret", "ray.json", "deploy.lock", "deploy.log"):
                entry.unlink()
        if not any(self.path.iterdir()):
            self.path.rmdir()


def _write(path: Path, text: str) -> None:
    """Replace the file whole or not at all, readable by its owner only."""
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
