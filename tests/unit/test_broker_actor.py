"""What the Supervisor's settings do to a broker that runs."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raykafka.broker.actor import BrokerActor
from raykafka.broker.settings import EACH, BrokerSettings, ListenerAddress, ZooKeeperSettings

INSIDE = ListenerAddress("INSIDE", "127.0.0.1", 9092)


class RecordingBroker:
    """A broker that only says what it was asked for."""

    said: list[tuple[Any, ...]]

    def __init__(self, starter: Any, exporter: Any) -> None:
        self.state = "stopped"

    async def start(self, settings: BrokerSettings) -> None:
        self.state = "running"
        self.said.append(("start", settings.replica_actors, settings.link_port))

    async def stop(self) -> None:
        self.state = "stopped"
        self.said.append(("stop",))

    def use_actors(self, number: int) -> None:
        self.said.append(("use", number))

    def status(self, partitions: bool) -> dict[str, Any]:
        return {"state": self.state}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """What the broker is asked for."""
    monkeypatch.setattr("raykafka.broker.broker.Broker", RecordingBroker)
    monkeypatch.setattr("raykafka.broker.actor.take_normal_priority", lambda: None)  # this process's is the tests'
    RecordingBroker.said = []
    yield RecordingBroker.said


def settings(directory: Path, **more: Any) -> BrokerSettings:
    made = BrokerSettings(
        cluster="c",
        broker_id=0,
        secret_hex="00",
        data_dir=str(directory),
        zookeeper=ZooKeeperSettings("127.0.0.1:1/c"),
        listeners=(INSIDE,),
        advertised=(INSIDE,),
        link_host="127.0.0.1",
        link_port=9292,
        inter_broker_listener_name="INSIDE",
    )
    return dataclasses.replace(made, **more)


def configure(*steps: BrokerSettings | str) -> None:
    """Give a broker's actor these settings one after the other; "stop" stops it, "halt" and "resume" do so."""

    async def body() -> None:
        actor = BrokerActor("c", 0)
        for step in steps:
            if isinstance(step, str):
                await getattr(actor, step)()
            else:
                await actor.configure(step.to_json())

    asyncio.run(body())


def test_another_number_of_replica_actors_does_not_restart_a_broker(said: list[Any], tmp_path: Path) -> None:
    one, each = settings(tmp_path), settings(tmp_path, replica_actors=EACH)
    configure(one, one, each, each, settings(tmp_path, replica_actors=3))
    assert said == [("start", 1, 9292), ("use", EACH), ("use", 3)]


def test_other_settings_restart_it_with_all_that_is_new(said: list[Any], tmp_path: Path) -> None:
    configure(settings(tmp_path), settings(tmp_path, replica_actors=2, link_port=1), settings(tmp_path, link_port=1))
    assert said == [("start", 1, 9292), ("stop",), ("start", 2, 1), ("use", 1)]


def test_a_broker_that_is_down_starts_with_the_number_last_given(said: list[Any], tmp_path: Path) -> None:
    two, three = settings(tmp_path, replica_actors=2), settings(tmp_path, replica_actors=3)
    configure(settings(tmp_path), "stop", two)
    assert said == [("start", 1, 9292), ("stop",), ("stop",), ("start", 2, 9292)]
    said.clear()
    configure(two, "halt", three, "resume")
    assert said == [("start", 2, 9292), ("stop",), ("stop",), ("start", 3, 9292)]
