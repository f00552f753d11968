"""What only a raw connection can ask: pipelined requests, offsets inside a batch, a reader that does not read."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.lab.clusters.under_test import KafkaUnderTest
from tests.lab.wire import (
    WireConnection,
    fetch_request,
    list_offsets_request,
    produce_request,
    record_batch,
    record_values,
)

MakeTopic = Callable[..., str]
LATEST, EARLIEST = -1, -2
MESSAGE_TOO_LARGE, CORRUPT_MESSAGE, OFFSET_OUT_OF_RANGE = 10, 2, 1


def latest(response: Any) -> int:
    partition = response.topics[0].partitions[0]
    assert partition.error_code.value == 0
    return int(partition.offset)


def fetched(response: Any) -> list[tuple[int, bytes]]:
    partition = response.responses[0].partitions[0]
    assert partition.error_code.value == 0
    return record_values(partition.records)


@pytest.mark.parametrize("acks", [0, 1, -1])
def test_pipelined_requests_of_one_connection_are_served_in_order(
    kafka: KafkaUnderTest, make_topic: MakeTopic, acks: int
) -> None:
    """One write carries produce, list-offsets, produce, ...: each list-offsets sees exactly the produces before it."""
    topic = make_topic()
    rounds = 50
    with WireConnection(kafka.leader(topic)) as wire:
        requests = itertools.chain.from_iterable(
            (
                produce_request(topic, record_batch([b"%d" % i, b"and again"]), acks=acks),
                list_offsets_request(topic, LATEST),
            )
            for i in range(rounds)
        )
        expected = wire.send(*requests)
        if acks == 0:
            expected = expected[1::2]  # acks=0 has no response
        responses = [wire.receive() for _ in expected]
    assert [correlation_id for correlation_id, _ in responses] == expected
    if acks != 0:
        offsets = [response.responses[0].partition_responses[0].base_offset for _, response in responses[::2]]
        assert offsets == [2 * i for i in range(rounds)]
        responses = responses[1::2]
    assert [latest(response) for _, response in responses] == [2 * (i + 1) for i in range(rounds)]


def test_acks_0_then_fetch_on_one_connection_reads_the_own_write(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic = make_topic()
    with WireConnection(kafka.leader(topic)) as wire:
        for i in range(20):
            wire.send(produce_request(topic, record_batch([b"%d" % i]), acks=0), fetch_request(topic, i, max_wait_ms=0))
            assert fetched(wire.receive()[1]) == [(i, b"%d" % i)]


def test_fetch_inside_a_batch_gets_the_whole_batch(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic = make_topic()
    with WireConnection(kafka.leader(topic)) as wire:
        for first in (0, 10, 20):
            batch = record_batch([b"%d" % (first + i) for i in range(10)])
            wire.call(produce_request(topic, batch, acks=1))
        assert [offset for offset, _ in fetched(wire.call(fetch_request(topic, 15)))] == list(range(10, 30))
        tiny = fetched(wire.call(fetch_request(topic, 15, max_bytes=1)))
        assert [offset for offset, _ in tiny] == list(range(10, 20))  # one batch even when it is over the limit
        assert fetched(wire.call(fetch_request(topic, 30, max_wait_ms=0))) == []
        beyond = wire.call(fetch_request(topic, 31)).responses[0].partitions[0]
        assert beyond.error_code.value == OFFSET_OUT_OF_RANGE
        assert latest(wire.call(list_offsets_request(topic, LATEST))) == 30
        assert latest(wire.call(list_offsets_request(topic, EARLIEST))) == 0


def test_a_repeated_idempotent_batch_is_stored_once(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    """The batch that is sent again, its answer having been lost, is answered with the offset of the first time."""
    topic = make_topic()
    with WireConnection(kafka.leader(topic)) as wire:
        producer_id = 10_000_001
        offsets = []
        for sequence in (0, 2, 2, 0, 4):
            batch = record_batch([b"a", b"b"], producer=(producer_id, 0, sequence))
            response = wire.call(produce_request(topic, batch, acks=-1)).responses[0].partition_responses[0]
            assert response.error_code.value == 0
            offsets.append(response.base_offset)
        assert offsets == [0, 2, 2, 0, 4]
        assert latest(wire.call(list_offsets_request(topic, LATEST))) == 6


def test_a_damaged_batch_is_refused_and_the_log_stays_whole(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    topic = make_topic(max_message_bytes=2000)
    with WireConnection(kafka.leader(topic)) as wire:

        def error_of(batch: bytes) -> int:
            response = wire.call(produce_request(topic, batch, acks=1))
            return response.responses[0].partition_responses[0].error_code.value

        good = record_batch([b"good"])
        damaged = bytearray(good)
        damaged[-1] ^= 0xFF
        assert error_of(bytes(damaged)) == CORRUPT_MESSAGE
        assert error_of(record_batch([bytes(3000)])) == MESSAGE_TOO_LARGE
        assert error_of(good) == 0
        assert fetched(wire.call(fetch_request(topic, 0))) == [(0, b"good")]


def test_a_client_that_stops_reading_is_held_back_and_then_served(kafka: KafkaUnderTest, make_topic: MakeTopic) -> None:
    """It asks for 400 MB and reads nothing: the broker's memory stays bounded, others are served, nothing is lost."""
    topic = make_topic()
    address = kafka.leader(topic)
    value, requests = bytes(500_000), 400
    with WireConnection(address) as wire:
        for _ in range(2):
            wire.call(produce_request(topic, record_batch([value]), acks=1))
    broker = listening_process(address)
    before = broker.memory_info().rss
    with WireConnection(address, receive_buffer_bytes=65536) as lazy:
        sent = lazy.send(*(fetch_request(topic, 0, max_bytes=2_000_000) for _ in range(requests)))
        with WireConnection(address) as other:
            for _ in range(100):
                assert latest(other.call(list_offsets_request(topic, LATEST))) == 2
        grown = broker.memory_info().rss - before
        assert grown < 100_000_000, f"{grown / 1e6:.0f} MB more memory for a client that reads nothing"
        for correlation_id in sent:
            received, response = lazy.receive()
            assert received == correlation_id
            assert len(response.responses[0].partitions[0].records) > 2 * len(value)


def listening_process(address: str) -> psutil.Process:
    """The process of this machine that listens on host:port."""
    port = int(address.rpartition(":")[2])
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            return psutil.Process(connection.pid)
    pytest.skip("the cluster under test is not on this machine")
