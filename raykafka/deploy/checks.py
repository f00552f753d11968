"""What must hold before anything is started: ZooKeeper is there, ports are free, data is not another cluster's."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

from raykafka.config.cluster import ClusterConfig
from raykafka.deploy.folder import ClusterFolder
from raykafka.deploy.zookeeper_process import ask, find_jar, find_java
from raykafka.errors import DeployError

_PORT_FREE_WITHIN_S = 3.0
_POLL_S = 0.2


def check_zookeeper(config: ClusterConfig) -> None:
    """Raise DeployError unless ZooKeeper can be run here (managed), or answers where it is said to be (connect)."""
    if config.zookeeper.managed is not None:
        check_java_and_jar()
        return
    servers = (config.zookeeper.connect or "").partition("/")[0].split(",")
    for server in servers:
        host, _, port = server.rpartition(":")
        if ask(host.strip("[]"), int(port), "ruok") or _accepts(host.strip("[]"), int(port)):
            return
    raise DeployError(
        f"No ZooKeeper server answers at {','.join(servers)}:"
        " start it, or correct zookeeper.connect in the cluster file."
    )


def check_java_and_jar() -> None:
    """Raise DeployError unless this machine can run ZooKeeper."""
    find_java()
    find_jar()


def check_folder(config: ClusterConfig, folder: ClusterFolder) -> None:
    """Raise DeployError when the data folder belongs to a cluster of another name."""
    deployed = folder.deployed()
    if deployed is not None:
        check_cluster(config.cluster, folder, deployed)


def check_cluster(cluster: str, folder: ClusterFolder, deployed: ClusterConfig) -> None:
    """Raise DeployError when ``deployed``, which ``folder`` holds, is another cluster."""
    if deployed.cluster != cluster:
        raise DeployError(
            f"The data folder {folder.path} holds the data of cluster {deployed.cluster}:"
            f" give cluster {cluster} a data_dir of its own."
        )


def check_ports(ports: Iterable[tuple[str, int, str]], folder: ClusterFolder) -> None:
    """Raise DeployError naming the first of ``ports`` (host, port, owner) that something other than this very cluster
    listens on."""
    for host, port, owner in ports:
        deadline = time.monotonic() + _PORT_FREE_WITHIN_S
        while (problem := _port_problem(host, port, folder)) is not None:
            # A process on its way out, such as a broker whose Ray was killed, keeps its ports a moment longer.
            if time.monotonic() > deadline:
                raise DeployError(f"Port {port} on {host} for {owner} {problem}")
            time.sleep(_POLL_S)


def _port_problem(host: str, port: int, folder: ClusterFolder) -> str | None:
    """Why this cluster can't listen on ``host:port``; None when it can, or does."""
    reason = _cannot_bind(host, port)
    if reason is None:
        return None
    holder = _listener(port)
    if holder is None:
        return f"cannot be used: {reason}."
    if holder.pid in own_processes(folder):
        return None
    return (
        f"is in use by process {holder.pid} ({_name(holder)}):"
        " stop that process, or choose another port in the cluster file."
    )


def own_processes(folder: ClusterFolder) -> set[int]:
    """The pids of living ZooKeeper servers, brokers and replicas that hold this folder's data: their locks are open."""
    places = (str(folder.path / "zookeeper-"), str(folder.path / "broker-"))
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            files = [file.path for file in process.open_files()]
            if any(path.startswith(places) and path.endswith(("/.lock", "/zookeeper.lock")) for path in files):
                found.add(process.pid)
    return found


def _cannot_bind(host: str, port: int) -> str | None:
    """Why ``host:port`` can't be listened on just now, or None."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except socket.gaierror as error:
        return f"{host} is not an address of this machine ({error.strerror})"
    except OSError as error:
        return "it is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
    return None


def _listener(port: int) -> psutil.Process | None:
    for connection in psutil.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            with suppress(psutil.Error):
                return psutil.Process(connection.pid)
    return None


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "unknown"


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2.0).close()
    except OSError:
        return False
    return True
