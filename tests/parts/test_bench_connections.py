"""The benchmark's client of many connections, against a server that answers as it is told."""

from __future__ import annotations

import contextlib
import socketserver
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from tests.lab.bench.connections import NOT_COUNTED_S, many_connections
from tests.lab.bench.measured import ClientError

TOPIC = "some-topic"


class _Answers(socketserver.BaseRequestHandler):
    """Answers each Produce v7 frame after a time, with an error code."""

    after_s = 0.0
    error_code = 0

    def handle(self) -> None:
        stream = self.request.makefile("rb")
        while size := stream.read(4):
            frame = stream.read(struct.unpack(">i", size)[0])
            time.sleep(self.after_s)
            (correlation_id,) = struct.unpack_from(">i", frame, 4)
            name = struct.pack(">h", len(TOPIC)) + TOPIC.encode()
            partition = struct.pack(">iihqqq", 1, 0, self.error_code, 0, -1, 0)
            body = struct.pack(">ii", correlation_id, 1) + name + partition + struct.pack(">i", 0)
            self.request.sendall(struct.pack(">i", len(body)) + body)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextlib.contextmanager
def broker(after_s: float, error_code: int = 0) -> Iterator[dict[int, str]]:
    """The leaders of two partitions."""
    handler = type("Answers", (_Answers,), {"after_s": after_s, "error_code": error_code})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield dict.fromkeys((0, 1), f"127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            thread.join()


def test_latency_is_from_the_send_to_the_answers_arrival() -> None:
    with broker(after_s=0.02) as leaders:
        found = many_connections(leaders, TOPIC, connections=10, per_s=5, records=100, size=100, acks=1)
    assert (found.records, found.bytes) == (100, 10_000)
    assert found.seconds > NOT_COUNTED_S
    assert found.p50_ms is not None and found.p50_ms >= 20
    assert found.client_cpu_s is not None


def test_a_record_that_is_refused_is_an_error() -> None:
    with broker(after_s=0, error_code=6) as leaders, pytest.raises(ClientError, match="error code 6"):
        many_connections(leaders, TOPIC, connections=2, per_s=5, records=10, size=100, acks=1)
