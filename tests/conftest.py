"""ZooKeeper servers for tests, and what each tier of tests may take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

from raykafka.deploy.zookeeper_process import ZooKeeperProcess
from tests.lab.free_ports import free_port


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


# What each tier of tests may take on 2 cores, in minutes, without its tests marked `long`. The order is that in which
# they run: a broken rule shows first.
TIERS = {
    "pure rules": ("tests/unit/", 1),
    "parts": ("tests/parts/", 2),
    "one node": ("tests/node/", 10),
    "hosts": ("tests/multihost/", 6),
    "chaos": ("tests/chaos/", 3),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-transcripts", action="store_true", help="write what transcripts' commands print now")


@pytest.fixture
def rewrite_transcripts(request: pytest.FixtureRequest) -> bool:
    """Whether tests write transcripts instead of comparing them (tests/lab/transcripts.py)."""
    return bool(request.config.getoption("--rewrite-transcripts"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = [folder for folder, _ in TIERS.values()]

    def tier(item: pytest.Item) -> int:
        return next((n for n, folder in enumerate(order) if item.nodeid.startswith(folder)), len(order))

    items.sort(key=tier)


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """How long each tier took, beside what it may take."""
    reports = [r for group in terminalreporter.stats.values() for r in group if isinstance(r, pytest.TestReport)]
    for name, (folder, minutes) in TIERS.items():
        mine = [r for r in reports if r.nodeid.startswith(folder)]
        if mine:
            tests, spent_s = len({r.nodeid for r in mine}), sum(r.duration for r in mine)
            terminalreporter.write_line(f"{name}: {tests} tests in {spent_s / 60:.1f} of {minutes} minutes")
