"""The frames of a replication connection: from one replica actor to one of another broker, with the streams of all
partitions that the first leads and the second follows (rule 11).

The leaders' actor connects and waits for READY, in which the followers' actor gives its number. A stream is named by a
number that the leaders' side never uses twice on a connection. It begins with HELLO. ANSWER comes once the follower's
log is the beginning of the leader's, ELSEWHERE when another actor of that broker has the replica, and END, by either
side, ends it. DATA goes one way and ACKS the other; HEADS tell followers that get no records where the leader's log
starts and what is committed of it. Where a follower is throttled its leader sends an ASK before it sends more, with the
bytes that it sent too many, and the GRANT says how many may come. BEAT says that its sender lives (rule 12).

All integers are big-endian. What is packed here is a whole frame, with the head that ``link.Link`` reads; what is
unpacked is a frame's payload. Every ``unpack`` raises BadFrame for a payload that is not what it should be.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from raykafka.epoch_history import EpochHistory
from raykafka.errors import LinkError
from raykafka.log.batch_layout import HEADER_BYTES
from raykafka.replica.rules.events import Hello, StreamId
from raykafka.types import FrameKind, PartitionKey

REPLICATION_ROLE = "replication"

READY = FrameKind(32)
HELLO = FrameKind(33)
ANSWER = FrameKind(34)
DATA = FrameKind(35)
ACKS = FrameKind(36)
HEADS = FrameKind(37)
ASK = FrameKind(38)
GRANT = FrameKind(39)
END = FrameKind(40)
ELSEWHERE = FrameKind(41)
BEAT = FrameKind(42)

# why a stream ended: its replica does not go on with it, or could not write what came
CLOSED, REFUSED = 0, 1

_FRAME = struct.Struct(">iB")
_NUMBER = struct.Struct(">I")
_KEY = struct.Struct(">I16siH")
_HELLO = struct.Struct(">iiiQqqqI")
_EPOCH = struct.Struct(">iq")
_ANSWER = struct.Struct(">Iqii")
_FRAMED_DATA = struct.Struct(">iBIqq")
_DATA = struct.Struct(">Iqq")
_ACK = struct.Struct(">Iq")
_BYTES = struct.Struct(">Iq")
_ELSEWHERE = struct.Struct(">II")
_END = struct.Struct(">IB")


class BadFrame(LinkError):
    """The other end sent what no frame is."""


class Position(NamedTuple):
    """What a follower answers to a Hello: the end of its log, the epoch of its last record, its broker's epoch."""

    log_end: int
    last_epoch: int
    broker_epoch: int


def _framed(kind: FrameKind, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload) + 1, kind) + payload


def _exactly(layout: struct.Struct, payload: memoryview) -> tuple[int, ...]:
    if len(payload) != layout.size:
        raise BadFrame(f"{len(payload)} bytes where {layout.size} should be")
    return layout.unpack(payload)


def _each(layout: struct.Struct, payload: memoryview) -> Iterator[tuple[int, ...]]:
    if len(payload) % layout.size:
        raise BadFrame(f"{len(payload)} bytes where {layout.size} each should be")
    return layout.iter_unpack(payload)


BEAT_FRAME = _framed(BEAT, b"")


def pack_ready(actor: int) -> bytes:
    """READY of the actor with this number."""
    return _framed(READY, _NUMBER.pack(actor))


def unpack_ready(payload: memoryview) -> int:
    """The actor's number."""
    return _exactly(_NUMBER, payload)[0]


def pack_hello(number: int, key: PartitionKey, hello: Hello) -> bytes:
    """HELLO: the stream's number, the partition, the leader's log and its epochs."""
    topic = key.topic.encode()
    head = _HELLO.pack(*hello.stream, hello.log_start, hello.log_end, hello.high_watermark, len(hello.history))
    epochs = b"".join(_EPOCH.pack(*entry) for entry in hello.history)
    return _framed(HELLO, _KEY.pack(number, key.topic_id.bytes, key.partition, len(topic)) + topic + head + epochs)


