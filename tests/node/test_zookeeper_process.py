"""A ZooKeeper server belongs to its data directory, whoever started it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest
from kazoo.client import KazooClient

from raykafka.deploy.zookeeper_process import ZooKeeperProcess, ask, find_jar
from raykafka.deploy.zookeeper_server import ZooKeeperServerActor
from raykafka.errors import DeployError
from tests.lab.free_ports import free_port


def _write(hosts: str, path: str, data: bytes) -> None:
    client = KazooClient(hosts)
    client.start(10)
    try:
        client.create(path, data)
    finally:
        client.stop()
        client.close()


def _read(hosts: str, path: str) -> bytes:
    client = KazooClient(hosts)
    client.start(10)
    try:
        return client.get(path)[0]
    finally:
        client.stop()
        client.close()


def test_data_survives_a_kill(zookeeper_server: ZooKeeperProcess) -> None:
    _write(zookeeper_server.hosts, "/kept", b"1")
    zookeeper_server.kill()
    assert ask(zookeeper_server.host, zookeeper_server.client_port) == ""
    zookeeper_server.start()
    zookeeper_server.wait_ready(30)
    assert _read(zookeeper_server.hosts, "/kept") == b"1"


def test_a_second_owner_adopts_the_running_server(zookeeper_server: ZooKeeperProcess) -> None:
    second = ZooKeeperProcess(zookeeper_server.data_dir, zookeeper_server.client_port)
    second.start()
    assert second.pid == zookeeper_server.pid
    second.wait_ready()
    second.stop()
    assert not zookeeper_server.alive()


def test_changed_settings_replace_the_running_server(zookeeper_server: ZooKeeperProcess) -> None:
    old_pid = zookeeper_server.pid
    _write(zookeeper_server.hosts, "/kept", b"1")
    moved = ZooKeeperProcess(zookeeper_server.data_dir, free_port())
    moved.start()
    try:
        moved.wait_ready(30)
        assert moved.pid != old_pid
        assert _read(moved.hosts, "/kept") == b"1"
        assert not zookeeper_server.alive()
    finally:
        moved.kill()


def test_a_server_that_stands_still_is_started_anew_and_sessions_outlive_it(tmp_path: Path) -> None:
    settings = {"data_dir": str(tmp_path / "zookeeper"), "client_port": free_port(), "tick_time_ms": 2000}

    async def run() -> None:
        actor = ZooKeeperServerActor("test", 1)
        before = await actor.configure(settings)
        client = KazooClient(before["hosts"], timeout=30.0)
        try:
            await asyncio.to_thread(client.start, 10)
            client.create("/here", ephemeral=True)
            session = client.client_id
            psutil.Process(before["server_pid"]).suspend()
            async with asyncio.timeout(60):
                while (now := await actor.status())["server_restarts"] == 0 or now["state"] != "running":
                    await asyncio.sleep(0.1)
                await asyncio.to_thread(client.retry, client.get, "/here")
            assert now["server_pid"] != before["server_pid"]
            assert client.client_id == session
        finally:
            client.stop()
            client.close()
            await actor.stop()

    asyncio.run(run())


def test_a_server_that_cannot_start_says_why(zookeeper_server: ZooKeeperProcess, tmp_path: Path) -> None:
    second = ZooKeeperProcess(tmp_path / "other", zookeeper_server.client_port)
    second.start()
    with pytest.raises(DeployError, match="ended while starting"):
        second.wait_ready(30)


def test_a_missing_jar_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYKAFKA_ZOOKEEPER_JAR", "/nowhere/zookeeper.jar")
    with pytest.raises(DeployError, match=r"/nowhere/zookeeper\.jar"):
        find_jar()
