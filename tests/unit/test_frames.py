"""Frames out of a stream, however it is cut; and what a connection takes for what was only announced."""

from __future__ import annotations

import random
import struct
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raykafka.link.frames import FrameProtocol
from tests.lab.log_parts import unhurried

MAX = 1 << 20


class Transport:
    """A socket that has been closed, or not."""

    def __init__(self) -> None:
        self.is_over = False

    def abort(self) -> None:
        self.is_over = True

    def is_closing(self) -> bool:
        return self.is_over


class Connection(FrameProtocol):
    """``taken`` is what partial frames take of memory now, ``most`` what they took at most."""

    max_frame_bytes = MAX

    def __init__(self, closes_at: int = -1) -> None:
        super().__init__()
        self.frames: list[bytes] = []
        self.taken = self.most = 0
        self._closes_at = closes_at
        made: Any = Transport()
        self.connection_made(made)

    def frame_received(self, frame: memoryview) -> None:
        self.frames.append(bytes(frame))
        frame[:] = bytes(len(frame))  # it is the receiver's
        if len(self.frames) == self._closes_at:
            self.transport.abort()

    def partial_took(self, size: int) -> None:
        self.taken += size
        self.most = max(self.most, self.taken)

    def receive(self, data: bytes, at_once: int) -> None:
        """As a socket: as much as there is room for, or ``at_once``."""
        while data and not self.transport.is_closing():
            buffer = self.get_buffer(-1)
            size = min(len(buffer), at_once, len(data))
            assert size > 0
            buffer[:size] = data[:size]
            self.buffer_updated(size)
            data = data[size:]


def stream(frames: list[bytes]) -> bytes:
    return b"".join(struct.pack(">i", len(frame)) + frame for frame in frames)


@unhurried
@given(seed=st.integers(0, 2**32))
def test_frames_are_the_same_however_the_stream_is_cut_and_whoever_else_receives(seed):
    chance = random.Random(seed)
    connections = [Connection() for _ in range(3)]
    sent: list[list[bytes]] = []
    left: list[bytes] = []
    for _ in connections:
        sizes = [chance.choice([0, 1, 5, 100, 16_000, 70_000, 200_000, 1_000_000]) for _ in range(6)]
        sent.append([chance.randbytes(chance.randrange(size + 1)) for size in sizes])
        left.append(stream(sent[-1]))
    while any(left):
        which = chance.randrange(len(connections))
        size = chance.choice([1, 2, 3, 4, 7, 1000, 60_000, 300_000])
        now, left[which] = left[which][:size], left[which][size:]
        connections[which].receive(now, chance.choice([1000, 50_000, 1 << 20]))
    assert [connection.frames for connection in connections] == sent
    assert [connection.taken for connection in connections] == [0, 0, 0]
    assert all(connection.partial is None for connection in connections)


@pytest.mark.parametrize("length", [MAX, 100_000, 17_000])
def test_an_announcement_costs_what_has_come_and_no_more(length):
    connection = Connection()
    connection.receive(struct.pack(">i", length), 4)
    assert connection.taken <= 16 * 1024
    for came in range(0, length, 10_000):
        connection.receive(bytes(min(10_000, length - came)), 10_000)
        if came + 10_000 < length:
            assert connection.taken <= max(16 * 1024, 2 * (came + 10_000))
    assert (len(connection.frames), connection.taken) == (1, 0)


def test_a_connection_that_has_sent_large_frames_is_given_room_for_one_at_once():
    connection = Connection()
    connection.receive(stream([bytes(500_000)]), 1 << 20)
    connection.receive(struct.pack(">i", 500_000) + b"x", 5)
    assert connection.taken == 500_000


@pytest.mark.parametrize("length", [-1, MAX + 1, 0x16030102, -(2**31)])
@pytest.mark.parametrize("cut", [1, 4, 9])
def test_a_length_that_no_frame_may_have_ends_the_connection(length, cut):
    connection = Connection()
    connection.receive(stream([b"a"]) + struct.pack(">i", length) + bytes(100), cut)
    assert connection.frames == [b"a"] and connection.transport.is_closing() and connection.taken == 0


def test_nothing_is_handed_over_behind_the_frame_that_ended_the_connection():
    for cut in (1, 3, 1000):
        connection = Connection(closes_at=2)
        connection.receive(stream([b"a", b"b", b"c"]), cut)
        assert connection.frames == [b"a", b"b"]


def test_what_a_connection_is_amid_changes_as_more_comes_and_goes_with_it():
    connection, seen = Connection(), []
    for data in (b"\0\0", b"\0", b"\5", b"ab", b"c"):
        connection.receive(data, 10)
        seen.append(connection.partial)
    assert None not in seen and len(set(seen)) == len(seen)
    connection.connection_lost(None)
    assert connection.taken == 0
    connection = Connection()
    connection.receive(stream([b"abc"]), 10)
    assert connection.partial is None


def test_connections_that_are_silent_share_what_they_receive_into():
    first, second = Connection(), Connection()
    assert first.get_buffer(-1) is second.get_buffer(-1)
    others: list[Any] = []
    thread = threading.Thread(target=lambda: others.append(Connection().get_buffer(-1)))
    thread.start()
    thread.join()
    assert others[0] is not first.get_buffer(-1)
