"""Fetch requests to a data plane."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

from kio.index import load_payload_module
from kio.static.constants import EntityType

from raykafka.protocol.codec import build
from tests.lab.dataplane import TOPIC, Dataplane

FETCH = 1
SESSIONS = 11  # knows sessions (from 7 on), leader epochs (9) and racks (11)
LARGE = 1 << 24

Part = tuple[int, int]
"""A partition and the offset to fetch."""


def request(
    dataplane: Dataplane,
    version: int,
    topics: dict[str, list[Part]],
    *,
    wait_ms: int = 0,
    min_bytes: int = 1,
    max_bytes: int = LARGE,
    partition_bytes: int = LARGE,
    committed: bool = False,
    session: Part = (0, -1),
    forget: dict[str, list[int]] | None = None,
    leader_epoch: int = -1,
    topic_id: uuid.UUID | None = None,
) -> Any:
    """A Fetch request of kio. ``session`` is its id and epoch."""
    m = load_payload_module(FETCH, version, EntityType.request)

    def id_of(topic: str) -> uuid.UUID:
        return topic_id or dataplane.image.topics[topic].id

    def topic(name: str, parts: list[Part]) -> Any:
        partitions = tuple(
            build(
                m.FetchPartition,
                partition=index,
                fetch_offset=offset,
                partition_max_bytes=partition_bytes,
                current_leader_epoch=leader_epoch,
                log_start_offset=-1,
            )
            for index, offset in parts
        )
        named = {"topic_id": id_of(name)} if version >= 13 else {"topic": name}
        return build(m.FetchTopic, partitions=partitions, **named)

    def forgotten(name: str, parts: list[int]) -> Any:
        named = {"topic_id": id_of(name)} if version >= 13 else {"topic": name}
        return build(m.ForgottenTopic, partitions=tuple(parts), **named)

    return build(
        m.FetchRequest,
        replica_id=-1,
        max_wait=datetime.timedelta(milliseconds=wait_ms),
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        isolation_level=int(committed),
        session_id=session[0],
        session_epoch=session[1],
        topics=tuple(topic(name, parts) for name, parts in topics.items()),
        forgotten_topics_data=tuple(forgotten(name, parts) for name, parts in (forget or {}).items()),
        rack_id="",
    )


async def fetch(dataplane: Dataplane, version: int, topics: dict[str, list[Part]], **more: Any) -> Any:
    return await dataplane.ask_entity(FETCH, version, request(dataplane, version, topics, **more))


async def fetch_one(dataplane: Dataplane, offset: int, version: int = SESSIONS, **more: Any) -> Any:
    """The answer for partition 0."""
    answer = await fetch(dataplane, version, {TOPIC: [(0, offset)]}, **more)
    return answer.responses[0].partitions[0]
