"""Every dialogue, and what a Kafka answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.lab.group_dialogues import membership, offsets
from tests.lab.group_dialogues.dialogue import Connection, Dialogue, KafkaConnection, Play

RECORDED = Path(__file__).with_suffix(".json")
DIALOGUES: dict[str, Play] = {**membership.DIALOGUES, **offsets.DIALOGUES}


async def play(name: str, connect: Callable[[], Awaitable[Connection]]) -> list[Any]:
    """What was said in one dialogue, in a form that JSON can hold."""
    conversation = Dialogue(connect)
    await DIALOGUES[name](conversation)
    return json.loads(json.dumps(conversation.lines))


def _one_line_an_answer(recorded: dict[str, list[Any]]) -> str:
    parts = (
        f'"{name}": [\n' + ",\n".join("  " + json.dumps(line, sort_keys=True) for line in lines) + "\n]"
        for name, lines in recorded.items()
    )
    return "{\n" + ",\n".join(parts) + "\n}\n"


async def record(bootstrap: str, names: list[str]) -> None:
    """Play the dialogues of these names, all if there are none, to a Kafka, and write down what it answers."""
    host, _, port = bootstrap.rpartition(":")

    async def connect() -> Connection:
        return KafkaConnection(*await asyncio.open_connection(host, int(port)))

    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    for name in names or DIALOGUES:
        recorded[name] = await play(name, connect)
        print(name, len(recorded[name]))
        RECORDED.write_text(_one_line_an_answer(recorded))
