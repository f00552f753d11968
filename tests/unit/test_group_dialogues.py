"""Our coordinator answers as a Kafka 3.9.2 did, request for request (see ``group_dialogues``)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.group_coordinator import Coordinator, KnownTopic
from raykafka.protocol import dispatch
from tests.lab.group_dialogues.dialogue import TOPIC, Connection
from tests.lab.group_dialogues.recorded import DIALOGUES, RECORDED, play
from tests.lab.group_log import OffsetsLogOnDisk
from tests.lab.served import GATE, request_context

CONFIG = GroupConfig(
    group_initial_rebalance_delay_ms=0,
    group_min_session_timeout_ms=500,
    group_max_size=3,
)
_RECORDED = json.loads(RECORDED.read_text())


class _CoordinatorConnection:
    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def ask(self, api_key: int, version: int, body: bytes) -> bytes:
        context = request_context(api_key, version, "dialogue")
        return b"".join(await dispatch.serve(GATE, self._coordinator, context, memoryview(body)))


async def _play_to_ours(name: str, directory: Path) -> list[object]:
    log = OffsetsLogOnDisk(directory)
    coordinator = Coordinator(CONFIG, log)
    coordinator.update_topics({TOPIC: KnownTopic("id", 2)}, (), full=True)
    coordinator.start()
    for partition in range(2):
        coordinator.lead(partition, 1, 2)
    await coordinator.loaded()

    async def connect() -> Connection:
        return _CoordinatorConnection(coordinator)

    try:
        return await play(name, connect)
    finally:
        coordinator.stop()
        log.close()


@pytest.mark.parametrize("name", DIALOGUES)
def test_answers_are_those_of_kafka(name: str, tmp_path: Path) -> None:
    said = asyncio.run(_play_to_ours(name, tmp_path))
    for ours, kafkas in zip(said, _RECORDED[name], strict=True):
        assert ours == kafkas
