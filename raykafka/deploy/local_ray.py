"""A Ray cluster of one node on this machine: started with `ray start`, ended by its own processes and no others."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from raykafka.config.cluster import ClusterConfig
from raykafka.deploy.ray_access import QUIET_ENVIRONMENT, answers, listens, session_folder
from raykafka.errors import DeployError

_START_TIMEOUT_S = 180.0
_RAYLET_TOO_SLOW = "timed out during startup"
_END_WITHIN_S = 5.0


def start_command(config: ClusterConfig, port: int, dashboard_port: int) -> list[str]:
    """The `ray start` of a head node that listens on ``port``, as an argument list."""
    ray = config.ray
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}"]
    command += ["--include-dashboard=false", "--include-log-monitor=false", "--no-monitor", "--disable-usage-stats"]
    command += [f"--dashboard-port={dashboard_port}", "--dashboard-agent-listen-port=0"]
    # Any free port, not 10002 to 19999, where brokers may listen and another Ray's workers do.
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    command += [f"--temp-dir={ray.temp_dir}", f"--object-store-memory={ray.object_store_memory_mb << 20}"]
    if ray.num_cpus is not None:
        command.append(f"--num-cpus={ray.num_cpus}")
    return [*command, "--log-color=false"]


def ensure_token() -> None:
    """Have a Ray token, so that the Ray we start lets in nobody without it: its ports are open to the network.

    ``ray start`` and ``ray.init`` both use the token file when it exists. RAY_AUTH_MODE, where set, decides alone.
    """
    if "RAY_AUTH_MODE" in os.environ or "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return
    path = Path.home() / ".ray" / "auth_token"
    if path.exists():
        return
    import secrets

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError), open(path, "x", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
        file.write(secrets.token_hex(32))


def free_start_port(config: ClusterConfig) -> int:
    """The port on which Ray is to start. Raises DeployError when something listens there already."""
    port = config.ray.port
    if config.ray.address != "auto":
        port = int(config.ray.address.rpartition(":")[2])
    if listens(f"127.0.0.1:{port}"):
        raise DeployError(
            f"Port {port}, on which Ray is to start, is in use: choose another one in ray.port,"
            " or say in ray.address which Ray cluster to use."
        )
    return port


def start(config: ClusterConfig) -> dict[str, Any]:
    """Start Ray on this machine; returns a note of it: its address and session folder. Raises DeployError."""
    port = free_start_port(config)
    ensure_token()
    for last in (False, True):
        before = session_folder(config.ray.temp_dir)
        try:
            _run_start(config, port)
            break
        except BaseException as error:
            if (begun := session_folder(config.ray.temp_dir)) != before:
                stop(begun)
            # Ray gives its raylet 30 s, and no way to say more: on a crowded machine a second try has a warm page cache
            if last or _RAYLET_TOO_SLOW not in str(error):
                raise
    address = (config.ray.temp_dir / "ray_current_cluster").read_text().strip()
    session = session_folder(config.ray.temp_dir)
    return {"address": address, "session": str(session), "temp_dir": str(config.ray.temp_dir)}


def _run_start(config: ClusterConfig, port: int) -> None:
    # Ray's workers would run at nice 15, behind every batch job of the machine.
    environment = {"RAY_worker_niceness": "0", **os.environ, **QUIET_ENVIRONMENT}
    environment.pop("RAY_ADDRESS", None)
    # Told not to include its dashboard, Ray starts the dashboard's process all the same, 120 MB and a second and a half
    # of CPU; only where that one's port is taken it goes without.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = start_command(config, port, taken.getsockname()[1])
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_START_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise DeployError(
                f"Ray did not start within {_START_TIMEOUT_S:.0f} s; its logs are under {config.ray.temp_dir}."
            ) from None
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        reasons = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)]
        raise DeployError(f"Ray did not start: {(reasons or lines or ['it gave no reason.'])[-1]}")


def stop(session: Path | None) -> None:
    """End the processes of one Ray session: the raylet first, which ends its workers, then the rest.

    The GCS is killed: it has nothing left to put away then, and takes two seconds to end when it is asked to.
    """
    if session is None:
        return
    members = _members(session)
    raylets = [process for process in members if process.name() == "raylet"]
    workers = [child for raylet in raylets for child in _children(raylet)]
    end_processes(raylets)
    for process in members:
        with suppress(psutil.Error):
            if process.name() == "gcs_server":
                process.kill()
    end_processes([*workers, *members])
    current = session.parent / "ray_current_cluster"
    with suppress(OSError):
        if not answers(current.read_text().strip()):
            current.unlink()


def _members(session: Path) -> list[psutil.Process]:
    mark = str(session)
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if any(mark in word for word in words) and any("/ray/" in word for word in words):
                found.append(process)
    return found


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def end_processes(processes: list[psutil.Process]) -> None:
    """Ask the processes to end, and kill those that have not after 5 s."""
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=_END_WITHIN_S)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=_END_WITHIN_S)
