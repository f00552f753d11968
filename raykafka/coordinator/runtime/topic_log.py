"""An internal topic as its coordinator sees it: its broker appends to and reads from it, over their link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

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
from raykafka.errors import LinkError
from raykafka.link.link import Link

AppendDone = Callable[[ErrorCode, int], None]


class TopicLog(Protocol):
    @property
    def topic(self) -> str: ...

    def append(
        self, partition: int, leader_epoch: int, records: bytes | bytearray, timeout_ms: int, done: AppendDone
    ) -> None:
        """Append with acks=all in ``leader_epoch`` only, in the order of the calls. ``done(error, base_offset)`` is
        called once, when the records are committed or refused."""

    async def read(self, partition: int, offset: int, max_bytes: int) -> tuple[LogRecords, memoryview]:
        """Whole committed batches from ``offset`` on, or from the log's start if that is higher."""


class LinkedTopicLog:
    """TopicLog over the link to the broker. Hand it the link's frames, and tell it when the link has ended."""

    def __init__(self, topic: str, link: Link) -> None:
        self.topic = topic
        self._link = link
        self._next_correlation = 0
        self._appends: dict[int, AppendDone] = {}
        self._reads: dict[int, asyncio.Future[tuple[LogRecords, memoryview]]] = {}

    def append(
        self, partition: int, leader_epoch: int, records: bytes | bytearray, timeout_ms: int, done: AppendDone
    ) -> None:
        if self._link.is_closed:
            done(ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)
            return
        self._next_correlation += 1
        self._appends[self._next_correlation] = done
        head = LogAppend(self._next_correlation, partition, leader_epoch, timeout_ms).pack()
        self._link.send(LOG_APPEND, head, records)

    async def read(self, partition: int, offset: int, max_bytes: int) -> tuple[LogRecords, memoryview]:
        """Raises LinkError when the link ends first."""
        if self._link.is_closed:
            raise LinkError("the link to the broker is closed")
        self._next_correlation += 1
        correlation = self._next_correlation
        future: asyncio.Future[tuple[LogRecords, memoryview]] = asyncio.get_running_loop().create_future()
        self._reads[correlation] = future
        self._link.send(LOG_READ, LogRead(correlation, partition, offset, max_bytes).pack())
        try:
            return await future
        finally:
            self._reads.pop(correlation, None)

    def frame_received(self, kind: int, payload: memoryview) -> None:
        if kind == LOG_APPENDED:
            answer = LogAppended.unpack(payload)
            done = self._appends.pop(answer.correlation, None)
            if done is not None:
                done(answer.error, answer.base_offset)
        elif kind == LOG_RECORDS:
            head, records = LogRecords.unpack(payload)
            future = self._reads.get(head.correlation)
            if future is not None and not future.done():
                future.set_result((head, records))

    def closed(self) -> None:
        """The link ended: whether what was on its way got committed is not known here, and a new leader will tell."""
        appends, self._appends = self._appends, {}
        for done in appends.values():
            done(ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)
        for future in self._reads.values():
            if not future.done():
                future.set_exception(LinkError("the link to the broker ended"))
