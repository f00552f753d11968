"""The Fetch request and response as bytes. Records go into the response as the views they were read into."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from raykafka.error_code import ErrorCode
from raykafka.front.fetch_sessions import FINAL_EPOCH, NO_SESSION, FetchPartition, Key
from raykafka.front.leader_hints import LeaderHints, tagged
from raykafka.protocol.answer import Buffer, Slice, StreamedResponse
from raykafka.protocol.wire import Cursor, length_prefix, nullable_string

FLEXIBLE_FROM = 12
TOPIC_IDS_FROM = 13
_SESSIONS_FROM = 7
_NO_REPLICA_ID_FROM = 15
_HINTS_FROM = 16

_WAIT_SIZES = struct.Struct(">iii")
_SESSION = struct.Struct(">ii")
# partition, [current leader epoch], fetch offset, [last fetched epoch], [log start offset], max bytes
_PARTITION_V4 = struct.Struct(">iqi")
_PARTITION_V5 = struct.Struct(">iqqi")
_PARTITION_V9 = struct.Struct(">iiqqi")
_PARTITION_V12 = struct.Struct(">iiqiqi")

_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_HEAD_V7 = struct.Struct(">ihi")
# partition, error, high watermark, last stable offset, [log start offset]
_RESULT_V4 = struct.Struct(">ihqq")
_RESULT_V5 = struct.Struct(">ihqqq")
_NULL_ARRAY = b"\xff\xff\xff\xff"
_NO_PREFERRED_REPLICA = b"\xff\xff\xff\xff"
_CURRENT_LEADER_TAG = 1
_NODE_ENDPOINTS_TAG = 0


class FetchRequest(NamedTuple):
    """``named`` are the partitions of the request itself; a session adds those it knows already."""

    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    read_committed: bool
    session_id: int
    session_epoch: int
    named: list[FetchPartition]
    forgotten: list[Key]


@dataclass(slots=True)
class Read:
    """What became of one partition of a fetch. Offsets are -1 beside an error."""

    partition: FetchPartition
    error: ErrorCode = ErrorCode.NONE
    high_watermark: int = -1
    last_stable_offset: int = -1
    log_start_offset: int = -1
    records: memoryview | Slice | None = None


def parse(version: int, body: memoryview) -> FetchRequest:
    """Read a request of version 4 or later. Raises MalformedError."""
    cursor = Cursor(body, flexible=version >= FLEXIBLE_FROM)
    if version < _NO_REPLICA_ID_FROM:
        cursor.i32()
    max_wait_ms, min_bytes, max_bytes = cursor.structure(_WAIT_SIZES)
    read_committed = cursor.i8() == 1
    session_id, session_epoch = NO_SESSION, FINAL_EPOCH
    if version >= _SESSIONS_FROM:
        session_id, session_epoch = cursor.structure(_SESSION)
    named: list[FetchPartition] = []
    for _ in range(cursor.array_length()):
        topic_id = cursor.uuid() if version >= TOPIC_IDS_FROM else None
        topic = None if topic_id else cursor.string()
        for _ in range(cursor.array_length()):
            index, offset, max_partition_bytes, epoch, fetched_epoch, log_start = _partition(version, cursor)
            named.append(
                FetchPartition(topic, topic_id, index, offset, max_partition_bytes, epoch, fetched_epoch, log_start)
            )
            cursor.skip_tags()
        cursor.skip_tags()
    forgotten: list[Key] = []
    if version >= _SESSIONS_FROM:
        for _ in range(cursor.array_length()):
            name = cursor.uuid() if version >= TOPIC_IDS_FROM else cursor.string()
            forgotten += [(name, cursor.i32()) for _ in range(cursor.array_length())]
            cursor.skip_tags()
    # the rack of the client, and tagged fields that only followers send, are of no use here
    return FetchRequest(max_wait_ms, min_bytes, max_bytes, read_committed, session_id, session_epoch, named, forgotten)


def _partition(version: int, cursor: Cursor) -> tuple[int, int, int, int, int, int]:
    epoch = fetched_epoch = log_start = -1
    if version >= 12:
        index, epoch, offset, fetched_epoch, log_start, max_bytes = cursor.structure(_PARTITION_V12)
    elif version >= 9:
        index, epoch, offset, log_start, max_bytes = cursor.structure(_PARTITION_V9)
    elif version >= 5:
        index, offset, log_start, max_bytes = cursor.structure(_PARTITION_V5)
    else:
        index, offset, max_bytes = cursor.structure(_PARTITION_V4)
    return index, offset, max_bytes, epoch, fetched_epoch, log_start


class ResponseWriter:
    """Builds one response: runs of small fields as bytes, and between them the records as they are."""

    def __init__(self, version: int, *, read_committed: bool, hints: LeaderHints | None) -> None:
        self._version = version
        self._flexible = version >= FLEXIBLE_FROM
        self._hints = hints
        self._buffers: list[Any] = []
        self._run = bytearray()
        self._aborted = length_prefix(0, flexible=self._flexible) if read_committed else self._null_array()

    def _null_array(self) -> bytes:
        return b"\0" if self._flexible else _NULL_ARRAY

    def write(self, reads: Iterable[Read], *, error: ErrorCode, session_id: int, throttle_ms: int) -> list[Buffer]:
        """The buffers of the response body. Reads of one topic that follow one another share its entry."""
        run, flexible = self._run, self._flexible
        if self._version >= _SESSIONS_FROM:
            run += _HEAD_V7.pack(throttle_ms, error, session_id)
        else:
            run += _I32.pack(throttle_ms)
        topics = _by_topic(reads)
        run += length_prefix(len(topics), flexible=flexible)
        for of_topic in topics:
            first = of_topic[0].partition
            if self._version >= TOPIC_IDS_FROM:
                assert first.topic_id is not None
                run += first.topic_id.bytes
            else:
                run += nullable_string(first.topic, flexible=flexible)
            run += length_prefix(len(of_topic), flexible=flexible)
            for read in of_topic:
                self._write_read(read)
                run = self._run
            if flexible:
                run.append(0)
        if flexible:
            endpoints = self._hints.endpoints() if self._hints and self._version >= _HINTS_FROM else None
            run += tagged(_NODE_ENDPOINTS_TAG, endpoints)
        self._buffers.append(run)
        return (
            self._buffers
            if all(isinstance(part, Buffer) for part in self._buffers)
            else StreamedResponse(self._buffers)
        )

    def _write_read(self, read: Read) -> None:
        run, version, partition = self._run, self._version, read.partition
        fields = (partition.partition, read.error, read.high_watermark, read.last_stable_offset)
        if version >= 5:
            run += _RESULT_V5.pack(*fields, read.log_start_offset)
        else:
            run += _RESULT_V4.pack(*fields)
        run += self._aborted
        if version >= 11:
            run += _NO_PREFERRED_REPLICA
        records = read.records
        run += length_prefix(0 if records is None else len(records), flexible=self._flexible)
        if records is not None and len(records):
            self._buffers.append(run)
            self._buffers.append(records)
            run = self._run = bytearray()
        if self._flexible:
            leader = None
            if read.error in _MOVED and self._hints is not None and partition.topic is not None:
                leader = self._hints.leader(partition.topic, partition.partition)
            run += tagged(_CURRENT_LEADER_TAG, leader)


_MOVED = (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.FENCED_LEADER_EPOCH)


def _by_topic(reads: Iterable[Read]) -> list[list[Read]]:
    topics: list[list[Read]] = []
    last: object = None
    for read in reads:
        topic = read.partition.topic_id or read.partition.topic
        if not topics or topic != last:
            topics.append([])
            last = topic
        topics[-1].append(read)
    return topics
