"""Produce: append record batches to the partitions that this broker leads.

Versions: 3-11.
v3: record batches (magic 2), transactional id. v5: log start offset. v7: zstd. v8: record errors and error messages.
v9: flexible. v10: the current leader beside NOT_LEADER_OR_FOLLOWER. v11: transaction errors.
Versions 0-2 are advertised, since librdkafka else drops compression silently; they are answered UNSUPPORTED_VERSION, as
their message formats are not stored. Transactional ids are refused with INVALID_REQUEST until transactions are served.

The codec is our own: the records stay views into the frame that the client sent, all the way to the replica's socket.
Nothing here waits: the request is handed to the replicas before ``handle_raw`` returns, and its answer is written when
the last of them has answered. With acks=0 nothing is answered, and an error closes the connection.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from raykafka.broker.leader_hints import LeaderHints, tagged
from raykafka.link.messages import ANY_EPOCH, Appended
from raykafka.protocol import acl
from raykafka.protocol.context import RequestContext
from raykafka.protocol.error_code import ErrorCode
from raykafka.protocol.registry import Buffer, UnanswerableRequestError
from raykafka.protocol.wire import Cursor, MalformedError, length_prefix, nullable_string
from raykafka.types import INTERNAL_TOPICS

if TYPE_CHECKING:
    from raykafka.broker.broker import Broker

API_KEY = 0
VERSIONS = (3, 11)
ADVERTISED = (0, 11)

ALL = -1
_ADMIN_CLIENT_ID = "__admin_client"
_FLEXIBLE_FROM = 9
_HEADER_BYTES = 61
_BATCH_LENGTH = struct.Struct(">i")
_BATCH_LENGTH_POSITION = 8
_BATCH_PREFIX_BYTES = 12
_CODEC_BYTE = 22
_CODEC_MASK = 0x07
_ZSTD = 4
_TRANSACTIONAL = 0x10

_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_V0 = struct.Struct(">ihq")
_V2 = struct.Struct(">ihqq")
_V5 = struct.Struct(">ihqqq")


PartitionRecords = tuple[int, memoryview | None]
"""A partition's index, and the record batch for it."""


class ProduceRequest(NamedTuple):
    transactional_id: str | None
    acks: int
    timeout_ms: int
    topics: list[tuple[str, list[PartitionRecords]]]


def parse(version: int, body: memoryview) -> ProduceRequest:
    """Read a request without copying its records. Raises MalformedError."""
    cursor = Cursor(body, flexible=version >= _FLEXIBLE_FROM)
    transactional_id = cursor.nullable_string() if version >= 3 else None
    acks = cursor.i16()
    timeout_ms = cursor.i32()
    topics = []
    for _ in range(cursor.array_length()):
        name = cursor.string()
        partitions = []
        for _ in range(cursor.array_length()):
            partitions.append((cursor.i32(), cursor.nullable_bytes()))
            cursor.skip_tags()
        cursor.skip_tags()
        topics.append((name, partitions))
    cursor.skip_tags()
    return ProduceRequest(transactional_id, acks, timeout_ms, topics)


def handle_raw(context: RequestContext, body: memoryview, server: Broker) -> asyncio.Future[list[Buffer]]:
    """Hand the batches to their replicas now; the future gives the response."""
    try:
        request = parse(context.api_version, body)
    except MalformedError as error:
        raise UnanswerableRequestError(f"malformed Produce request: {error}") from error
    pending = _Pending(context, request, server)
    refusal = _refusal(context, request, server)
    image_topics = server.image.topics
    for number, (topic, partitions) in enumerate(request.topics):
        topic_refusal = refusal or _topic_refusal(context, topic, server)
        for position, (index, records) in enumerate(partitions):
            done = pending.expect(number, position)
            refused = topic_refusal or _records_refusal(context.api_version, records)
            if refused is not None or records is None:
                done(refused or _UNKNOWN)
                continue
            host = server.partitions.get((topic, index))
            if host is None:
                known = topic in image_topics and index in image_topics[topic].partitions
                done(_NOT_HERE if known else _UNKNOWN)
                continue
            host.submit(records, request.acks, request.timeout_ms, ANY_EPOCH, done)
    pending.answered()
    return pending.future


_NOT_HERE = Appended(-1, ErrorCode.NOT_LEADER_OR_FOLLOWER)
_UNKNOWN = Appended(-1, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)


def _refusal(context: RequestContext, request: ProduceRequest, server: Broker) -> Appended | None:
    """Why the whole request is refused, if it is."""
    if context.api_version < VERSIONS[0]:
        return Appended(-1, ErrorCode.UNSUPPORTED_VERSION)
    if request.acks not in (ALL, 0, 1):
        return Appended(-1, ErrorCode.INVALID_REQUIRED_ACKS)
    if request.transactional_id is not None:
        return Appended(-1, ErrorCode.INVALID_REQUEST, message="transactions are not served by this cluster")
    if request.acks != ALL and not server.holds_lease():
        return Appended(-1, ErrorCode.NOT_LEADER_OR_FOLLOWER, message="the broker has lost touch with ZooKeeper")
    return None


