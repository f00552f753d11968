"""Reads and appends of a coordinator, as they reach the led partitions of its internal topic (rule 24)."""

from __future__ import annotations

from raykafka.coordinator.messages import (
    LOG_APPEND,
    LOG_APPENDED,
    LOG_READ,
    LOG_RECORDS,
    LogAppend,
    LogAppended,
    LogRead,
    LogRecords,
)
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.front.serving import ServedPartitions
from raykafka.link import Link
from raykafka.log.batch import record_count
from raykafka.partition.appends import ALL, Appended, Done
from raykafka.process.tasks import TaskSet
from raykafka.types import TopicPartition


class TopicRelay:
    """Serves the frames of one coordinator's ``link``. ``partitions`` are those that this actor serves."""

    def __init__(self, link: Link, partitions: ServedPartitions, topic: str, tasks: TaskSet) -> None:
        self._link = link
        self._partitions = partitions
        self._topic = topic
        self._tasks = tasks
        self._unanswered: dict[Done, int] = {}

    def close(self) -> None:
        """The coordinator has ended: what it sent and still waits for its log to be opened is not written, as its
        successor may have read the log before."""
        for partition in set(self._unanswered.values()):
            served = self._partitions.get(TopicPartition(self._topic, partition))
            if served is not None:
                served.withdraw(self._unanswered)
        self._unanswered.clear()

    def frame_received(self, kind: int, payload: memoryview) -> None:
        if kind == LOG_APPEND:
            append, records = LogAppend.unpack(payload)
            self._append(append, records)
        elif kind == LOG_READ:
            self._tasks.run(self._read(LogRead.unpack(payload)))

    def _append(self, append: LogAppend, records: memoryview) -> None:
        size, count = len(records), record_count(records)

        def done(appended: Appended) -> None:
            self._unanswered.pop(done, None)
            if appended.error is ErrorCode.NONE:
                self._partitions.traffic[self._topic].appended(size, count)
            self._tell(LogAppended(append.correlation, appended.error, appended.base_offset))

        partition = self._partitions.get(TopicPartition(self._topic, append.partition))
        # also where this actor has yet to hear of the epoch, from an image that another has told the coordinator
        if partition is None or partition.leader_error(append.leader_epoch) is not ErrorCode.NONE:
            self._tell(LogAppended(append.correlation, ErrorCode.NOT_LEADER_OR_FOLLOWER))
            return
        self._unanswered[done] = append.partition
        partition.submit(records, ALL, append.timeout_ms, append.leader_epoch, done)

    def _tell(self, appended: LogAppended) -> None:
        if not self._link.is_closed:
            self._link.send(LOG_APPENDED, appended.pack())

    async def _read(self, read: LogRead) -> None:
        answer, records = await self._found(read)
        if not self._link.is_closed:
            self._link.send(LOG_RECORDS, answer.pack(), records)

    async def _found(self, read: LogRead) -> tuple[LogRecords, memoryview]:
        partition = self._partitions.get(TopicPartition(self._topic, read.partition))
        if partition is None or partition.leader_error(read.leader_epoch) is not ErrorCode.NONE:
            return _refused(read, ErrorCode.NOT_LEADER_OR_FOLLOWER)
        # the ends first: what is read afterwards is never less than they say
        view = partition.log.view
        # a follower's view may end before its log does, and knows less of what is committed
        if view is None or view.leader_epoch != read.leader_epoch:
            return _refused(read, ErrorCode.OFFSET_NOT_AVAILABLE)
        offset = max(read.offset, view.log_start_offset)
        try:
            records = await partition.log.read(offset, read.max_bytes)
        except KafkaError as error:
            return _refused(read, error.code)
        if not records and offset < view.high_watermark:
            # the log was closed or cut over the read
            return _refused(read, ErrorCode.OFFSET_NOT_AVAILABLE)
        return LogRecords(read.correlation, ErrorCode.NONE, view.high_watermark, view.log_end_offset), records


def _refused(read: LogRead, error: ErrorCode) -> tuple[LogRecords, memoryview]:
    return LogRecords(read.correlation, error), memoryview(b"")
