"""The offsets topic as a TopicLog on real directories, whose commits a test may hold back, refuse, or let through."""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path

from raykafka.coordinator.messages import LogRecords
from raykafka.coordinator.runtime.topic_log import AppendDone
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log import Log, LogConfig
from raykafka.log.batch import iter_batches
from raykafka.types import OFFSETS_TOPIC

_TOPIC_ID = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")


class OffsetsLogOnDisk:
    """Appends reach the file at once and are committed on the next pass of the event loop, or with ``release`` while
    ``hold`` is set. ``refusal`` answers instead of the log. An epoch below the last one seen is refused."""

    topic = OFFSETS_TOPIC

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._logs: dict[int, Log] = {}
        self._epochs: dict[int, int] = {}
        self._held: list[tuple[AppendDone, int]] = []
        self.hold = False
        self.refusal = ErrorCode.NONE
        self.appended = 0

    def log(self, partition: int) -> Log:
        if partition not in self._logs:
            self._logs[partition] = Log.open(
                self._directory / f"{OFFSETS_TOPIC}-{partition}",
                LogConfig.from_topic_config({"cleanup.policy": "compact"}),
                topic_id=_TOPIC_ID,
                recovery_point=0,
                now_ms=time.time_ns() // 1_000_000,
            )
        return self._logs[partition]

    def append(
        self,
        partition: int,
        leader_epoch: int,
        records: bytes | bytearray | memoryview,
        timeout_ms: int,
        done: AppendDone,
    ) -> None:
        loop = asyncio.get_running_loop()
        log = self.log(partition)
        newest = self._epochs.setdefault(partition, leader_epoch)
        error = self.refusal or (ErrorCode.NOT_LEADER_OR_FOLLOWER if leader_epoch < newest else ErrorCode.NONE)
        if error:
            loop.call_soon(done, error, -1)
            return
        log.epochs.assign_if_newer(leader_epoch, log.log_end_offset)
        try:
            info = log.append_as_leader(memoryview(bytearray(records)), leader_epoch, time.time_ns() // 1_000_000)
        except KafkaError as failure:
            loop.call_soon(done, failure.code, -1)
            return
        self.appended += 1
        if self.hold:
            self._held.append((done, info.base_offset))
        else:
            loop.call_soon(done, ErrorCode.NONE, info.base_offset)

    def fence(self, partition: int, leader_epoch: int) -> None:
        self._epochs[partition] = leader_epoch

    def release(self, error: ErrorCode = ErrorCode.NONE, most: int | None = None) -> int:
        """Decide what is held, the ``most`` oldest of them; how many appends that were."""
        most = len(self._held) if most is None else most
        held, self._held = self._held[:most], self._held[most:]
        for done, base_offset in held:
            done(error, -1 if error else base_offset)
        return len(held)

    @property
    def held(self) -> int:
        return len(self._held)

    async def read(
        self, partition: int, leader_epoch: int, offset: int, max_bytes: int
    ) -> tuple[LogRecords, memoryview]:
        log = self.log(partition)
        end = log.log_end_offset
        data = memoryview(b"".join(path.read_bytes() for path in sorted(log.directory.glob("*.log"))))
        found = bytearray()
        for position, header in iter_batches(data):
            if header.last_offset >= offset and (not found or len(found) + header.size <= max_bytes):
                found += data[position : position + header.size]
            elif found:
                break
        return LogRecords(0, ErrorCode.NONE, end, end), memoryview(found)

    def close(self) -> None:
        for log in self._logs.values():
            log.close()
        self._logs.clear()
