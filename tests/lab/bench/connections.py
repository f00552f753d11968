"""Many connections that each send a record now and then: one process, raw sockets, frames made beforehand."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.lab.bench.measured import ClientError, Measured, percentile
from tests.lab.wire import WireConnection, produce_request, record_batch

PRODUCE_VERSION = 7  # the last one whose answer has its error code at a fixed place; Kafka 3.9 and 4.3 serve it
NOT_COUNTED_S = 1.0  # at the start: what only a connection's first request costs
DRAIN_WITHIN_S = 10.0
LATEST_S = 1.0
SLICE_S = 0.0005
AHEAD = -10
_TIMESTAMPED = 35  # SO_TIMESTAMPNS, which the socket module does not name; also the type of the control message
_TIMESPEC = struct.Struct("@qq")
_SIZE = struct.Struct(">i")
_ERROR_CODE = struct.Struct(">h")


@dataclass(slots=True)
class _Connection:
    wire: WireConnection
    frame: bytes
    error_at: int  # in an answer, behind its size
    sent_ns: deque[int] = field(default_factory=deque)  # of the requests without an answer, oldest first
    received: bytearray = field(default_factory=bytearray)

    def send(self) -> None:
        self.sent_ns.append(time.time_ns())
        try:
            whole = self.wire.socket.send(self.frame) == len(self.frame)
        except BlockingIOError:
            whole = False
        if not whole:
            raise ClientError(f"a broker left {len(self.sent_ns)} requests of a connection unread")

    def receive(self) -> list[tuple[int, float]]:
        """Of each answer that came: when its request was sent (ns), and its latency in milliseconds."""
        data, control, _, _ = self.wire.socket.recvmsg(65536, socket.CMSG_SPACE(_TIMESPEC.size))
        if not data:
            raise ClientError("a broker closed a connection")
        seconds, nanoseconds = next(
            (_TIMESPEC.unpack(value) for _, kind, value in control if kind == _TIMESTAMPED), (0, 0)
        )
        arrived_ns = seconds * 1_000_000_000 + nanoseconds
        if not arrived_ns:
            raise ClientError("this kernel does not say when it received what")
        self.received += data
        found = []
        while len(self.received) >= 4:
            end = 4 + _SIZE.unpack_from(self.received)[0]
            if len(self.received) < end:
                break
            (code,) = _ERROR_CODE.unpack_from(self.received, 4 + self.error_at)
            if code:
                raise ClientError(f"a record was refused with error code {code}")
            del self.received[:end]
            sent_ns = self.sent_ns.popleft()
            found.append((sent_ns, (arrived_ns - sent_ns) / 1e6))
        return found


def many_connections(
    leaders: dict[int, str], topic: str, *, connections: int, per_s: int, records: int, size: int, acks: int
) -> Measured:
    """Sends ``records`` records, ``per_s`` a second over each of ``connections`` connections, evenly spread.

    Connection i writes partition i modulo their number, to its leader. A record is sent when it is due, whether those
    before it are answered or not.

    What the client costs is kept out of the latencies: one begins just before the ``send`` of its request, however late
    that was, and ends with the kernel's timestamp of the answer's arrival (SO_TIMESTAMPNS), not when this process comes
    to read it. Frames are made once and sent again and again, and of an answer only the error code is looked at. What
    remains is that it takes its share of the same cores; ``client_cpu_s`` says how much, and ``client_late_s`` how late
    records were sent. Where that is more than ``LATEST_S``, the load was not the one that was asked for: ClientError.
    The first ``NOT_COUNTED_S`` are not counted.
    """
    made: list[_Connection] = []
    try:
        partitions = sorted(leaders)
        for number in range(connections):
            made.append(_connect(leaders, topic, partitions[number % len(partitions)], size, acks))
        return _load(made, connections * per_s, records, size)
    finally:
        for connection in made:
            connection.wire.socket.close()


def _connect(leaders: dict[int, str], topic: str, partition: int, size: int, acks: int) -> _Connection:
    wire = WireConnection(leaders[partition])
    batch = record_batch([bytes(size)])
    _, frame = wire.encode(produce_request(topic, batch, acks=acks, partition=partition, version=PRODUCE_VERSION))
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire.socket.setsockopt(socket.SOL_SOCKET, _TIMESTAMPED, 1)
    wire.socket.setblocking(False)
    # correlation id, number of topics, the topic's name, number of partitions, the partition's index
    return _Connection(wire, frame, 4 + 4 + 2 + len(topic.encode()) + 4 + 4)


def _load(made: list[_Connection], per_s: int, records: int, size: int) -> Measured:
    """A slice of time after the other: what is due is sent, and the answers that lie there are read. When an answer is
    read does not matter, so that none wakes this process."""
    late_s: list[float] = []
    answers: list[tuple[int, float]] = []
    with select.epoll() as readable, _ahead_of_others():
        by_fd = {connection.wire.socket.fileno(): connection for connection in made}
        for fd in by_fd:
            readable.register(fd, select.EPOLLIN)
        began, began_ns, cpu_before = time.monotonic(), time.time_ns(), time.process_time()
        give_up, sent = began + records / per_s + DRAIN_WITHIN_S, 0
        while len(answers) < records:
            now = time.monotonic()
            while sent < records and (late := now - began - sent / per_s) >= 0:
                made[sent % len(made)].send()
                late_s.append(late)
                sent += 1
            for fd, _ in readable.poll(0):
                answers += by_fd[fd].receive()
            if now > give_up:
                raise ClientError(f"{len(answers)} of {records} records were acknowledged in time")
            time.sleep(max(0.0, now + SLICE_S - time.monotonic()))
        seconds, cpu_s = time.monotonic() - began, time.process_time() - cpu_before
    if (late := percentile(sorted(late_s), 99)) > LATEST_S:
        raise ClientError(f"the client itself was {late:.2f} s late (99th percentile)")
    first_counted_ns = began_ns + int(NOT_COUNTED_S * 1e9)
    latencies = sorted(latency for sent_ns, latency in answers if sent_ns >= first_counted_ns)
    return Measured(records, records * size, seconds, percentile(latencies, 50), percentile(latencies, 99), cpu_s, late)


@contextlib.contextmanager
def _ahead_of_others() -> Iterator[None]:
    """This process takes its share before all others where it may (as root): a client that gets no processor asks for
    less than it should, and of an overloaded system most. Nor does the collector of garbage stop it."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    gc.disable()
    try:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, min(before, AHEAD))
        yield
    finally:
        gc.enable()
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, before)
