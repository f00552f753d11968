"""Produce: append record batches to the partitions that this broker leads.

Versions: 3-11.
v3: record batches (magic 2), transactional id. v5: log start offset. v7: zstd. v8: record errors and error messages.
v9: flexible. v10: the current leader beside NOT_LEADER_OR_FOLLOWER. v11: transaction errors.
Versions 0-2 are advertised, since librdkafka else drops compression silently; they are answered UNSUPPORTED_VERSION, as
their message formats are not stored. Transactional ids are refused with INVALID_REQUEST until transactions are served.

The codec is our own: the records stay views into the frame that the client sent, all the way to the log's file.
Nothing here waits: the request is handed to the replicas before ``handle_raw`` returns, and its answer is written when
the last of them has answered. With acks=0 nothing is answered, and an error closes the connection.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import NamedTuple

from raykafka.error_code import ErrorCode
from raykafka.errors import UnanswerableRequestError
from raykafka.front.leader_hints import LeaderHints, tagged
from raykafka.front.serving import PartitionsServer
from raykafka.log.batch import record_count
from raykafka.log.batch_layout import (
    CODEC_MASK,
    FLAGS_POSITION,
    HEADER_BYTES,
    LENGTH,
    LENGTH_POSITION,
    PREFIX_BYTES,
    TRANSACTIONAL_BIT,
)
from raykafka.log.compression import ZSTD
from raykafka.partition.appends import ALL, ANY_EPOCH, NO_LEASE, Appended
from raykafka.protocol import acl
from raykafka.protocol.answer import Answer
from raykafka.protocol.context import RequestContext
from raykafka.protocol.wire import (
    Cursor,
    MalformedError,
    check_elements,
    length_prefix,
    nullable_string,
    read_uvarint,
    skip_tags,
)
from raykafka.types import INTERNAL_TOPICS

API_KEY = 0
VERSIONS = (3, 11)
ADVERTISED = (0, 11)
FLEXIBLE_FROM = 9
NEEDS = (acl.WRITE_TOPIC,)

_ADMIN_CLIENT_ID = "__admin_client"
_HINTS_FROM = 10

_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_ACKS_TIMEOUT = struct.Struct(">hi")
_V0 = struct.Struct(">ihq")
_V2 = struct.Struct(">ihqq")
_V5 = struct.Struct(">ihqqq")
_V8_SUCCESS = b"\0\0\0\0\xff\xff"
_V9_SUCCESS = b"\x01\0\0"


class TopicRecords(NamedTuple):
    """``encoded_name`` is the name as the request spells it, with its length: as the response will spell it too.
    ``partitions`` holds a partition's index and the record batch for it."""

    name: str
    encoded_name: memoryview
    partitions: list[tuple[int, memoryview | None]]


class ProduceRequest(NamedTuple):
    transactional_id: str | None
    acks: int
    timeout_ms: int
    topics: list[TopicRecords]


def parse(version: int, body: memoryview) -> ProduceRequest:
    """Read a request without copying its records. Raises MalformedError."""
    try:
        return _parse_flexible(body) if version >= FLEXIBLE_FROM else _parse_classic(version, body)
    except (IndexError, struct.error):
        raise MalformedError("the message ends too early") from None
    except UnicodeDecodeError as error:
        raise MalformedError(f"a string is not UTF-8: {error}") from None


def _parse_classic(version: int, body: memoryview) -> ProduceRequest:
    cursor = Cursor(body, flexible=False)
    transactional_id = cursor.nullable_string() if version >= 3 else None
    acks, timeout_ms = cursor.structure(_ACKS_TIMEOUT)
    topics = []
    for _ in range(cursor.array_length()):
        start = cursor.at
        name = cursor.string()
        encoded_name = body[start : cursor.at]
        partitions = [(cursor.i32(), cursor.nullable_bytes()) for _ in range(cursor.array_length())]
        topics.append(TopicRecords(name, encoded_name, partitions))
    return ProduceRequest(transactional_id, acks, timeout_ms, topics)


