"""What a coordinator and the replica actors of its broker say about the partitions of the coordinator's internal topic:
the frames of their links. All integers are big-endian; ``records`` are whole record batches (magic 2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from raykafka.error_code import ErrorCode
from raykafka.types import FrameKind

LOG_APPEND = FrameKind(24)
LOG_APPENDED = FrameKind(25)
LOG_READ = FrameKind(26)
LOG_RECORDS = FrameKind(27)

_ERRORS = {int(error): error for error in ErrorCode}

_LOG_APPEND = struct.Struct(">QIiI")
_LOG_APPENDED = struct.Struct(">Qhq")
_LOG_READ = struct.Struct(">QIiqI")
_LOG_RECORDS = struct.Struct(">Qhqq")


@dataclass(frozen=True, slots=True)
class LogAppend:
    """Coordinator to actor: append the records behind it to a partition with acks=all, in ``leader_epoch`` only
    (rule 24). ``timeout_ms`` bounds the wait for the high watermark."""

    correlation: int
    partition: int
    leader_epoch: int
    timeout_ms: int

    def pack(self) -> bytes:
        return _LOG_APPEND.pack(self.correlation, self.partition, self.leader_epoch, self.timeout_ms)

    @staticmethod
    def unpack(payload: memoryview) -> tuple[LogAppend, memoryview]:
        return LogAppend(*_LOG_APPEND.unpack_from(payload)), payload[_LOG_APPEND.size :]


@dataclass(frozen=True, slots=True)
class LogAppended:
    """Actor to coordinator: the records of a LogAppend are committed from ``base_offset`` on, or refused."""

    correlation: int
    error: ErrorCode
    base_offset: int = -1

    def pack(self) -> bytes:
        return _LOG_APPENDED.pack(self.correlation, self.error, self.base_offset)

    @staticmethod
    def unpack(payload: memoryview) -> LogAppended:
        correlation, error, base_offset = _LOG_APPENDED.unpack_from(payload)
        return LogAppended(correlation, _ERRORS[error], base_offset)


@dataclass(frozen=True, slots=True)
class LogRead:
    """Coordinator to actor: give me whole batches of a partition from ``offset``, committed ones only, and the log's
    ends, as they are in ``leader_epoch`` (rule 24)."""

    correlation: int
    partition: int
    leader_epoch: int
    offset: int
    max_bytes: int

    def pack(self) -> bytes:
        return _LOG_READ.pack(self.correlation, self.partition, self.leader_epoch, self.offset, self.max_bytes)

    @staticmethod
    def unpack(payload: memoryview) -> LogRead:
        return LogRead(*_LOG_READ.unpack_from(payload))


@dataclass(frozen=True, slots=True)
class LogRecords:
    """Actor to coordinator: the answer to LogRead, with the batches behind it (none: nothing committed from there
    on)."""

    correlation: int
    error: ErrorCode
    high_watermark: int = -1
    log_end_offset: int = -1

    def pack(self) -> bytes:
        return _LOG_RECORDS.pack(self.correlation, self.error, self.high_watermark, self.log_end_offset)

    @staticmethod
    def unpack(payload: memoryview) -> tuple[LogRecords, memoryview]:
        correlation, error, high_watermark, log_end = _LOG_RECORDS.unpack_from(payload)
        return LogRecords(correlation, _ERRORS[error], high_watermark, log_end), payload[_LOG_RECORDS.size :]