def unpack_hello(payload: memoryview) -> tuple[int, PartitionKey, Hello]:
    """(number, partition, Hello)."""
    try:
        number, topic_id, partition, topic_bytes = _KEY.unpack_from(payload)
        at = _KEY.size + topic_bytes
        topic = str(payload[_KEY.size : at], "utf-8")
        epoch, leader, broker_epoch, stream, start, end, high_watermark, count = _HELLO.unpack_from(payload, at)
    except (struct.error, UnicodeDecodeError) as error:
        raise BadFrame(f"a HELLO of {len(payload)} bytes: {error}") from error
    epochs = payload[at + _HELLO.size :]
    if len(epochs) != count * _EPOCH.size:
        raise BadFrame(f"a HELLO with {len(epochs)} bytes of {count} epochs")
    if not 0 <= start <= end:
        raise BadFrame(f"a HELLO of a log from {start} to {end}")
    history = EpochHistory.of(_EPOCH.iter_unpack(epochs))
    key = PartitionKey(topic, uuid.UUID(bytes=topic_id), partition)
    return number, key, Hello(StreamId(epoch, leader, broker_epoch, stream), history, start, end, high_watermark)


def pack_answer(number: int, position: Position) -> bytes:
    """ANSWER."""
    return _framed(ANSWER, _ANSWER.pack(number, *position))


def unpack_answer(payload: memoryview) -> tuple[int, Position]:
    """(number, Position)."""
    number, *position = _exactly(_ANSWER, payload)
    return number, Position(*position)


def pack_data(number: int, log_start: int, high_watermark: int, size: int) -> bytes:
    """The head of DATA with ``size`` bytes of records, whole batches, which follow it."""
    return _FRAMED_DATA.pack(size + _DATA.size + 1, DATA, number, log_start, high_watermark)


def unpack_data(payload: memoryview) -> tuple[int, int, int, memoryview]:
    """(number, log start, high watermark, whole batches)."""
    if len(payload) < _DATA.size + HEADER_BYTES:
        raise BadFrame(f"DATA of {len(payload)} bytes")
    number, log_start, high_watermark = _DATA.unpack_from(payload)
    return number, log_start, high_watermark, payload[_DATA.size :]


def pack_heads(heads: Iterable[tuple[int, int, int]]) -> bytes:
    """HEADS: (number, log start, high watermark) of each stream."""
    return _framed(HEADS, b"".join([_DATA.pack(*head) for head in heads]))


def unpack_heads(payload: memoryview) -> Iterator[tuple[int, ...]]:
    """(number, log start, high watermark) of each stream."""
    return _each(_DATA, payload)


def pack_acks(acks: Iterable[tuple[int, int]]) -> bytes:
    """ACKS: (number, end of the follower's log) of each stream."""
    return _framed(ACKS, b"".join([_ACK.pack(*ack) for ack in acks]))


def unpack_acks(payload: memoryview) -> Iterator[tuple[int, ...]]:
    """(number, end of the follower's log) of each stream."""
    return _each(_ACK, payload)


def pack_bytes(kind: FrameKind, number: int, size: int) -> bytes:
    """ASK or GRANT."""
    return _framed(kind, _BYTES.pack(number, size))


def unpack_bytes(payload: memoryview) -> tuple[int, int]:
    """(number, bytes) of ASK and GRANT."""
    number, size = _exactly(_BYTES, payload)
    return number, size


def pack_elsewhere(number: int, actor: int) -> bytes:
    """ELSEWHERE: the number of the actor that has the replica."""
    return _framed(ELSEWHERE, _ELSEWHERE.pack(number, actor))


def unpack_elsewhere(payload: memoryview) -> tuple[int, int]:
    """(number, actor)."""
    number, actor = _exactly(_ELSEWHERE, payload)
    return number, actor


def pack_end(number: int, reason: int) -> bytes:
    """END: CLOSED or REFUSED."""
    return _framed(END, _END.pack(number, reason))


def unpack_end(payload: memoryview) -> tuple[int, int]:
    """(number, CLOSED or REFUSED)."""
    number, reason = _exactly(_END, payload)
    return number, reason
