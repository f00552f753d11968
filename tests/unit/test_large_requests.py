"""Requests of many elements: read where they hold up nobody, and refused where nobody would ask for as much."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from raykafka.errors import UnanswerableRequestError
from raykafka.front import fetch_codec
from raykafka.front.api import metadata, produce
from raykafka.protocol import codec, dispatch
from raykafka.protocol.wire import MOST_ELEMENTS, MalformedError
from tests.lab.served import APIS, admitted

METADATA = 3
JOIN_GROUP = 11


def metadata_body(topics: int, name: bytes = b"") -> memoryview:
    """Version 1: names alone."""
    return memoryview(struct.pack(">i", topics) + (struct.pack(">h", len(name)) + name) * topics)


def api(key: int) -> Any:
    found = APIS.get(key)
    assert found is not None
    return found


def decoded(key: int, version: int, body: memoryview) -> Any:
    return dispatch.decode(api(key), admitted(key, version), body)


def test_as_many_elements_as_anybody_asks_for_are_read() -> None:
    assert len(decoded(METADATA, 1, metadata_body(50_000, b"a topic's name")).topics) == 50_000


def test_more_are_refused() -> None:
    with pytest.raises(UnanswerableRequestError, match="more than 100000 elements"):
        decoded(METADATA, 1, metadata_body(MOST_ELEMENTS + 1))
    with pytest.raises(UnanswerableRequestError, match=f"{dispatch.MOST_BYTES} are taken"):
        decoded(METADATA, 1, memoryview(bytes(dispatch.MOST_BYTES + 1)))


def test_elements_within_elements_count() -> None:
    """DeleteTopics has one array; OffsetFetch v2 has topics, and partitions within."""
    inner = struct.pack(">h", 1) + b"t" + struct.pack(">i", 60_000) + bytes(4 * 60_000)
    body = struct.pack(">h", 1) + b"g" + struct.pack(">i", 2) + inner * 2
    with pytest.raises(UnanswerableRequestError, match="more than 100000 elements"):
        decoded(9, 2, memoryview(body))


def test_what_members_of_groups_tell_each_other_may_be_large() -> None:
    told = bytes(dispatch.MOST_BYTES + 1)
    head = struct.pack(">h", 1) + b"g" + struct.pack(">i", 10_000) + struct.pack(">h", 0) + struct.pack(">h", 8)
    body = head + b"consumer" + struct.pack(">i", 1) + struct.pack(">h", 1) + b"r" + struct.pack(">i", len(told)) + told
    assert len(decoded(JOIN_GROUP, 0, memoryview(body)).protocols[0].metadata) == len(told)


def test_a_large_request_is_read_and_answered_in_a_thread_while_the_event_loop_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: dict[str, threading.Thread] = {}

    def recorded(name: str) -> Any:
        original = getattr(codec, name)

        def call(*args: Any) -> Any:
            threads[name] = threading.current_thread()
            time.sleep(0.1)
            return original(*args)

        return call

    for name in ("decode_request", "encode_response"):
        monkeypatch.setattr(codec, name, recorded(name))

    async def handle(context: Any, request: Any, server: Any) -> Any:
        response: Any = codec.response_class(METADATA, 1)
        return response(brokers=(), controller_id=0, topics=())

    async def run(topics: int) -> tuple[list[bool], int]:
        served = SimpleNamespace(key=METADATA, name="Metadata", handle=handle, handle_raw=None, module=metadata)
        answering = asyncio.ensure_future(
            dispatch.answer(served, None, admitted(METADATA, 1), metadata_body(topics, b"topic"))  # type: ignore[arg-type]
        )
        turns = 0
        while not answering.done():
            await asyncio.sleep(0.005)
            turns += 1
        await answering
        return [threads[name] is threading.main_thread() for name in threads], turns

    in_main, turns = asyncio.run(run(20_000))
    assert in_main == [False, False] and turns > 10
    in_main, turns = asyncio.run(run(3))
    assert in_main == [True, True] and turns <= 2


@pytest.mark.parametrize("version", [8, 9])
def test_a_produce_request_of_too_many_partitions_is_malformed(version: int) -> None:
    count = MOST_ELEMENTS
    if version == 8:
        partitions = struct.pack(">ii", 0, -1) * count
        body = (
            struct.pack(">hhi", -1, 1, 1000) + struct.pack(">ih", 1, 1) + b"t" + struct.pack(">i", count) + partitions
        )
    else:
        size = bytes((count + 1 & 0x7F | 0x80, count + 1 >> 7 & 0x7F | 0x80, count + 1 >> 14))
        body = (
            b"\0" + struct.pack(">hi", 1, 1000) + b"\2\2t" + size + (struct.pack(">i", 0) + b"\0\0") * count + b"\0\0"
        )
    with pytest.raises(MalformedError, match="more than 100000 elements"):
        produce.parse(version, memoryview(body))


def test_a_fetch_of_too_many_partitions_is_malformed() -> None:
    count = MOST_ELEMENTS
    partitions = struct.pack(">iqi", 0, 0, 100) * count
    body = (
        struct.pack(">iiiib", -1, 0, 1, 1000, 0)
        + struct.pack(">ih", 1, 1)
        + b"t"
        + struct.pack(">i", count)
        + partitions
    )
    with pytest.raises(MalformedError, match="more than 100000 elements"):
        fetch_codec.parse(4, memoryview(body))