def _topic_refusal(context: RequestContext, topic: str, server: Broker) -> Appended | None:
    if not server.authorize(context, acl.Operation.WRITE, acl.Resource(acl.ResourceType.TOPIC, topic)):
        return Appended(-1, ErrorCode.TOPIC_AUTHORIZATION_FAILED)
    if topic in INTERNAL_TOPICS and context.client_id != _ADMIN_CLIENT_ID:
        return Appended(-1, ErrorCode.INVALID_TOPIC_EXCEPTION, message=f"{topic} is written by the brokers only")
    return None


def _records_refusal(version: int, records: memoryview | None) -> Appended | None:
    """What can be said of the records here; their replica checks the rest."""
    if records is None or len(records) < _HEADER_BYTES:
        return Appended(-1, ErrorCode.INVALID_RECORD, message="there is no whole record batch to append")
    (length,) = _BATCH_LENGTH.unpack_from(records, _BATCH_LENGTH_POSITION)
    if length + _BATCH_PREFIX_BYTES < len(records):
        return Appended(-1, ErrorCode.INVALID_RECORD, message="a partition gets more than one record batch at once")
    attributes = records[_CODEC_BYTE]
    if attributes & _CODEC_MASK == _ZSTD and version < 7:
        return Appended(-1, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, message="zstd needs Produce version 7 or later")
    if attributes & _TRANSACTIONAL:
        return Appended(-1, ErrorCode.INVALID_RECORD, message="transactions are not served by this cluster")
    return None


class _Pending:
    """A request whose partitions are being answered. ``future`` gives the response once all of them are."""

    __slots__ = ("_context", "_missing", "_request", "_results", "_server", "future")

    def __init__(self, context: RequestContext, request: ProduceRequest, server: Broker) -> None:
        self.future: asyncio.Future[list[Buffer]] = asyncio.get_running_loop().create_future()
        self._context = context
        self._request = request
        self._server = server
        self._results: list[list[Appended | None]] = [[None] * len(ps) for _, ps in request.topics]
        self._missing = 1

    def expect(self, topic: int, position: int) -> Callable[[Appended], None]:
        """One more partition to wait for: what is returned takes its outcome, once."""
        self._missing += 1
        results = self._results[topic]

        def done(appended: Appended) -> None:
            results[position] = appended
            self.answered()

        return done

    def answered(self) -> None:
        self._missing -= 1
        if self._missing or self.future.done():
            return
        if self._request.acks == 0:
            failed = next((r for results in self._results for r in results if r is not None and r.error), None)
            if failed is None:
                self.future.set_result([])
            else:
                self.future.set_exception(UnanswerableRequestError(f"Produce with acks=0 failed: {failed.error.name}"))
            return
        self.future.set_result([self._response()])

    def _response(self) -> bytes:
        context = self._context
        version = context.api_version
        flexible = version >= _FLEXIBLE_FROM
        size = sum(len(records) for _, ps in self._request.topics for _, records in ps if records is not None)
        throttle_ms = self._server.charge(context, "produce", size)
        hints = LeaderHints(self._server.image, context.listener) if version >= 10 else None
        out = [length_prefix(len(self._request.topics), flexible=flexible)]
        for (topic, partitions), results in zip(self._request.topics, self._results, strict=True):
            out.append(nullable_string(topic, flexible=flexible))
            out.append(length_prefix(len(partitions), flexible=flexible))
            for (index, _), result in zip(partitions, results, strict=True):
                assert result is not None
                out.append(_partition_response(version, topic, index, result, hints))
            if flexible:
                out.append(b"\0")
        if version >= 1:
            out.append(_I32.pack(throttle_ms))
        if flexible:
            out.append(tagged(0, hints.endpoints()) if hints else b"\0")
        return b"".join(out)


def _partition_response(version: int, topic: str, index: int, result: Appended, hints: LeaderHints | None) -> bytes:
    error, base, time_ms = result.error, result.base_offset, result.log_append_time_ms
    if version < 5:
        return _V2.pack(index, error, base, time_ms) if version >= 2 else _V0.pack(index, error, base)
    head = _V5.pack(index, error, base, time_ms, result.log_start_offset)
    if version < 8:
        return head
    flexible = version >= _FLEXIBLE_FROM
    if error is ErrorCode.NONE:
        return head + (b"\x01\0\0" if flexible else b"\0\0\0\0\xff\xff")
    head += b"\x01" if flexible else b"\0\0\0\0"  # no errors of single records
    head += nullable_string(result.message or None, flexible=flexible)
    if not flexible:
        return head
    moved = hints is not None and error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    return head + tagged(0, hints.leader(topic, index) if moved and hints else None)
