"""Produce: what a client is told, in what order its batches reach the log, and what happens when they can't."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raykafka.error_code import ErrorCode
from raykafka.errors import UnanswerableRequestError
from raykafka.front.api import produce
from raykafka.log.batch import iter_batches, iter_records
from raykafka.partition.appends import Appended
from raykafka.protocol.wire import MalformedError
from raykafka.replica_actor import partition as served_partition
from raykafka.types import TopicPartition
from tests.lab.dataplane import TOPIC, Dataplane, batch, decode_response, produce_body

SERVED = range(3, 12)


def run(directory: Path, test: Callable[[Dataplane], Awaitable[None]]) -> None:
    async def body() -> None:
        async with Dataplane(directory) as dataplane:
            await test(dataplane)

    asyncio.run(asyncio.wait_for(body(), 60))


async def stored(dataplane: Dataplane, partition: int = 0) -> list[bytes | None]:
    """The values in a partition, in order."""
    host = dataplane.partitions.get((TOPIC, partition))
    assert host is not None
    data = await host.log.read(0, 1 << 24)
    return [r.value for at, h in iter_batches(data) for r in iter_records(data[at : at + h.size])]


@pytest.mark.parametrize("version", SERVED)
def test_every_version_is_answered_with_the_offset(version: int, tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        for number in range(3):
            answer = await dataplane.produce(batch(b"a", b"b"), version=version)
            assert answer.error_code.value == ErrorCode.NONE
            assert answer.base_offset == 2 * number
        assert await stored(dataplane) == [b"a", b"b"] * 3

    run(tmp_path, test)


def test_versions_before_record_batches_are_answered_unsupported(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        tails = {0: b"", 1: b"\0\0\0\0", 2: b"\0\0\0\0"}
        for version, tail in tails.items():
            answer = await dataplane.ask(0, version, produce_body(version, 1, [(TOPIC, [(0, batch(b"a"))])]))
            time = b"\xff" * 8 if version == 2 else b""
            partition = struct.pack(">ihq", 0, ErrorCode.UNSUPPORTED_VERSION, -1) + time
            assert answer == b"\0\0\0\x01\0\x06events\0\0\0\x01" + partition + tail
        assert await stored(dataplane) == []

    run(tmp_path, test)


def test_many_partitions_and_topics_are_answered_in_the_order_of_the_request(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(partitions=3)
        await dataplane.create("other")
        asked = [(TOPIC, [(2, batch(b"2")), (0, batch(b"0")), (9, batch(b"9"))]), ("other", [(0, batch(b"x"))])]
        for version in SERVED:
            answer = decode_response(0, version, await dataplane.ask(0, version, produce_body(version, -1, asked)))
            told = [
                (topic.name, partition.index, partition.error_code.value)
                for topic in answer.responses
                for partition in topic.partition_responses
            ]
            unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            assert told == [(TOPIC, 2, 0), (TOPIC, 0, 0), (TOPIC, 9, unknown), ("other", 0, 0)]

    run(tmp_path, test)


def corrupt(records: bytearray) -> bytearray:
    records[-1] ^= 1
    return records


ZSTD = 4
TRANSACTIONAL = 0x10

REFUSED: dict[str, tuple[ErrorCode, dict[str, Any]]] = {
    "unknown topic": (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, {"topic": "nowhere"}),
    "unknown partition": (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, {"partition": 7}),
    "led elsewhere": (ErrorCode.NOT_LEADER_OR_FOLLOWER, {"topic": "elsewhere"}),
    "denied": (ErrorCode.TOPIC_AUTHORIZATION_FAILED, {"topic": "denied"}),
    "internal topic": (ErrorCode.INVALID_TOPIC_EXCEPTION, {"topic": "__consumer_offsets"}),
    "corrupt": (ErrorCode.CORRUPT_MESSAGE, {"records": corrupt(batch(b"value"))}),
    "too large": (ErrorCode.MESSAGE_TOO_LARGE, {"records": batch(b"x" * 2000)}),
    "two batches": (ErrorCode.INVALID_RECORD, {"records": batch(b"a") + batch(b"b")}),
    "no batch": (ErrorCode.INVALID_RECORD, {"records": b""}),
    "null": (ErrorCode.INVALID_RECORD, {"records": None}),
    "control": (ErrorCode.INVALID_RECORD, {"records": batch(b"value", control=True)}),
    "transactional": (ErrorCode.INVALID_RECORD, {"records": batch(b"value", transactional=True)}),
    "transactional id": (ErrorCode.INVALID_REQUEST, {"transactional_id": "t"}),
    "acks": (ErrorCode.INVALID_REQUIRED_ACKS, {"acks": 2}),
}


@pytest.mark.parametrize("version", [3, 8, 9, 11])
@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_appended_is_refused_by_its_code(case: str, version: int, tmp_path: Path) -> None:
    expected, changed = REFUSED[case]
    asked: dict[str, Any] = {
        "topic": TOPIC,
        "partition": 0,
        "records": batch(b"value"),
        "acks": -1,
        "transactional_id": None,
    }
    asked |= changed

    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(max_message_bytes="1000")
        await dataplane.create("elsewhere", leader=1)
        await dataplane.create("denied")
        await dataplane.create("__consumer_offsets")
        dataplane.denied.add("denied")
        body = produce_body(
            version,
            asked["acks"],
            [(asked["topic"], [(asked["partition"], asked["records"])])],
            transactional_id=asked["transactional_id"],
        )
        answer = decode_response(0, version, await dataplane.ask(0, version, body))
        partition = answer.responses[0].partition_responses[0]
        assert partition.error_code.value == expected
        assert partition.base_offset == -1
        assert await stored(dataplane) == []

    run(tmp_path, test)


def test_zstd_needs_version_7(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        records = batch(b"value" * 100, codec=ZSTD)
        assert (await dataplane.produce(records, version=6)).error_code.value == ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
        assert (await dataplane.produce(records, version=7)).error_code.value == ErrorCode.NONE

    run(tmp_path, test)


def test_a_leader_elsewhere_is_told_with_its_address(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(leader=1)
        answer = decode_response(0, 10, await dataplane.ask(0, 10, produce_body(10, 1, [(TOPIC, [(0, batch(b"a"))])])))
        leader = answer.responses[0].partition_responses[0].current_leader
        assert (leader.leader_id, leader.leader_epoch) == (1, 0)
        assert [(n.node_id, n.host, n.port) for n in answer.node_endpoints] == [(1, "127.0.0.1", 9093)]

    run(tmp_path, test)


def test_without_the_lease_only_acks_all_is_taken(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        dataplane.lease = False
        assert (await dataplane.produce(batch(b"a"), acks=1)).error_code.value == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert (await dataplane.produce(batch(b"b"), acks=-1)).error_code.value == ErrorCode.NONE
        assert await stored(dataplane) == [b"b"]

    run(tmp_path, test)


def test_acks_0_is_not_answered_and_an_error_closes_the_connection(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        assert await dataplane.produce(batch(b"a"), acks=0) is None
        assert await stored(dataplane) == [b"a"]
        with pytest.raises(UnanswerableRequestError, match="UNKNOWN_TOPIC"):
            await dataplane.produce(batch(b"a"), "nowhere", acks=0)
        with pytest.raises(UnanswerableRequestError, match="CORRUPT"):
            await dataplane.produce(corrupt(batch(b"a")), acks=0)

    run(tmp_path, test)


def test_a_write_is_read_as_soon_as_it_is_answered(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        for acks in (1, -1, 0):
            await dataplane.produce(batch(b"%d" % acks), acks=acks)
            assert (await stored(dataplane))[-1] == b"%d" % acks

    run(tmp_path, test)


def test_an_idempotent_producer_that_sends_again_gets_its_first_offset(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        records = batch(b"a", b"b", producer_id=7, producer_epoch=0, base_sequence=0)
        await dataplane.produce(batch(b"before"))
        for _ in range(2):
            answer = await dataplane.produce(bytearray(records))
            assert (answer.error_code.value, answer.base_offset) == (ErrorCode.NONE, 1)
        assert await stored(dataplane) == [b"before", b"a", b"b"]
        gap = batch(b"z", producer_id=7, producer_epoch=0, base_sequence=9)
        assert (await dataplane.produce(gap)).error_code.value == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER

    run(tmp_path, test)


def test_writes_to_a_partition_that_is_being_opened_wait_for_its_log_in_order(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        dataplane.opens = False
        await dataplane.create()
        writes = [asyncio.ensure_future(dataplane.produce(batch(b"%d" % i))) for i in range(20)]
        await asyncio.sleep(0)
        host = dataplane.partitions.get((TOPIC, 0))
        assert host is not None and host.is_opening and host.log.view is None
        await dataplane.open(TopicPartition(TOPIC, 0))
        answers = await asyncio.gather(*writes)
        assert [a.base_offset for a in answers] == list(range(20))
        assert await stored(dataplane) == [b"%d" % i for i in range(20)]

    run(tmp_path, test)


def test_what_waits_for_a_log_to_be_opened_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = batch(b"x" * 1000)
    monkeypatch.setattr(served_partition, "MAX_WAITING_BYTES", 10 * len(records))

    async def test(dataplane: Dataplane) -> None:
        dataplane.opens = False
        await dataplane.create()
        writes = [asyncio.ensure_future(dataplane.produce(records)) for _ in range(12)]
        refused = await asyncio.gather(*writes[10:])
        assert {a.error_code.value for a in refused} == {ErrorCode.REQUEST_TIMED_OUT}
        await dataplane.open(TopicPartition(TOPIC, 0))
        assert {a.error_code.value for a in await asyncio.gather(*writes[:10])} == {ErrorCode.NONE}

    run(tmp_path, test)


def test_a_write_times_out_while_its_log_can_not_be_opened_and_is_not_appended_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_partition, "_LONGEST_WAIT_S", 0.05)

    async def test(dataplane: Dataplane) -> None:
        dataplane.opens = False
        await dataplane.create()
        assert (await dataplane.produce(batch(b"a"))).error_code.value == ErrorCode.REQUEST_TIMED_OUT
        await dataplane.open(TopicPartition(TOPIC, 0))
        assert (await dataplane.produce(batch(b"b"))).error_code.value == ErrorCode.NONE
        assert await stored(dataplane) == [b"b"]

    run(tmp_path, test)


def test_records_are_views_into_the_request() -> None:
    records = bytes(batch(b"value"))
    for version in (8, 9, 11):
        body = memoryview(bytearray(produce_body(version, 1, [(TOPIC, [(3, records)])])))
        request = produce.parse(version, body)
        ((name, _, ((index, view),)),) = request.topics
        assert (name, index) == (TOPIC, 3)
        assert view is not None and view == records and view.obj is body.obj


@given(st.sampled_from([3, 8, 9, 11]), st.data())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_request_or_malformed(version: int, data: st.DataObject) -> None:
    good = bytearray(
        produce_body(version, 1, [(TOPIC, [(0, batch(b"v")), (1, None)]), ("é", [])], transactional_id="t")
    )
    for _ in range(data.draw(st.integers(0, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    try:
        request = produce.parse(version, memoryview(good)[:cut])
    except MalformedError:
        return
    assert sum(len(r) for t in request.topics for _, r in t.partitions if r is not None) <= cut


def test_outcomes_may_come_in_any_order(tmp_path: Path) -> None:
    """A request over two partitions whose replicas answer the other way round, and one of which fails at once."""

    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(partitions=2)
        given_up: list[Callable[[Appended], None]] = []
        for partition in (0, 1):
            host = dataplane.partitions.get((TOPIC, partition))
            assert host is not None
            host.submit = lambda records, acks, timeout_ms, leader_epoch, done: given_up.append(done)
        body = produce_body(9, -1, [(TOPIC, [(0, batch(b"a")), (5, batch(b"x")), (1, batch(b"b"))])])
        asked = asyncio.ensure_future(dataplane.ask(0, 9, body))
        await asyncio.sleep(0)
        given_up[1](Appended(1, ErrorCode.NONE, 11))
        given_up[0](Appended(1, ErrorCode.NONE, 22))
        answer = decode_response(0, 9, await asked).responses[0].partition_responses
        assert [(p.index, p.base_offset, p.error_code.value) for p in answer] == [(0, 22, 0), (5, -1, 3), (1, 11, 0)]

    run(tmp_path, test)
