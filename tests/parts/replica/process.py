"""A real replica process on a real Unix socket, and the broker's end of its link."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from raykafka.cluster.image import PartitionState, partition_to_json
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.link import Link, serve_unix
from raykafka.log.batch import Record, build_batch, iter_batches, iter_records
from raykafka.partition.appends import APPEND, APPENDED, Appended, pack_append
from raykafka.partition.view import VIEW, View

SECRET = b"k" * 32
TOPIC_ID = uuid.UUID("6f1c2f40-5a0e-4bb5-9a3e-3f0f7f3a1c55")
DEADLINE_S = 60.0
BROKER = 1


def batch(*values: bytes, timestamp: int | None = None, **fields: Any) -> bytearray:
    at = int(time.time() * 1000) if timestamp is None else timestamp
    return build_batch([Record(None, value, at) for value in values], **fields)


def state(
    epoch: int = 0, *, leader: int = BROKER, isr: tuple[int, ...] = (BROKER,), version: int = 0
) -> PartitionState:
    replicas = tuple(sorted({BROKER, *isr}))
    return PartitionState(replicas, leader, epoch, isr, version)


def stored(directory: Path) -> list[tuple[int, int, bytes]]:
    """(offset, leader epoch, value) of every record in a partition's segment files."""
    found = []
    for path in sorted(directory.glob("*.log")):
        data = memoryview(bytearray(path.read_bytes()))
        for at, header in iter_batches(data):
            for record in iter_records(data[at : at + header.size]):
                found.append((record.offset, header.leader_epoch, record.value or b""))
    return found


class ReplicaProcess:
    """One process. ``frames`` holds what it told, in order: Views and Appendeds; ``calls`` what it called, and
    ``answers`` how, by method, where that is more than nothing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "events-0"
        self.socket = str(directory / "s")
        self.streams = ""
        self.frames: list[View | Appended] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {}
        self.process: subprocess.Popen[bytes]
        self.link: Link
        self._answers: dict[int, asyncio.Future[Appended]] = {}
        self._correlations = itertools.count(1)
        self._changed = asyncio.Event()

    async def start(self) -> None:
        connected: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self._server = await serve_unix(self.socket, SECRET, {"role": "broker"}, connected.set_result)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raykafka.replica.actor", "--socket", self.socket, "--token", "t"],
            env={**os.environ, "RAYKAFKA_SECRET_HEX": SECRET.hex()},
        )
        self.link = await asyncio.wait_for(connected, DEADLINE_S)
        self.streams = self.link.peer["streams"]
        self.link.start(on_frame=self._on_frame, on_call=self._on_call)

    async def stop(self) -> None:
        self.link.close()
        self._server.close()
        await self.exited()

    async def exited(self) -> int:
        return await asyncio.wait_for(asyncio.to_thread(self.process.wait), DEADLINE_S)

    async def kill(self) -> None:
        self.process.kill()
        await self.exited()
        self._server.close()

    def _on_frame(self, kind: int, payload: memoryview) -> None:
        if kind == APPENDED:
            appended = Appended.unpack(payload)
            self.frames.append(appended)
            self._answers.pop(appended.correlation).set_result(appended)
        else:
            assert kind == VIEW
            self.frames.append(View.unpack(payload))
        self._changed.set()

    async def _on_call(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        self.calls.append((method, args))
        self._changed.set()
        answer = self.answers.get(method)
        return await answer(args) if answer is not None else {}

    async def open(
        self, state_: PartitionState | None = None, *, config: dict[str, str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        args = {
            "topic": "events",
            "topic_id": str(TOPIC_ID),
            "partition": 0,
            "directory": str(self.directory),
            "broker_id": BROKER,
            "state": partition_to_json(state_ or state()),
            "config": config or {},
            "recovery_point": 0,
            "high_watermark": None,
            "log_start_offset": 0,
        }
        return await self.link.call("open", {**args, **changes}, DEADLINE_S)

    async def tell(self, state_: PartitionState, **changes: Any) -> dict[str, Any]:
        return await self.link.call("state", {"state": partition_to_json(state_), **changes}, DEADLINE_S)

    async def called(self, method: str, holds: Callable[[dict[str, Any]], bool] = lambda args: True) -> dict[str, Any]:
        """The arguments of a call of the replica's for which ``holds``: one that came, or the first that comes."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for name, args in self.calls:
                    if name == method and holds(args):
                        return args
                self._changed.clear()
                await self._changed.wait()

    def append(
        self, records: bytes | bytearray, *, acks: int = -1, leader_epoch: int = -1, timeout_ms: int = 60_000
    ) -> asyncio.Future[Appended]:
        correlation = next(self._correlations)
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._answers[correlation] = answer
        head = pack_append(correlation, acks, leader_epoch, timeout_ms)
        self.link.send(APPEND, head, records)
        return answer

    async def appended(self, records: bytes | bytearray, **how: int) -> Appended:
        return await asyncio.wait_for(self.append(records, **how), DEADLINE_S)

    @property
    def views(self) -> list[View]:
        return [frame for frame in self.frames if isinstance(frame, View)]

    async def view_where(self, holds: Callable[[View], bool]) -> View:
        """The newest view, once it is one for which ``holds``."""
        async with asyncio.timeout(DEADLINE_S):
            while not (self.views and holds(self.views[-1])):
                self._changed.clear()
                await self._changed.wait()
        return self.views[-1]


def with_replica(test: Callable[[ReplicaProcess], Awaitable[None]]) -> Callable[[Path], None]:
    """A test on one replica process, which is ended afterwards."""

    def run(tmp_path: Path) -> None:
        async def play() -> None:
            replica = ReplicaProcess(tmp_path)
            await replica.start()
            try:
                await test(replica)
            finally:
                if replica.process.poll() is None:
                    await replica.stop()

        asyncio.run(play())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def refused(call: Coroutine[Any, Any, Any]) -> ErrorCode:
    """The code with which the replica refuses a call."""
    try:
        await call
    except KafkaError as error:
        return error.code
    raise AssertionError("the call was not refused")
