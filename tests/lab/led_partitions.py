"""Partitions of the offsets topic as one actor serves them: real logs and views, led alone, without a replica's
process. What the controller would decide, the test sets."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from raykafka.cluster.image import PartitionState
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log import Log, LogConfig
from raykafka.partition.appends import ANY_EPOCH, Appended, Done
from raykafka.partition.log_view import LogView
from raykafka.partition.view import View
from raykafka.telemetry.traffic import Traffic
from raykafka.types import OFFSETS_TOPIC, TopicPartition

BROKER = 0
_TOPIC_ID = uuid.UUID(int=1)


class LedPartition:
    """Appends are in the file at once, and committed on the next pass of the event loop, or with ``release`` while
    ``hold`` is set. ``told`` is the state that the actor goes by; ``show`` shows the log as it is."""

    def __init__(self, directory: Path, index: int, cold_reads: ThreadPoolExecutor, leader_epoch: int) -> None:
        self.tp = TopicPartition(OFFSETS_TOPIC, index)
        self.topic_id = _TOPIC_ID
        folder = directory / f"{OFFSETS_TOPIC}-{index}"
        self._log = Log.open(
            folder,
            LogConfig.from_topic_config({}),
            topic_id=_TOPIC_ID,
            recovery_point=0,
            now_ms=time.time_ns() // 1_000_000,
        )
        self.log = LogView(folder, cold_reads)
        self.hold = False
        self._held: list[tuple[Done, Appended]] = []
        self.told(leader_epoch)
        self.show()

    @property
    def is_leader(self) -> bool:
        return self.state.leader == BROKER

    is_opening = False

    def told(self, leader_epoch: int, leader: int = BROKER) -> None:
        self.state = PartitionState((BROKER, 1), leader, leader_epoch, (BROKER,), leader_epoch)

    def show(self) -> None:
        log, end = self._log, self._log.log_end_offset
        position = log.position_of(end)
        epoch = self.state.leader_epoch
        self.log.show(
            View(epoch, 0, log.truncations, 0, end, position, end, position, end, log.recovery_point, log.segments)
        )

    def leader_error(self, leader_epoch: int = ANY_EPOCH) -> ErrorCode:
        if leader_epoch >= 0 and leader_epoch != self.state.leader_epoch:
            newer = leader_epoch > self.state.leader_epoch
            return ErrorCode.UNKNOWN_LEADER_EPOCH if newer else ErrorCode.FENCED_LEADER_EPOCH
        return ErrorCode.NONE if self.is_leader else ErrorCode.NOT_LEADER_OR_FOLLOWER

    async def delete_records(self, offset: int) -> int:
        """Nothing is deleted here."""
        raise KafkaError(ErrorCode.INVALID_REQUEST)

    def withdraw(self, appends: Collection[Done]) -> None:
        """Nothing waits for the log to be opened."""

    def submit(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        self._log.epochs.assign_if_newer(leader_epoch, self._log.log_end_offset)
        try:
            info = self._log.append_as_leader(records, leader_epoch, time.time_ns() // 1_000_000)
        except KafkaError as error:
            done(Appended(0, error.code))
            return
        self._held.append((done, Appended(0, ErrorCode.NONE, info.base_offset)))
        if not self.hold:
            asyncio.get_running_loop().call_soon(self.release)

    @property
    def held(self) -> int:
        return len(self._held)

    def release(self) -> None:
        """Commit what is held, and answer it."""
        held, self._held = self._held, []
        self.show()
        for done, appended in held:
            done(appended)

    def close(self) -> None:
        self.log.show_nothing()
        self._log.close()


class LedPartitions:
    """``front.serving.ServedPartitions`` of these."""

    def __init__(self, partitions: Iterable[LedPartition]) -> None:
        self._partitions = {partition.tp: partition for partition in partitions}
        self.traffic = Traffic()

    def get(self, tp: tuple[str, int]) -> LedPartition | None:
        return self._partitions.get(TopicPartition(*tp))

    def missing_error(self, tp: tuple[str, int]) -> ErrorCode:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@contextmanager
def led_partitions(directory: Path, count: int = 1, leader_epoch: int = 1) -> Iterator[LedPartitions]:
    """``count`` partitions of the offsets topic that this broker leads in ``leader_epoch``."""
    with ThreadPoolExecutor(1) as cold_reads:
        made = [LedPartition(directory, index, cold_reads, leader_epoch) for index in range(count)]
        try:
            yield LedPartitions(made)
        finally:
            for partition in made:
                partition.close()
