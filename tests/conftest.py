"""Real parts that tests share: ZooKeeper servers and free ports. A cluster that runs already is left alone."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from raykafka.deploy.zookeeper_process import ZooKeeperProcess


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on just now."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of ``count`` consecutive free TCP ports on 127.0.0.1.

    They lie between those that a Ray gives its workers and those that the kernel gives outgoing connections: either
    could take one before a server does.
    """
    while True:
        first = random.randrange(20_000, 32_000)
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first


def cluster_file(folder: Path, name: str = "test", brokers: int = 3, config: dict[str, object] | None = None) -> Path:
    """A cluster file in ``folder``: a Ray, a ZooKeeper, ports and data of its own, apart from any cluster that runs."""
    file = folder / "cluster.yaml"
    first = free_ports(3 * brokers)
    file.write_text(
        yaml.safe_dump(
            {
                "cluster": name,
                "data_dir": str(folder / "data"),
                # Ray makes Unix sockets below it, whose paths hold 107 bytes.
                "ray": {"temp_dir": f"/tmp/rk-{os.getpid()}-{first}", "port": free_port()},
                # A machine that is busy with other tests must not look like a dead one.
                "zookeeper": {"session_timeout_ms": 10_000, "managed": {"client_port": free_port()}},
                "brokers": {
                    "count": brokers,
                    "listeners": f"INSIDE://127.0.0.1:{first},OUTSIDE://127.0.0.1:{first + brokers}",
                    "link_port": first + 2 * brokers,
                    "config": config or {},
                },
            }
        )
    )
    return file


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``host:port`` of a real ZooKeeper server of this test session; use a chroot of your own in it."""
    server = ZooKeeperProcess(tmp_path_factory.mktemp("zookeeper"), free_port())
    server.start()
    try:
        server.wait_ready(30)
        yield server.hosts
    finally:
        server.kill()


@pytest.fixture
def zookeeper_server(tmp_path: Path) -> Iterator[ZooKeeperProcess]:
    """A started ZooKeeper server of one test's own, to stop, kill and start again."""
    server = ZooKeeperProcess(tmp_path / "zookeeper", free_port())
    server.start()
    try:
        server.wait_ready(30)
        yield server
    finally:
        server.kill()
