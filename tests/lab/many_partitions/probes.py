"""Single requests to single brokers, timed: nothing of a client's own retries or batching is in them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.lab.wire import (
    FETCH,
    WireConnection,
    metadata_request,
    milliseconds,
    request_module,
)

ASK_AGAIN_S = 0.01
FETCHED_AT_ONCE = 200
ANSWER_WITHIN_S = 30.0


class Place(NamedTuple):
    topic: str
    partition: int


def states(wire: WireConnection, topics: Sequence[str] | None = None) -> dict[Place, tuple[int, int]]:
    """The leader of each partition, -1 where there is none, and how many replicas are in sync."""
    found = {}
    for topic in wire.call(metadata_request(topics)).topics:
        for partition in topic.partitions:
            leader = int(partition.leader_id) if not partition.error_code.value else -1
            found[Place(str(topic.name), partition.partition_index)] = (leader, len(partition.isr_nodes))
    return found


def serves(wire: WireConnection, broker: int, partitions: int) -> bool:
    """Whether a broker tells of itself and of so many partitions, each with a leader."""
    answer = wire.call(metadata_request(None))
    known = [partition for topic in answer.topics for partition in topic.partitions]
    return (
        any(int(one.node_id) == broker for one in answer.brokers)
        and len(known) >= partitions
        and all(partition.leader_id >= 0 for partition in known)
    )


def readable(wire: WireConnection, places: Iterable[Place]) -> set[Place]:
    """Those of ``places`` from whose begin this broker serves records now."""
    module = request_module(FETCH, 12)
    by_topic: dict[str, list[int]] = {}
    for place in places:
        by_topic.setdefault(place.topic, []).append(place.partition)
    request = module.FetchRequest(
        max_wait=milliseconds(0),
        min_bytes=0,
        max_bytes=50 << 20,
        isolation_level=0,
        session_id=0,
        session_epoch=-1,
        topics=tuple(
            module.FetchTopic(
                topic=topic,
                partitions=tuple(
                    module.FetchPartition(partition=p, fetch_offset=0, partition_max_bytes=1 << 16) for p in partitions
                ),
            )
            for topic, partitions in by_topic.items()
        ),
        forgotten_topics_data=(),
        rack_id="",
    )
    return {
        Place(str(answer.topic), partition.partition_index)
        for answer in wire.call(request).responses
        for partition in answer.partitions
        if partition.records
    }


def until_read(addresses: Sequence[str], places: Iterable[Place], within_s: float) -> tuple[float, float]:
    """When (``time.time``) the first and the last of ``places`` were served by any of ``addresses``; connections are
    opened as soon as they are taken. Raises TimeoutError."""
    left, first = set(places), 0.0
    count, deadline = len(left), time.monotonic() + within_s
    wires: dict[str, WireConnection] = {}
    while left:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(left)} of {count} partitions are not read after {within_s:.0f} s")
        for address in addresses:
            with contextlib.suppress(OSError):
                if address not in wires:
                    wires[address] = WireConnection(address, timeout_s=ANSWER_WITHIN_S)
                found = readable(wires[address], sorted(left)[:FETCHED_AT_ONCE])
                first = first or (time.time() if found else 0.0)
                left -= found
                continue
            lost = wires.pop(address, None)
            if lost is not None:
                lost.socket.close()
        if left:
            time.sleep(ASK_AGAIN_S)
    for wire in wires.values():
        wire.socket.close()
    return first, time.time()


def call_ms(wire: WireConnection, request: object) -> float:
    """How long the whole answer to ``request`` takes to arrive; it is not parsed."""
    _, frame = wire.encode(request)
    began = time.perf_counter()
    wire.socket.sendall(frame)
    length = int.from_bytes(wire._read(4), "big")
    wire._read(length)
    return (time.perf_counter() - began) * 1000
