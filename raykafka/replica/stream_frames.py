"""The frames of a replication stream: one ordered connection from a partition's leader to one follower (rule 11).

The leader connects and waits for READY, which the follower's process sends once it holds the connection. Then HELLO
from the leader, ANSWER from the follower once its log is the beginning of the leader's, and from there on DATA one way
and ACK the other. SLEEP ends it: the leader falls asleep at that log end (rule 17). Where the follower is throttled the
leader sends an ASK before it sends more, with the bytes that it sent too many, and the follower's GRANT says how many
may come. All integers are big-endian.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from raykafka.epoch_history import EpochHistory
from raykafka.link import Link
from raykafka.replica.rules.events import Hello, StreamId
from raykafka.types import FrameKind

STREAM_ROLE = "stream"

READY = FrameKind(32)
HELLO = FrameKind(33)
ANSWER = FrameKind(34)
DATA = FrameKind(35)
ACK = FrameKind(36)
SLEEP = FrameKind(37)
ASK = FrameKind(38)
GRANT = FrameKind(39)
REFUSED = FrameKind(40)

_HELLO = struct.Struct(">iiiQqqqI")
_EPOCH = struct.Struct(">iq")
_ANSWER = struct.Struct(">qii")
_DATA = struct.Struct(">qq")
_ACK = struct.Struct(">q")

# how often a leader speaks on an idle stream, and its follower answers (rule 12)
BEAT_S = 0.5

# a peer whose host is gone says nothing: this is how long its silence is borne
_PEER_SILENT_MS = 10_000


def pack_hello(hello: Hello) -> bytes:
    """The payload of HELLO: a head, then the leader's epochs."""
    head = _HELLO.pack(*hello.stream, hello.log_start, hello.log_end, hello.high_watermark, len(hello.history))
    return head + b"".join(_EPOCH.pack(*entry) for entry in hello.history)


def unpack_hello(payload: memoryview) -> Hello:
    """What ``pack_hello`` packed."""
    epoch, leader, broker_epoch, number, log_start, log_end, high_watermark, count = _HELLO.unpack_from(payload)
    end = _HELLO.size + count * _EPOCH.size
    history = EpochHistory.of(_EPOCH.iter_unpack(payload[_HELLO.size : end]))
    return Hello(StreamId(epoch, leader, broker_epoch, number), history, log_start, log_end, high_watermark)


class Position(NamedTuple):
    """What a follower answers to a Hello: the end of its log, the epoch of its last record, its broker's epoch."""

    log_end: int
    last_epoch: int
    broker_epoch: int

    def pack(self) -> bytes:
        return _ANSWER.pack(*self)

    @staticmethod
    def unpack(payload: memoryview) -> Position:
        return Position(*_ANSWER.unpack_from(payload))


def pack_data(log_start: int, high_watermark: int) -> bytes:
    """The head of DATA; whole batches follow it, or nothing."""
    return _DATA.pack(log_start, high_watermark)


def unpack_data(payload: memoryview) -> tuple[int, int, memoryview]:
    """(log start, high watermark, whole batches or nothing) of a DATA frame."""
    log_start, high_watermark = _DATA.unpack_from(payload)
    return log_start, high_watermark, payload[_DATA.size :]


def pack_sleep(log_end: int) -> bytes:
    """The payload of SLEEP: the leader's log end."""
    return _ACK.pack(log_end)


def unpack_sleep(payload: memoryview) -> int:
    """What ``pack_sleep`` packed."""
    return int(_ACK.unpack_from(payload)[0])


def pack_bytes(size: int) -> bytes:
    """The payload of ASK and GRANT."""
    return _ACK.pack(size)


def unpack_bytes(payload: memoryview) -> int:
    """What ``pack_bytes`` packed."""
    return int(_ACK.unpack_from(payload)[0])


def pack_ack(log_end: int) -> bytes:
    """The payload of ACK: the end of the follower's log."""
    return _ACK.pack(log_end)


def unpack_ack(payload: memoryview) -> int:
    """What ``pack_ack`` packed."""
    return int(_ACK.unpack_from(payload)[0])


def notice_silence(link: Link) -> None:
    """Have the kernel end the connection when the peer's host is gone, though nothing is sent."""
    sock = link.transport.get_extra_info("socket")
    if link.transport.is_closing() or sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _PEER_SILENT_MS)
