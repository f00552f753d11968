"""How far a log may be read, as its only writer tells it (rule 20).

All integers are big-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from raykafka.types import FrameKind, LogPosition

VIEW = FrameKind(18)

_VIEW = struct.Struct(">iqIqqqqqqqqqI")


@dataclass(slots=True)
class View:
    """What may be read. Its writer sends it after the file writes that it speaks of have returned. Never changed once
    made (one is made for every batch: it is not frozen only because frozen ones take three times as long to make).

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
