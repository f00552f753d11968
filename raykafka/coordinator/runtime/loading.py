"""Loading a partition of an internal topic: reading all that is committed, in order, and replaying it."""

from __future__ import annotations

import asyncio
import logging

from raykafka.coordinator.runtime.coordinated import Coordinated
from raykafka.coordinator.runtime.topic_log import TopicLog
from raykafka.coordinator.step import UnreadableRecord
from raykafka.log.batch import BatchHeader, iter_batches, iter_records
from raykafka.log.compression import UnreadableRecords

_RETRY_S = 0.05
_READ_TIMEOUT_S = 30.0
_SLICE_BYTES = 256 * 1024

logger = logging.getLogger(__name__)


async def load(coordinated: Coordinated, log: TopicLog, partition: int, leader_epoch: int, read_bytes: int) -> None:
    """Replay the log to the end that it has, in ``leader_epoch``, when this begins, waiting for the high watermark to
    get there: what is behind that end was appended by nobody but the caller. Reads ``read_bytes`` at once."""
    offset, end = 0, None
    while end is None or offset < end:
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                answer, data = await log.read(partition, leader_epoch, offset, read_bytes)
        except TimeoutError:
            logger.warning("%s-%d: a read from %d was not answered", log.topic, partition, offset)
            continue
        if answer.error:
            logger.info("%s-%d can't be read yet: %s", log.topic, partition, answer.error.name)
            await asyncio.sleep(_RETRY_S)
            continue
        if end is None:
            end = answer.log_end_offset
        if len(data):
            offset = await _replay(coordinated, log.topic, data, offset)
        elif answer.high_watermark >= end:
            break
        elif offset < end:
            await asyncio.sleep(_RETRY_S)


async def _replay(coordinated: Coordinated, topic: str, data: memoryview, offset: int) -> int:
    """Replay the batches of ``data``, letting other work in between. Returns the offset behind them."""
    done = 0
    for position, header in iter_batches(data):
        replay_batch(coordinated, topic, header, data[position : position + header.size])
        offset = max(offset, header.last_offset + 1)
        done += header.size
        if done >= _SLICE_BYTES:
            done = 0
            await asyncio.sleep(0)
    return offset


def replay_batch(coordinated: Coordinated, topic: str, header: BatchHeader, batch: memoryview) -> None:
    """Replay one batch. Control batches say nothing; what can't be read is left out, and logged."""
    if header.is_control:
        return
    try:
        for record in iter_records(batch):
            if record.key is None:
                logger.error("the record at offset %d of %s has no key; it is left out", record.offset, topic)
                continue
            try:
                coordinated.replay(record.offset, record.key, record.value)
            except UnreadableRecord as error:
                logger.error("the record at offset %d of %s is left out: %s", record.offset, topic, error)
    except UnreadableRecords as error:
        logger.error("the batch at offset %d of %s is left out: %s", header.base_offset, topic, error)
