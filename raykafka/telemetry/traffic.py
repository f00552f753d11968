"""What is appended and fetched, by topic: plain integers.

A replica actor counts what it serves, and tells its broker now and then what has come since (``delta``); the broker
adds that up from its process' start on (``take``), and has it ready when Prometheus asks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence


class TopicTraffic:
    """Bytes and records of one topic: ``in`` from producers, ``out`` to consumers."""

    __slots__ = ("bytes_in", "bytes_out", "records_in", "records_out")

    def __init__(self) -> None:
        self.bytes_in = self.records_in = self.bytes_out = self.records_out = 0

    def appended(self, size: int, records: int) -> None:
        """Batches of ``size`` bytes were appended, with so many records."""
        self.bytes_in += size
        self.records_in += records

    def sent(self, size: int, records: int) -> None:
        """``size`` bytes went to a consumer, over ``records`` offsets."""
        self.bytes_out += size
        self.records_out += records


class Traffic(dict[str, TopicTraffic]):
    """By topic, made when a topic is first asked for. A topic's counts are to be asked for each time: they are others
    after ``delta`` and ``forget_others``."""

    def __missing__(self, topic: str) -> TopicTraffic:
        made = self[topic] = TopicTraffic()
        return made

    def delta(self) -> dict[str, list[int]]:
        """What was counted since the last call, JSON-able: [bytes in, records in, bytes out, records out] of each topic
        that had any. It is forgotten here: quiet topics cost nothing."""
        counted = {topic: [t.bytes_in, t.records_in, t.bytes_out, t.records_out] for topic, t in self.items()}
        self.clear()
        return counted

    def take(self, deltas: Mapping[str, Sequence[int]]) -> None:
        """Add what another process counted: its ``delta``."""
        for topic, (bytes_in, records_in, bytes_out, records_out) in deltas.items():
            counted = self[topic]
            counted.bytes_in += bytes_in
            counted.records_in += records_in
            counted.bytes_out += bytes_out
            counted.records_out += records_out

    def forget_others(self, topics: Collection[str]) -> None:
        """Drop what is not in ``topics``: those topics were deleted."""
        for topic in [topic for topic in self if topic not in topics]:
            del self[topic]
