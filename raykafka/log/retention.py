"""Which segments a topic's retention no longer keeps."""

from __future__ import annotations

from raykafka.log.config import UNLIMITED, LogConfig
from raykafka.log.segment import Segment
from raykafka.log.segments import Segments


def expired_count(
    segments: Segments,
    config: LogConfig,
    now_ms: int,
    log_start_offset: int,
    log_end_offset: int,
    high_watermark: int,
) -> int:
    """How many segments, from the oldest on, may go: too old, over the size, or wholly below the log start.

    Only segments wholly below the high watermark count. All of them, the active one too, may be named.
    """
    over = 0
    if config.delete and config.retention_bytes != UNLIMITED:
        over = segments.size_bytes - config.retention_bytes
    count = 0
    for number, segment in enumerate(segments):
        last = number + 1 == len(segments)
        end = log_end_offset if last else segments[number + 1].base_offset
        if end > high_watermark or (last and not segment.size):
            break
        too_old = (
            config.delete
            and config.retention_ms != UNLIMITED
            and now_ms - _newest_timestamp(segment) > config.retention_ms
        )
        too_much = over >= segment.size > 0
        below_start = not last and end <= log_start_offset
        if not (too_old or too_much or below_start):
            break
        over -= segment.size
        count += 1
    return count


def _newest_timestamp(segment: Segment) -> int:
    """The largest timestamp in the segment, or when it was last written if its records have none. ms."""
    if segment.max_timestamp >= 0:
        return segment.max_timestamp
    return segment.modified_ms()
