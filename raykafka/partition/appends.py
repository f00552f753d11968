"""An append on its way to the replica actor that writes the partition's log, and its outcome on the way back.

All integers are big-endian. Records are always one whole Kafka record batch (magic 2) or several, as the client sent
them. What is in an APPEND frame is in ``replica_actor.sibling_frames``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from raykafka.error_code import ErrorCode
from raykafka.types import FrameKind

APPEND = FrameKind(16)
APPENDED = FrameKind(17)

DELETE_ALL = -1  # of ``delete_records``: all that is committed
ANY_EPOCH = -1
# acks: answered once all in-sync replicas have it
ALL = -1
NO_LEASE = "the broker has lost touch with ZooKeeper"
_ERRORS = {int(error): error for error in ErrorCode}

_APPENDED = struct.Struct(">Qhqqq")


@dataclass(slots=True)
class Appended:
    """The outcome of an append. ``log_append_time_ms`` is -1 unless the topic uses LogAppendTime; offsets are -1
    beside an error.

    One is made for every batch: it is not frozen only because frozen ones take three times as long to make.
    """

    correlation: int
    error: ErrorCode
    base_offset: int = -1
    log_append_time_ms: int = -1
    log_start_offset: int = -1
    message: str = ""

    def pack(self) -> bytes:
        """The payload of an APPENDED frame."""
        offsets = (self.base_offset, self.log_append_time_ms, self.log_start_offset)
        head = _APPENDED.pack(self.correlation, self.error, *offsets)
        return head + self.message.encode() if self.message else head

    @staticmethod
    def unpack(payload: memoryview) -> Appended:
        correlation, error, base, time_ms, start = _APPENDED.unpack_from(payload)
        message = str(payload[_APPENDED.size :], "utf-8") if error else ""
        return Appended(correlation, _ERRORS[error], base, time_ms, start, message)


# Called once with the outcome of an append.
Done = Callable[[Appended], None]