def _parse_flexible(body: memoryview) -> ProduceRequest:
    """What current clients send, so it is read in place: a Cursor would take as long as all the rest of the request."""
    end = len(body)
    length, at = read_uvarint(body, 0)
    transactional_id = str(body[at : at + length - 1], "utf-8") if length else None
    at += length - 1 if length else 0
    acks, timeout_ms = _ACKS_TIMEOUT.unpack_from(body, at)
    topic_count, at = read_uvarint(body, at + _ACKS_TIMEOUT.size)
    topics = []
    elements = topic_count
    check_elements(elements)
    for _ in range(topic_count - 1):
        start = at
        length, at = read_uvarint(body, at)
        name = str(body[at : at + length - 1], "utf-8")
        at += length - 1 if length else 0
        encoded_name = body[start:at]
        partitions: list[tuple[int, memoryview | None]] = []
        count, at = read_uvarint(body, at)
        elements += count
        check_elements(elements)
        for _ in range(count - 1):
            (index,) = _I32.unpack_from(body, at)
            length, at = read_uvarint(body, at + 4)
            if length:
                start, at = at, at + length - 1
                if at > end:
                    raise MalformedError(f"records of {length - 1} bytes are cut off")
                partitions.append((index, body[start:at]))
            else:
                partitions.append((index, None))
            at = at + 1 if body[at] == 0 else skip_tags(body, at)
        at = at + 1 if body[at] == 0 else skip_tags(body, at)
        topics.append(TopicRecords(name, encoded_name, partitions))
    return ProduceRequest(transactional_id, acks, timeout_ms, topics)


def handle_raw(context: RequestContext, body: memoryview, server: PartitionsServer) -> Answer:
    """Hand the batches to their replicas now; the answer is given by the last of them."""
    try:
        request = parse(context.api_version, body)
    except MalformedError as error:
        raise UnanswerableRequestError(f"malformed Produce request: {error}") from error
    pending = _Pending(context, request.acks, server)
    version = context.api_version
    refusal = _refusal(version, request, server)
    get_access = server.partitions.get
    timeout_ms = max(request.timeout_ms, 0)
    for topic in request.topics:
        name = topic.name
        topic_refusal = refusal or _topic_refusal(context, name)
        pending.begin_topic(name, topic.encoded_name)
        for index, records in topic.partitions:
            done = pending.expect(index, records)
            refused = topic_refusal or _records_refusal(version, records)
            if refused is not None or records is None:
                done(refused or _NO_RECORDS)
                continue
            access = get_access((name, index))
            if access is None:
                done(Appended(-1, server.partitions.missing_error((name, index))))
                continue
            access.submit(records, request.acks, timeout_ms, ANY_EPOCH, done)
    pending.all_expected()
    return pending


_NO_RECORDS = Appended(-1, ErrorCode.INVALID_RECORD, message="there is no whole record batch to append")


def _refusal(version: int, request: ProduceRequest, server: PartitionsServer) -> Appended | None:
    """Why the whole request is refused, if it is."""
    if version < VERSIONS[0]:
        return Appended(-1, ErrorCode.UNSUPPORTED_VERSION)
    if request.acks not in (ALL, 0, 1):
        return Appended(-1, ErrorCode.INVALID_REQUIRED_ACKS)
    if request.transactional_id is not None:
        return Appended(-1, ErrorCode.INVALID_REQUEST, message="transactions are not served by this cluster")
    if request.acks != ALL and not server.holds_lease():
        return Appended(-1, ErrorCode.NOT_LEADER_OR_FOLLOWER, message=NO_LEASE)
    return None


def _topic_refusal(context: RequestContext, topic: str) -> Appended | None:
    if not context.allows(acl.WRITE_TOPIC, topic):
        return Appended(-1, ErrorCode.TOPIC_AUTHORIZATION_FAILED)
    if topic in INTERNAL_TOPICS and context.client_id != _ADMIN_CLIENT_ID:
        return Appended(-1, ErrorCode.INVALID_TOPIC_EXCEPTION, message=f"{topic} is written by the brokers only")
    return None


def _records_refusal(version: int, records: memoryview | None) -> Appended | None:
    """What can be said of the records here; their replica checks the rest."""
    if records is None or len(records) < HEADER_BYTES:
        return _NO_RECORDS
    (length,) = LENGTH.unpack_from(records, LENGTH_POSITION)
    if length + PREFIX_BYTES < len(records):
        return Appended(-1, ErrorCode.INVALID_RECORD, message="a partition gets more than one record batch at once")
    flags = records[FLAGS_POSITION]
    if flags & CODEC_MASK == ZSTD and version < 7:
        return Appended(-1, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, message="zstd needs Produce version 7 or later")
    if flags & TRANSACTIONAL_BIT:
        return Appended(-1, ErrorCode.INVALID_RECORD, message="transactions are not served by this cluster")
    return None


