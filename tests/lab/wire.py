"""One raw connection to a broker: requests as bytes in whatever order a test wants, responses as kio's dataclasses."""

from __future__ import annotations

import datetime
import io
import socket
import struct
from collections.abc import Sequence
from types import ModuleType, TracebackType
from typing import Any, Self

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from kio.index import load_payload_module, load_response_schema
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType

PRODUCE, FETCH, LIST_OFFSETS, METADATA = 0, 1, 2, 3
TIMEOUT_S = 120.0


def request_module(api_key: int, version: int) -> ModuleType:
    """kio's module of that request: its classes are the nested types."""
    return load_payload_module(api_key, version, EntityType.request)


class WireConnection:
    """A TCP connection that speaks Kafka's framing and nothing more: it never retries, reorders or waits by itself."""

    def __init__(
        self, bootstrap: str, *, receive_buffer_bytes: int | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        host, _, port = bootstrap.split(",")[0].rpartition(":")
        self.socket = socket.socket()
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(timeout_s)
        self.socket.connect((host, int(port)))
        self._sent = 0
        self._schemas: dict[int, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def encode(self, request: Any) -> tuple[int, bytes]:
        """(correlation id, frame) of a request: for tests that put several frames into one write."""
        self._sent += 1
        api_key, version = request.__api_key__, request.__version__
        header_class = request.__header_schema__
        header = header_class(
            request_api_key=api_key, request_api_version=version, correlation_id=self._sent, client_id="raw-socket"
        )
        buffer = io.BytesIO()
        entity_writer(header_class)(buffer, header)
        entity_writer(type(request))(buffer, request)
        self._schemas[self._sent] = load_response_schema(api_key, version)
        body = buffer.getvalue()
        return self._sent, struct.pack(">i", len(body)) + body

    def send(self, *requests: Any) -> list[int]:
        """Put these requests on the wire in one write; their correlation ids."""
        encoded = [self.encode(request) for request in requests]
        self.socket.sendall(b"".join(frame for _, frame in encoded))
        return [correlation_id for correlation_id, _ in encoded]

    def receive(self) -> tuple[int, Any]:
        """(correlation id, response) of the next frame. Raises ``ConnectionError`` at the end of the stream."""
        (length,) = struct.unpack(">i", self._read(4))
        frame = memoryview(self._read(length)).toreadonly()
        (correlation_id,) = struct.unpack_from(">i", frame)
        schema = self._schemas.pop(correlation_id)
        _, header_length = entity_reader(schema.__header_schema__)(frame, 0)
        response, _ = entity_reader(schema)(frame, header_length)
        return correlation_id, response

    def call(self, request: Any) -> Any:
        (sent,) = self.send(request)
        correlation_id, response = self.receive()
        assert correlation_id == sent
        return response

    def _read(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            part = self.socket.recv(min(length - len(parts), 1 << 20))
            if not part:
                raise ConnectionError("the broker closed the connection")
            parts += part
        return bytes(parts)


def record_batch(values: Sequence[bytes], *, producer: tuple[int, int, int] = (-1, -1, -1), codec: int = 0) -> bytes:
    """A batch as a producer sends it. ``producer`` is (id, epoch, base sequence)."""
    producer_id, epoch, sequence = producer
    size = sum(map(len, values)) + 100 * len(values) + 1000
    builder = DefaultRecordBatchBuilder(2, codec, 0, producer_id, epoch, sequence, size)
    for offset, value in enumerate(values):
        assert builder.append(offset, timestamp=None, key=None, value=value, headers=[]) is not None
    return bytes(builder.build())


def record_values(records: bytes | None) -> list[tuple[int, bytes]]:
    """(offset, value) of every record in the batches of a fetch response."""
    parsed = MemoryRecords(records or b"")
    found = []
    while parsed.has_next():
        found += [(record.offset, record.value) for record in parsed.next_batch()]
    return found


def produce_request(
    topic: str, records: bytes, *, acks: int, partition: int = 0, version: int = 9, timeout_ms: int = 10_000
) -> Any:
    module = request_module(PRODUCE, version)
    return module.ProduceRequest(
        transactional_id=None,
        acks=acks,
        timeout=milliseconds(timeout_ms),
        topic_data=(
            module.TopicProduceData(
                name=topic, partition_data=(module.PartitionProduceData(index=partition, records=records),)
            ),
        ),
    )


def fetch_request(
    topic: str, offset: int, *, partition: int = 0, max_bytes: int = 1 << 20, min_bytes: int = 1, max_wait_ms: int = 500
) -> Any:
    module = request_module(FETCH, 12)
    wanted = module.FetchPartition(partition=partition, fetch_offset=offset, partition_max_bytes=max_bytes)
    return module.FetchRequest(
        max_wait=milliseconds(max_wait_ms),
        min_bytes=min_bytes,
        max_bytes=50 << 20,
        isolation_level=0,
        session_id=0,
        session_epoch=-1,
        topics=(module.FetchTopic(topic=topic, partitions=(wanted,)),),
        forgotten_topics_data=(),
        rack_id="",
    )


def metadata_request(topics: Sequence[str] | None) -> Any:
    """Metadata of ``topics``, None for all."""
    module = request_module(METADATA, 9)
    return module.MetadataRequest(
        topics=None if topics is None else tuple(module.MetadataRequestTopic(name=name) for name in topics),
        allow_auto_topic_creation=False,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=False,
    )


def list_offsets_request(topic: str, timestamp: int, *, partition: int = 0) -> Any:
    """Ask for the offset at a timestamp, or -1 latest, -2 earliest, -3 of the greatest timestamp."""
    module = request_module(LIST_OFFSETS, 7)
    wanted = module.ListOffsetsPartition(partition_index=partition, current_leader_epoch=-1, timestamp=timestamp)
    return module.ListOffsetsRequest(
        replica_id=-1, isolation_level=0, topics=(module.ListOffsetsTopic(name=topic, partitions=(wanted,)),)
    )


def milliseconds(count: int) -> datetime.timedelta:
    return datetime.timedelta(milliseconds=count)
