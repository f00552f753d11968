"""Partition keys as plain data, as the calls between a broker and its actors, and between actors, carry them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from raykafka.replica.host import PartitionKey


def key_to_json(key: PartitionKey) -> dict[str, Any]:
    return {"topic": key.topic, "topic_id": str(key.topic_id), "partition": key.partition}


def key_from_json(args: Mapping[str, Any]) -> PartitionKey:
    """Raises KeyError, ValueError."""
    return PartitionKey(args["topic"], uuid.UUID(args["topic_id"]), int(args["partition"]))
