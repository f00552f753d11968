"""Replica actors without processes, for tests of the broker's side: they hold real directories and locks, and record
what they are asked. A test says what goes wrong."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raykafka.broker.partitions.partitions import Partitions
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.log import DirectoryLocked
from raykafka.log.files import LOG, claim, offset_name
from raykafka.log.lock import DirectoryLock
from raykafka.types import TopicPartition

Key = tuple[str, int]


class RecordedActor:
    """``asked`` has every call with its partition, ``open_logs`` the locks that it holds. ``gate`` holds calls back
    while it is cleared; ``lingers``: its process outlives its link, until it is killed. ``unclean``: how often a leader
    is asked in vain to leave. ``refuse`` may raise what an open raises."""

    def __init__(self, pool: RecordedPool, number: int, takes_replicas: bool = True) -> None:
        self.number = number
        self.busy = 0.0
        self.takes_replicas = takes_replicas
        self.asked: list[tuple[str, Key]] = []
        self.opened: list[dict[str, Any]] = []
        self.open_logs: dict[Key, DirectoryLock] = {}
        self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.lingers = False
        self.unclean = 0
        self.killed = False
        self.end: dict[str, int] = {"log_start_offset": 0, "log_end_offset": 0}
        self._pool = pool
        self._under_way = 0
        self._ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def _ask(self, method: str, args: dict[str, Any]) -> Key:
        key = (args["topic"], args["partition"])
        self.asked.append((method, key))
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        gate: asyncio.Future[Any] = asyncio.ensure_future(self.gate.wait())
        try:
            await asyncio.wait([gate, self._ended], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
        finally:
            gate.cancel()
            self._under_way -= 1
        if self._ended.done():
            raise LinkError("the actor has ended")
        return key

    async def open(self, args: dict[str, Any]) -> dict[str, Any]:
        self.opened.append(args)
        key = await self._ask("open", args)
        directory = self._pool.directory / f"{key[0]}-{key[1]}"
        self._pool.refuse(self, key)
        try:
            directory.mkdir(exist_ok=True)
            lock = DirectoryLock(directory)
        except (OSError, DirectoryLocked) as error:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(error)) from error
        try:
            claim(directory, uuid.UUID(args["topic_id"]))
        except KafkaError:
            lock.release()
            raise
        (directory / offset_name(0, LOG)).touch()
        self.open_logs[key] = lock
        return {**self.end, "recovered_bytes_cut": 0}

    async def close(self, args: dict[str, Any]) -> dict[str, Any]:
        key = await self._ask("close", args)
        if key not in self.open_logs:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "it is not open here")
        return self._left(key)

    async def leave(self, args: dict[str, Any]) -> dict[str, Any]:
        key = await self._ask("leave", args)
        if self.unclean:
            self.unclean -= 1
            return {"left": False}
        return {"left": True, **self._left(key)}

    def _left(self, key: Key) -> dict[str, Any]:
        self.open_logs.pop(key).release()
        end = self.end["log_end_offset"]
        note = {"seal": [key[1], self.number]}
        return {"note": note, **self.end, "high_watermark": end, "recovery_point": end}

    def fail(self, partitions: Partitions, host: Any, *, diverged: bool = False) -> None:
        """One replica fails: its log is closed, and the broker told."""
        self.open_logs.pop(host.tp).release()
        self.say(partitions, host, "failed", reason="a write failed", diverged=diverged)

    def say(self, partitions: Partitions, host: Any, method: str, **more: Any) -> None:
        args = {"topic": host.tp.topic, "topic_id": str(host.topic_id), "partition": host.tp.partition}
        partitions.said(self.number, method, {**args, **more})

    def kill(self) -> None:
        self.killed = True
        self.die()

    def die(self) -> None:
        """The link ends, and with it, unless it lingers, the process."""
        if not self.lingers or self.killed:
            while self.open_logs:
                self.open_logs.popitem()[1].release()
        if not self._ended.done():
            self._ended.set_result(None)
            self._pool.lost(self)


class RecordedPool:
    """``partitions`` hears of actors that come and go. ``placements`` has what was told last of each partition."""

    def __init__(self, directory: Path, count: int, *, each: bool = False) -> None:
        self.directory = directory
        self.each = each
        self.actors: list[RecordedActor] = []
        self.placements: dict[Key, int] = {}
        self.let_go_numbers: list[int] = []
        self.starts = True
        self.refuse: Callable[[RecordedActor, Key], None] = lambda actor, key: None
        self.partitions: Partitions | None = None
        self._living: dict[int, RecordedActor] = {}
        for number in range(count):
            self.start(takes_replicas=not (each and number == 0))

    def living(self) -> Mapping[int, RecordedActor]:
        return self._living

    def start(self, *, takes_replicas: bool = True) -> RecordedActor:
        actor = RecordedActor(self, len(self.actors), takes_replicas)
        self.actors.append(actor)
        self._living[actor.number] = actor
        if self.partitions is not None:
            self.partitions.actor_came(actor)
        return actor

    def need_another(self) -> None:
        if self.starts:
            asyncio.get_running_loop().call_soon(self.start)

    def let_go(self, number: int) -> None:
        self.let_go_numbers.append(number)
        if self._living[number].takes_replicas:
            self._living[number].die()

    def placed(self, rows: list[tuple[TopicPartition, uuid.UUID, int]]) -> None:
        self.placements.update({tp: number for tp, _, number in rows})

    def lost(self, actor: RecordedActor) -> None:
        if self._living.pop(actor.number, None) is not None and self.partitions is not None:
            self.partitions.actor_gone(actor.number)
