"""What travels on a link: one number a kind, and the packed structs of the data kinds. Format number: ``link.FORMAT``.

All integers are big-endian. ``records`` is always one or more whole Kafka record batches (magic 2), as the client
sent them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from raykafka.error_code import ErrorCode
from raykafka.types import FrameKind

# control kinds, handled by Link itself
PING = FrameKind(1)
PONG = FrameKind(2)
CALL = FrameKind(3)
REPLY = FrameKind(4)
TELL = FrameKind(5)
FORWARD = FrameKind(6)
FORWARDED = FrameKind(7)

FIRST_DATA_KIND = 16
# coordinator <-> broker
LOG_APPEND = FrameKind(24)
LOG_APPENDED = FrameKind(25)
LOG_READ = FrameKind(26)
LOG_RECORDS = FrameKind(27)

_LOG_APPEND = struct.Struct(">QIiI")
_LOG_READ = struct.Struct(">QIqI")
_LOG_RECORDS = struct.Struct(">Qhqq")


@dataclass(frozen=True, slots=True)
class LogAppend:
    """Coordinator to broker: append to a partition of the offsets topic with acks=all, in ``leader_epoch`` only
    (rule 24)."""

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
class LogRead:
    """Coordinator to broker: give me whole batches of an offsets partition from ``offset``, committed ones only."""

    correlation: int
    partition: int
    offset: int
    max_bytes: int

    def pack(self) -> bytes:
        return _LOG_READ.pack(self.correlation, self.partition, self.offset, self.max_bytes)

    @staticmethod
    def unpack(payload: memoryview) -> LogRead:
        return LogRead(*_LOG_READ.unpack_from(payload))


@dataclass(frozen=True, slots=True)
class LogRecords:
    """Broker to coordinator: the answer to LogRead, with the batches behind it (none: nothing committed from there
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
        return LogRecords(correlation, ErrorCode(error), high_watermark, log_end), payload[_LOG_RECORDS.size :]
