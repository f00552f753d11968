"""A stream whose own work fails is lost to the rules, as one whose connection ends: they open another (rule 12)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from raykafka.epoch_history import EpochHistory
from raykafka.replica import sending
from raykafka.replica.rules.events import Hello, OpenStream, StreamId, StreamLost
from raykafka.replica.rules.log_state import Settings
from raykafka.replica.rules.partition import Partition
from raykafka.replica.sending import Holder, Streams
from raykafka.replica.throttle import Throttle
from tests.lab.log_parts import open_log

BROKER, FOLLOWER = 1, 2


class NoLink:
    """A throttle's link to a broker that is never asked."""

    is_closed = True


def test_a_failed_task_of_a_stream_is_a_lost_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(sending, "connect_tcp", fail)
    stream = StreamId(3, BROKER, 0, 1)
    hello = Hello(stream, EpochHistory.of([(3, 0)]), 0, 0, 0)

    async def run() -> Any:
        log = open_log(tmp_path / "t-0")
        partition = Partition(BROKER, Settings(), log_start=0, log_end=0, history=EpochHistory(), checkpoint=None)
        told: asyncio.Queue[Any] = asyncio.Queue()
        throttle = Throttle(NoLink(), 0, BROKER)  # type: ignore[arg-type]
        streams = Streams(log, partition, b"secret", {}, told.put_nowait, throttle)
        streams.holders = {FOLLOWER: Holder("127.0.0.1", 1, 0)}
        streams.open(OpenStream(FOLLOWER, hello))
        event = await asyncio.wait_for(told.get(), 10)
        streams.close_all()
        log.close()
        return event

    assert asyncio.run(run()) == StreamLost(FOLLOWER, stream)
    assert f"t-0: the stream to broker {FOLLOWER}: a task failed" in caplog.text
