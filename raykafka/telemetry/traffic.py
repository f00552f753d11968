"""What is appended and fetched, by topic: plain integers that count from the broker process' start on, read when
Prometheus asks."""

from __future__ import annotations

from collections.abc import Collection

from raykafka.log.batch_layout import RECORD_COUNT, RECORD_COUNT_POSITION


class TopicTraffic:
    """Bytes and records of one topic: ``in`` from producers, ``out`` to consumers."""

    __slots__ = ("bytes_in", "bytes_out", "records_in", "records_out")

    def __init__(self) -> None:
        self.bytes_in = self.records_in = self.bytes_out = self.records_out = 0

    def appended(self, batch: memoryview) -> None:
        """A batch was appended: its header tells how many records it has."""
        self.bytes_in += len(batch)
        self.records_in += RECORD_COUNT.unpack_from(batch, RECORD_COUNT_POSITION)[0]

    def sent(self, size: int, records: int) -> None:
        """``size`` bytes went to a consumer, over ``records`` offsets."""
        self.bytes_out += size
        self.records_out += records


class Traffic(dict[str, TopicTraffic]):
    """By topic, made when a topic is first asked for."""

    def __missing__(self, topic: str) -> TopicTraffic:
        made = self[topic] = TopicTraffic()
        return made

    def forget_others(self, topics: Collection[str]) -> None:
        """Drop what is not in ``topics``: those topics were deleted."""
        for topic in [topic for topic in self if topic not in topics]:
            del self[topic]
