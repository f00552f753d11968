"""What travels on a link: one number a kind, and the packed structs of the data kinds. Format number: ``link.FORMAT``.

All integers are big-endian. ``records`` is always one or more whole Kafka record batches (magic 2), as the client
sent them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from raykafka.error_code import ErrorCode
from raykafka.types import LogPosition

# control kinds, handled by Link itself
PING = 1
PONG = 2
CALL = 3
REPLY = 4
TELL = 5
FORWARD = 6
FORWARDED = 7

FIRST_DATA_KIND = 16
# broker <-> replica
APPEND = 16
APPENDED = 17
VIEW = 18
# coordinator <-> broker: raykafka.coordinator.messages
# leader <-> follower (raykafka.replica.stream_frames)
STREAM_READY = 32
STREAM_HELLO = 33
STREAM_ANSWER = 34
STREAM_DATA = 35
STREAM_ACK = 36
STREAM_SLEEP = 37
STREAM_ASK = 38
STREAM_GRANT = 39
STREAM_REFUSED = 40

ANY_EPOCH = -1
_ERRORS = {int(error): error for error in ErrorCode}

_APPEND = struct.Struct(">QbiI")
_APPENDED = struct.Struct(">Qhqqq")
_VIEW = struct.Struct(">iqIqqqqqqqqqI")


@dataclass(frozen=True, slots=True)
class Append:
    """Broker to replica: append ``records`` as leader. ``acks`` is 0, 1 or -1; ``leader_epoch`` ANY_EPOCH, or the
    only one that may take it; ``timeout_ms`` bounds the wait of acks=-1 for the high watermark."""

    correlation: int
    acks: int
    leader_epoch: int
    timeout_ms: int

    def pack(self) -> bytes:
        return pack_append(self.correlation, self.acks, self.leader_epoch, self.timeout_ms)

    @staticmethod
    def unpack(payload: memoryview) -> tuple[Append, memoryview]:
        """The message, and the records behind it."""
        return Append(*_APPEND.unpack_from(payload)), payload[_APPEND.size :]


@dataclass(slots=True)
class Appended:
    """Replica to broker: what became of an Append. ``log_append_time_ms`` is -1 unless the topic uses LogAppendTime.

    One is made for every batch: it is not frozen only because frozen ones take three times as long to make.
    """

    correlation: int
    error: ErrorCode
    base_offset: int = -1
    log_append_time_ms: int = -1
    log_start_offset: int = -1
    message: str = ""

    def pack(self) -> bytes:
        return pack_appended(
            self.correlation,
            self.error,
            self.base_offset,
            self.log_append_time_ms,
            self.log_start_offset,
            self.message,
        )

    @staticmethod
    def unpack(payload: memoryview) -> Appended:
        correlation, error, base, time_ms, start = _APPENDED.unpack_from(payload)
        message = str(payload[_APPENDED.size :], "utf-8") if error else ""
        return Appended(correlation, _ERRORS[error], base, time_ms, start, message)


def pack_append(correlation: int, acks: int, leader_epoch: int, timeout_ms: int) -> bytes:
    """An Append from plain values."""
    return _APPEND.pack(correlation, acks, leader_epoch, timeout_ms)


def unpack_append(payload: memoryview) -> tuple[int, int, int, int, memoryview]:
    """An Append as plain values, and its records: what a replica does for every batch."""
    correlation, acks, leader_epoch, timeout_ms = _APPEND.unpack_from(payload)
    return correlation, acks, leader_epoch, timeout_ms, payload[_APPEND.size :]


def pack_appended(
    correlation: int, error: ErrorCode, base_offset: int, log_append_time_ms: int, log_start_offset: int, message: str
) -> bytes:
    """An Appended from plain values."""
    head = _APPENDED.pack(correlation, error, base_offset, log_append_time_ms, log_start_offset)
    return head + message.encode() if message else head


@dataclass(slots=True)
class View:
    """Replica to broker: what may be read (rule 20). Sent after the file writes it speaks of have returned. Never
    changed once made (not frozen for the same reason as Appended).

    ``leader_epoch`` is the epoch this replica leads or follows; ``epoch_start_offset`` where its leadership began.
    ``truncations`` counts truncations, so that positions cached before one are dropped. ``segments`` lists the base
    offsets of all segments, ascending, and is None when they are as in the last view sent.
    """

    leader_epoch: int
    epoch_start_offset: int
    truncations: int
    log_start_offset: int
    high_watermark: int
    high_watermark_position: LogPosition
    last_stable_offset: int
    last_stable_position: LogPosition
    log_end_offset: int
    recovery_point: int
    segments: tuple[int, ...] | None = None

    def pack(self) -> bytes:
        count = 0 if self.segments is None else len(self.segments)
        head = _VIEW.pack(
            self.leader_epoch,
            self.epoch_start_offset,
            self.truncations,
            self.log_start_offset,
            self.high_watermark,
            *self.high_watermark_position,
            self.last_stable_offset,
            *self.last_stable_position,
            self.log_end_offset,
            self.recovery_point,
            count,
        )
        return head if not count else head + struct.pack(f">{count}q", *(self.segments or ()))

    @staticmethod
    def unpack(payload: memoryview) -> View:
        (epoch, epoch_start, truncations, start, hw, hw_seg, hw_pos, lso, lso_seg, lso_pos, end, recovery, count) = (
            _VIEW.unpack_from(payload)
        )
        segments = struct.unpack_from(f">{count}q", payload, _VIEW.size) if count else None
        position = LogPosition(hw_seg, hw_pos)
        return View(
            epoch,
            epoch_start,
            truncations,
            start,
            hw,
            position,
            lso,
            position if lso == hw else LogPosition(lso_seg, lso_pos),
            end,
            recovery,
            segments,
        )
