"""Real parts that tests share: ZooKeeper servers and free ports. A cluster that runs already is left alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from raykafka.deploy.zookeeper_process import ZooKeeperProcess


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
