"""Consumer lag: committed offsets are with this broker's coordinator, the ends of the logs with their leaders.

Both are asked at the scrape, the commits first, so that a lag is never taken from an end older than its commit. What is
not known gives no lag, which is not the same as none: while a group's coordinator moves or loads, while a partition has
no leader or that leader's high watermark has not reached its epoch (rule 9), while a broker does not answer.
"""

from __future__ import annotations

from typing import NamedTuple

from raykafka.metrics.catalogue import MOST_SAMPLES
from raykafka.metrics.sources import CoordinationSource, LogEndsSource
from raykafka.types import TopicPartition

ANSWER_WITHIN_S = 0.4


class Lag(NamedTuple):
    """``records`` between the offset that ``group`` committed for ``tp`` and the high watermark; 0 at least."""

    group: str
    tp: TopicPartition
    records: int


async def consumer_lags(coordination: CoordinationSource, log_ends: LogEndsSource) -> list[Lag]:
    """All lags that are known, of the groups that this broker coordinates."""
    committed = await coordination.committed(MOST_SAMPLES, ANSWER_WITHIN_S)
    ends = await log_ends.ends({tp for _, tp, _ in committed}, ANSWER_WITHIN_S)
    lags = []
    for group, tp, offset in committed:
        end = ends.get(tp)
        if end is not None:
            lags.append(Lag(group, tp, max(end - offset, 0)))
    return lags
