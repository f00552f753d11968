"""Record batches (magic 2), the unit that a log stores: their header, the records inside, and how to make one.

``log/batch_layout.py`` says where each field stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from crc32c import crc32c

from raykafka.log.batch_layout import (
    ATTRIBUTES,
    ATTRIBUTES_POSITION,
    CODEC_MASK,
    CONTROL_BIT,
    CRC,
    CRC_POSITION,
    CRC_START,
    HEADER,
    HEADER_BYTES,
    LOG_APPEND_TIME_BIT,
    MAGIC,
    MAX_INT32,
    MAX_TIMESTAMP,
    MAX_TIMESTAMP_POSITION,
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    NO_SEQUENCE,
    NO_TIMESTAMP,
    PREFIX_BYTES,
    RECORD_COUNT,
    RECORD_COUNT_POSITION,
    TRANSACTIONAL_BIT,
)
from raykafka.log.compression import NONE, Buffer, UnreadableRecords, compress, decompress
from raykafka.log.records import LONG_BYTES, varint


class BatchHeader(NamedTuple):
    """The fields of ``batch_layout.FIELDS``, in their order."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.length + PREFIX_BYTES

    @property
    def last_offset(self) -> int:
        """The offset of the last record."""
        return self.base_offset + self.last_offset_delta

    @property
    def last_sequence(self) -> int:
        """The sequence number of the last record."""
        return advance_sequence(self.base_sequence, self.last_offset_delta)

    @property
    def codec(self) -> int:
        """The compression codec of the records (``compression.CODEC_NAMES``)."""
        return self.attributes & CODEC_MASK

    @property
    def is_control(self) -> bool:
        """Whether the batch holds a marker of a transaction, which no client reads."""
        return bool(self.attributes & CONTROL_BIT)

    @property
    def is_transactional(self) -> bool:
        """Whether the batch belongs to a transaction."""
        return bool(self.attributes & TRANSACTIONAL_BIT)

    @property
    def uses_log_append_time(self) -> bool:
        """Whether ``max_timestamp`` is when the leader appended, and holds for every record."""
        return bool(self.attributes & LOG_APPEND_TIME_BIT)


class Header(NamedTuple):
    """A record header."""

    key: str
    value: bytes | None


class Record(NamedTuple):
    """One record. ``timestamp`` is in ms since the epoch; ``offset`` is ignored by ``build_batch``."""

    key: bytes | None
    value: bytes | None
    timestamp: int = NO_TIMESTAMP
    headers: Sequence[tuple[str, bytes | None]] = ()
    offset: int = -1


def advance_sequence(sequence: int, by: int) -> int:
    """Producer sequences wrap from 2^31 - 1 to 0."""
    return sequence + by if sequence <= MAX_INT32 - by else by - (MAX_INT32 - sequence) - 1


_new_tuple = tuple.__new__  # what BatchHeader._make does, without its Python call: headers are read by the million


def read_header(buffer: Buffer, position: int = 0) -> BatchHeader:
    """The header of the batch at ``position``. Raises struct.error when less than a header is there."""
    return _new_tuple(BatchHeader, HEADER.unpack_from(buffer, position))


def record_count(batch: Buffer) -> int:
    """How many records a batch says that it has; 0 of less than its header."""
    return int(RECORD_COUNT.unpack_from(batch, RECORD_COUNT_POSITION)[0]) if len(batch) >= HEADER_BYTES else 0


def iter_batches(buffer: Buffer) -> Iterator[tuple[int, BatchHeader]]:
    """(position, header) of each whole batch in ``buffer``; a part of one at the end is left out."""
    position, end = 0, len(buffer)
    while position + HEADER_BYTES <= end:
        header = read_header(buffer, position)
        if header.length < HEADER_BYTES - PREFIX_BYTES or position + header.size > end:
            return
        yield position, header
        position += header.size


def crc_of(buffer: memoryview, position: int, size: int) -> int:
    """What the CRC field of the batch of ``size`` bytes at ``position`` must hold."""
    return crc32c(buffer[position + CRC_START : position + size])


def stamp_log_append_time(buffer: memoryview, position: int, size: int, now_ms: int) -> None:
    """Make the batch at ``position`` one of LogAppendTime ``now_ms``, with the CRC that this needs."""
    (attributes,) = ATTRIBUTES.unpack_from(buffer, position + ATTRIBUTES_POSITION)
    ATTRIBUTES.pack_into(buffer, position + ATTRIBUTES_POSITION, attributes | LOG_APPEND_TIME_BIT)
    put_max_timestamp(buffer, position, size, now_ms)


