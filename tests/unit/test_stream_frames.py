"""What is packed on a replication connection comes out as it was; what no frame is raises BadFrame and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raykafka.epoch_history import EpochHistory
from raykafka.replica import stream_frames as frames
from raykafka.replica.rules.events import Hello, StreamId
from raykafka.types import PartitionKey

int32 = st.integers(-(2**31), 2**31 - 1)
offsets = st.integers(0, 2**62)
numbers = st.integers(0, 2**32 - 1)
UNPACK: dict[int, Callable[[memoryview], object]] = {
    frames.READY: frames.unpack_ready,
    frames.HELLO: frames.unpack_hello,
    frames.ANSWER: frames.unpack_answer,
    frames.DATA: frames.unpack_data,
    frames.HEADS: lambda payload: list(frames.unpack_heads(payload)),
    frames.ACKS: lambda payload: list(frames.unpack_acks(payload)),
    frames.ASK: frames.unpack_bytes,
    frames.GRANT: frames.unpack_bytes,
    frames.END: frames.unpack_end,
    frames.ELSEWHERE: frames.unpack_elsewhere,
}


def payload(frame: bytes, kind: int) -> memoryview:
    """What a link hands over of a whole frame."""
    assert (int.from_bytes(frame[:4], "big"), frame[4]) == (len(frame) - 4, kind)
    return memoryview(bytearray(frame))[5:]


@given(
    number=numbers,
    topic=st.text(max_size=249),
    partition=int32,
    stream=st.builds(StreamId, int32, int32, int32, st.integers(0, 2**63)),
    epochs=st.lists(st.tuples(int32, offsets), max_size=20),
    ends=st.tuples(offsets, offsets),
    high_watermark=offsets,
)
def test_a_hello_comes_out_as_it_was(
    number: int,
    topic: str,
    partition: int,
    stream: StreamId,
    epochs: list[tuple[int, int]],
    ends: tuple[int, int],
    high_watermark: int,
) -> None:
    key = PartitionKey(topic, uuid.uuid4(), partition)
    hello = Hello(stream, EpochHistory.of(epochs), min(ends), max(ends), high_watermark)
    frame = frames.pack_hello(number, key, hello)
    assert frames.unpack_hello(payload(frame, frames.HELLO)) == (number, key, hello)


@given(numbers, int32, offsets, st.lists(st.tuples(numbers, offsets), max_size=9))
def test_other_frames_come_out_as_they_were(number: int, epoch: int, offset: int, acks: list[tuple[int, int]]) -> None:
    position = frames.Position(offset, epoch, epoch)
    assert frames.unpack_ready(payload(frames.pack_ready(number), frames.READY)) == number
    assert frames.unpack_answer(payload(frames.pack_answer(number, position), frames.ANSWER)) == (number, position)
    assert list(frames.unpack_acks(payload(frames.pack_acks(acks), frames.ACKS))) == acks
    heads = [(stream, end, offset) for stream, end in acks]
    assert list(frames.unpack_heads(payload(frames.pack_heads(heads), frames.HEADS))) == heads
    for kind in (frames.ASK, frames.GRANT):
        assert frames.unpack_bytes(payload(frames.pack_bytes(kind, number, offset), kind)) == (number, offset)
    assert frames.unpack_end(payload(frames.pack_end(number, 1), frames.END)) == (number, 1)
    elsewhere = payload(frames.pack_elsewhere(number, 7), frames.ELSEWHERE)
    assert frames.unpack_elsewhere(elsewhere) == (number, 7)
    records = bytes(61) + b"records"
    data = payload(frames.pack_data(number, offset, 9, len(records)) + records, frames.DATA)
    assert frames.unpack_data(data) == (number, offset, 9, records)


@pytest.mark.parametrize("kind", UNPACK)
@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_frame_are_refused_as_such(kind: int, data: bytes) -> None:
    with suppress(frames.BadFrame):
        UNPACK[kind](memoryview(data))


@given(st.integers(0, 10_000))
def test_a_hello_that_counts_more_epochs_than_it_has_is_refused(missing: int) -> None:
    hello = Hello(StreamId(1, 2, 3, 4), EpochHistory.of([(0, 0), (1, 5)]), 0, 9, 3)
    frame = frames.pack_hello(1, PartitionKey("t", uuid.uuid4(), 0), hello)
    cut = payload(frame, frames.HELLO)[: -1 - missing % 24]
    with pytest.raises(frames.BadFrame):
        frames.unpack_hello(cut)
