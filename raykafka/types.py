"""The few types that every part of raykafka shares."""

from __future__ import annotations

from typing import NamedTuple, NewType

NO_LEADER = -1
NO_EPOCH = -1

OFFSETS_TOPIC = "__consumer_offsets"
TRANSACTIONS_TOPIC = "__transaction_state"
INTERNAL_TOPICS = frozenset({OFFSETS_TOPIC, TRANSACTIONS_TOPIC})


# The first byte of a frame between processes. A number has one meaning over all links: it is declared once, as
# ``NAME = FrameKind(number)``, by the module that knows its payload.
FrameKind = NewType("FrameKind", int)


class TopicPartition(NamedTuple):
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class LogPosition(NamedTuple):
    """A byte position in a log: the base offset of a segment, and a byte offset in that segment's ``.log`` file."""

    segment: int
    position: int