def put_max_timestamp(buffer: memoryview, position: int, size: int, timestamp: int) -> None:
    """Have the header of the batch at ``position`` say that this is the largest timestamp of its records."""
    MAX_TIMESTAMP.pack_into(buffer, position + MAX_TIMESTAMP_POSITION, timestamp)
    CRC.pack_into(buffer, position + CRC_POSITION, crc_of(buffer, position, size))


def recompress(records: Buffer, header: BatchHeader, codec: int, level: int | None) -> bytearray:
    """The batch of ``header`` with ``records``, which are not compressed, under another codec."""
    records = compress(codec, records, level)
    attributes = (header.attributes & ~CODEC_MASK) | codec
    return _assemble(header._replace(attributes=attributes), records)


def _assemble(header: BatchHeader, records: Buffer) -> bytearray:
    length = HEADER_BYTES - PREFIX_BYTES + len(records)
    batch = bytearray(HEADER.pack(*header._replace(length=length)))
    batch += records
    CRC.pack_into(batch, CRC_POSITION, crc32c(memoryview(batch)[CRC_START:]))
    return batch


def _append_varint(out: bytearray, value: int) -> None:
    zigzag = (value << 1) ^ (value >> 63)
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)


def _append_bytes(out: bytearray, value: bytes | None) -> None:
    if value is None:
        out.append(1)  # the varint -1
    else:
        _append_varint(out, len(value))
        out += value


def build_batch(
    records: Iterable[Record],
    *,
    base_offset: int = 0,
    leader_epoch: int = -1,
    codec: int = NONE,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = NO_PRODUCER_EPOCH,
    base_sequence: int = NO_SEQUENCE,
    transactional: bool = False,
    control: bool = False,
) -> bytearray:
    """One batch of ``records`` (at least one), offsets counted up from ``base_offset``."""
    items = list(records)
    if not items:
        raise ValueError("a batch has at least one record")
    base_timestamp = items[0].timestamp
    body = bytearray()
    for delta, record in enumerate(items):
        out = bytearray(b"\x00")
        _append_varint(out, record.timestamp - base_timestamp)
        _append_varint(out, delta)
        _append_bytes(out, record.key)
        _append_bytes(out, record.value)
        _append_varint(out, len(record.headers))
        for key, value in record.headers:
            _append_bytes(out, key.encode())
            _append_bytes(out, value)
        _append_varint(body, len(out))
        body += out
    attributes = codec | (TRANSACTIONAL_BIT if transactional else 0) | (CONTROL_BIT if control else 0)
    header = BatchHeader(
        base_offset,
        0,
        leader_epoch,
        MAGIC,
        0,
        attributes,
        len(items) - 1,
        base_timestamp,
        max(record.timestamp for record in items),
        producer_id,
        producer_epoch,
        base_sequence,
        len(items),
    )
    return _assemble(header, compress(codec, body))


def _nullable(data: bytes, position: int, end: int) -> tuple[bytes | None, int]:
    size, position = varint(data, position, LONG_BYTES)
    if size < 0:
        return None, position
    if position + size > end:
        raise UnreadableRecords("a field reaches past the end of its record")
    return data[position : position + size], position + size


def iter_records(batch: Buffer) -> Iterator[Record]:
    """The records of the one batch that ``batch`` starts with, decompressed. Raises UnreadableRecords."""
    view = memoryview(batch)
    header = read_header(view)
    data = bytes(decompress(header.codec, view[HEADER_BYTES : header.size]))
    position, append_time = 0, header.max_timestamp if header.uses_log_append_time else None
    try:
        for _ in range(header.record_count):
            size, position = varint(data, position, LONG_BYTES)
            end = position + size
            if size < 0 or end > len(data):
                raise UnreadableRecords("a record reaches past the end of its batch")
            timestamp_delta, position = varint(data, position + 1, LONG_BYTES)
            offset_delta, position = varint(data, position, LONG_BYTES)
            key, position = _nullable(data, position, end)
            value, position = _nullable(data, position, end)
            header_count, position = varint(data, position, LONG_BYTES)
            headers = []
            for _ in range(header_count):
                name, position = _nullable(data, position, end)
                content, position = _nullable(data, position, end)
                headers.append(Header((name or b"").decode(errors="replace"), content))
            timestamp = header.base_timestamp + timestamp_delta if append_time is None else append_time
            yield Record(key, value, timestamp, headers, header.base_offset + offset_delta)
            position = end
    except IndexError:
        raise UnreadableRecords("the records end in the middle of one") from None