class _Asked(NamedTuple):
    """A partition of a request: how many bytes of records came for it, and how many records they said they were."""

    partition: int
    size: int
    records: int


class _Pending(Answer):
    """A request whose partitions are being answered. It keeps nothing of the request's own memory, which is free when
    the records are written."""

    __slots__ = ("_acks", "_context", "_missing", "_results", "_server", "_topics")

    def __init__(self, context: RequestContext, acks: int, server: PartitionsServer) -> None:
        super().__init__()
        self._context = context
        self._acks = acks
        self._server = server
        self._topics: list[tuple[str, bytes, list[_Asked]]] = []
        self._results: list[Appended | None] = []
        self._missing = 1

    def begin_topic(self, name: str, encoded_name: memoryview) -> None:
        """The partitions that come next are of this topic."""
        self._topics.append((name, bytes(encoded_name), []))

    def expect(self, index: int, records: memoryview | None) -> partial[None]:
        """One more partition to wait for: what is returned takes its outcome, once."""
        asked = _Asked(index, 0, 0) if records is None else _Asked(index, len(records), record_count(records))
        self._topics[-1][2].append(asked)
        self._missing += 1
        self._results.append(None)
        return partial(self._take, len(self._results) - 1)

    def _take(self, number: int, appended: Appended) -> None:
        self._results[number] = appended
        self._missing -= 1
        if not self._missing:
            self._finish()

    def all_expected(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._finish()

    def _finish(self) -> None:
        results: list[Appended] = self._results  # type: ignore[assignment]
        throttle_ms = self._context.charge("produce", self._count(results))
        if self._acks != 0:
            self.give([self._response(results, throttle_ms)])
            return
        failed = next((result for result in results if result.error), None)
        if failed is None:
            self.give([])
        else:
            self.fail(UnanswerableRequestError(f"Produce with acks=0 failed: {failed.error.name} {failed.message}"))

    def _count(self, results: list[Appended]) -> int:
        """Tell metrics what was appended. Returns the bytes of all records that came."""
        traffic, number, size = self._server.partitions.traffic, 0, 0
        for name, _, partitions in self._topics:
            for asked in partitions:
                if results[number].error is ErrorCode.NONE:
                    traffic[name].appended(asked.size, asked.records)
                size += asked.size
                number += 1
        return size

    def _response(self, results: list[Appended], throttle_ms: int) -> bytearray:
        context, topics = self._context, self._topics
        version = context.api_version
        flexible = version >= FLEXIBLE_FROM
        hints = LeaderHints(self._server.image, context.listener)
        success = _V9_SUCCESS if flexible else _V8_SUCCESS if version >= 8 else b""
        out = bytearray(length_prefix(len(topics), flexible=flexible))
        number = 0
        for name, encoded_name, partitions in topics:
            out += encoded_name
            out += length_prefix(len(partitions), flexible=flexible)
            for index, _, _ in partitions:
                result = results[number]
                number += 1
                if version >= 5:
                    out += _V5.pack(
                        index, result.error, result.base_offset, result.log_append_time_ms, result.log_start_offset
                    )
                    if result.error is not ErrorCode.NONE and version >= 8:
                        out += _error_fields(version, name, index, result, hints)
                    else:
                        out += success
                elif version >= 2:
                    out += _V2.pack(index, result.error, result.base_offset, result.log_append_time_ms)
                else:
                    out += _V0.pack(index, result.error, result.base_offset)
            if flexible:
                out.append(0)
        if version >= 1:
            out += _I32.pack(throttle_ms)
        if flexible:
            out += tagged(0, hints.endpoints() if version >= _HINTS_FROM else None)
        return out


def _error_fields(version: int, topic: str, index: int, result: Appended, hints: LeaderHints) -> bytes:
    """From version 8: no errors of single records, an error message, and the leader if it is elsewhere."""
    flexible = version >= FLEXIBLE_FROM
    fields = length_prefix(0, flexible=flexible) + nullable_string(result.message or None, flexible=flexible)
    if not flexible:
        return fields
    moved = version >= _HINTS_FROM and result.error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    return fields + tagged(0, hints.leader(topic, index) if moved else None)
