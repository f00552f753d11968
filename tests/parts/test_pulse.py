"""Who hears nothing of a broker may be cut off from it: its own node says whether its process stands still."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from raykafka.broker.settings import BrokerSettings, ZooKeeperSettings
from raykafka.deploy.liveness import kill_if_silent
from tests.lab.free_ports import free_port

SECRET = b"s" * 32


def _settings(port: int) -> dict[str, object]:
    return BrokerSettings(
        cluster="c",
        broker_id=1,
        secret_hex=SECRET.hex(),
        data_dir="/nowhere",
        zookeeper=ZooKeeperSettings(""),
        listeners=(),
        advertised=(),
        link_host="127.0.0.1",
        link_port=port,
        inter_broker_listener_name="INSIDE",
    ).to_json()


def _process(port: int, broker_id: int, title: str = "ray::BrokerActor") -> subprocess.Popen[str]:
    """A process whose inter-broker port answers as that broker."""
    program = f"""
import asyncio
from raykafka.broker.neighbourhood.inter_broker_port import InterBrokerPort
async def main():
    inter_broker_port = InterBrokerPort({SECRET!r}, {{}})
    inter_broker_port.open("127.0.0.1", {port})
    await inter_broker_port.serve("cluster", {broker_id}, 4)
    print("ready", flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""
    made = subprocess.Popen([title, "-c", program], executable=sys.executable, stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None and made.stdout.readline() == "ready\n"
    return made


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def broker(port: int) -> Iterator[subprocess.Popen[str]]:
    made = _process(port, broker_id=1)
    yield made
    made.kill()
    made.wait()


def test_a_broker_that_answers_on_its_node_is_left_alone(broker: subprocess.Popen[str], port: int) -> None:
    assert not kill_if_silent(broker.pid, _settings(port))
    assert broker.poll() is None


def test_a_broker_that_stands_still_is_killed(broker: subprocess.Popen[str], port: int) -> None:
    broker.send_signal(signal.SIGSTOP)
    assert kill_if_silent(broker.pid, _settings(port))
    assert broker.wait(30) == -signal.SIGKILL


def test_a_process_that_is_none_of_rays_is_left_alone(port: int) -> None:
    """The broker's pid may have become somebody else's."""
    other = _process(port, broker_id=2, title="python")
    assert not kill_if_silent(other.pid, _settings(port))
    assert other.poll() is None
    other.kill()
    other.wait()
    assert not kill_if_silent(other.pid, _settings(port))
