"""The few types that every part of raykafka shares."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple, NewType

NO_LEADER = -1
NO_EPOCH = -1
# instead of the number of a replica actor: none has the log
NOWHERE = -1

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


class PartitionKey(NamedTuple):
    """Names a partition to other brokers. A topic that is deleted and made again has another topic id."""

    topic: str
    topic_id: uuid.UUID
    partition: int

    def to_json(self) -> dict[str, Any]:
        """As plain data: what names a partition in the calls between a broker and its actors, and between actors."""
        return {"topic": self.topic, "topic_id": str(self.topic_id), "partition": self.partition}

    @staticmethod
    def of_json(args: Mapping[str, Any]) -> PartitionKey:
        """What ``to_json`` made plain data of, in whatever else is there. Raises KeyError, ValueError."""
        return PartitionKey(args["topic"], uuid.UUID(args["topic_id"]), int(args["partition"]))


class LogPosition(NamedTuple):
    """A byte position in a log: the base offset of a segment, and a byte offset in that segment's ``.log`` file."""

    segment: int
    position: int
