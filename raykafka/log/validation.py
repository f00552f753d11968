"""The checks of batches before they are written: a leader's of what clients send, a follower's of what its leader
sent."""

from __future__ import annotations

import struct
from typing import NamedTuple

from crc32c import crc32c

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log.batch import BatchHeader, put_max_timestamp, read_header, recompress, stamp_log_append_time
from raykafka.log.batch_layout import (
    CODEC_MASK,
    CONTROL_BIT,
    CRC_START,
    FLAGS_POSITION,
    HEADER_BYTES,
    LOG_APPEND_TIME_BIT,
    MAGIC,
    MAGIC_POSITION,
    NO_PRODUCER_ID,
    NO_TIMESTAMP,
    PREFIX_BYTES,
    RECORD_COUNT,
    RECORD_COUNT_POSITION,
)
from raykafka.log.compression import MOST_BYTES, ZSTD, Buffer, TooManyBytes, UnreadableRecords, decompress
from raykafka.log.config import LogConfig
from raykafka.log.records import Walked, walk

# What is checked on the event loop at most, at some milliseconds for it: compressed bytes, and records.
_MOST_COMPRESSED_BYTES = 32 * 1024
_MANY_RECORDS = 10_000
_MOST_NAMED = 20
QUICK_BYTES = 1024 * 1024  # what may be decompressed there


class Checked(NamedTuple):
    """Batches as the log takes them, with their headers; ``append_time_ms`` is the LogAppendTime that they were given,
    or -1."""

    records: memoryview
    headers: list[BatchHeader]
    append_time_ms: int


def is_slow_to_check(records: memoryview) -> bool:
    """Whether ``check_batches`` takes so long that it should not hold up others."""
    if len(records) < HEADER_BYTES:
        return False
    if records[FLAGS_POSITION] & CODEC_MASK and len(records) > _MOST_COMPRESSED_BYTES:
        return True
    return len(records) > _MANY_RECORDS and RECORD_COUNT.unpack_from(records, RECORD_COUNT_POSITION)[0] > _MANY_RECORDS


def check_batches(
    records: memoryview, config: LogConfig, now_ms: int, *, from_client: bool, most_bytes: int = MOST_BYTES
) -> Checked:
    """The batches in ``records`` as the log takes them.

    Every record of a client's is looked at. Batches are changed in place for LogAppendTime, and where the header does
    not say the largest timestamp; another buffer comes back where the topic's compression is not the producer's. Raises
    KafkaError, and TooManyBytes for a batch that has more than ``most_bytes``, decompressed, and fewer than MOST_BYTES,
    as far as is known.
    """
    headers: list[BatchHeader] = []
    position, end = 0, len(records)
    log_append_time, compression_codec = config.log_append_time, config.compression_codec
    plain: list[Buffer] = []
    while position < end:
        header = _check_header(records, position, end - position, config, from_client)
        size = header.length + PREFIX_BYTES
        if from_client:
            plain_records, walked = _walked(
                records[position + HEADER_BYTES : position + size], header, config, most_bytes
            )
            if compression_codec is not None:
                plain.append(plain_records)
            if not log_append_time:
                _check_timestamps(header, walked, config, now_ms)
                if walked.max_timestamp != header.max_timestamp:
                    put_max_timestamp(records, position, size, walked.max_timestamp)
                    header = read_header(records, position)
        elif compression_codec is not None:
            plain.append(b"")
        if log_append_time and compression_codec is None:
            stamp_log_append_time(records, position, size, now_ms)
            header = read_header(records, position)
        headers.append(header)
        position += size
    if not headers:
        raise KafkaError(ErrorCode.INVALID_RECORD, "there is no record batch to append")
    if compression_codec is not None:
        if from_client and any(header.codec != compression_codec for header in headers):
            records, headers = _recompress_all(records, headers, plain, config)
        if log_append_time:
            position = 0
            for number, header in enumerate(headers):
                stamp_log_append_time(records, position, header.size, now_ms)
                headers[number] = read_header(records, position)
                position += header.size
    return Checked(records, headers, now_ms if log_append_time else -1)


def _walked(records: memoryview, header: BatchHeader, config: LogConfig, most_bytes: int) -> tuple[Buffer, Walked]:
    """The records of a batch, decompressed, and what was found in them. Raises KafkaError."""
    compact = config.compact
    try:
        plain = decompress(header.codec, records, most_bytes) if header.codec else bytes(records)
        assert not isinstance(plain, memoryview)
        walked = walk(plain, header.record_count, header.base_timestamp, keys=compact)
    except UnreadableRecords as error:
        if isinstance(error, TooManyBytes) and most_bytes < MOST_BYTES:
            raise
        raise KafkaError(ErrorCode.INVALID_RECORD, str(error)) from error
    if compact and walked.keyless:
        numbers = ", ".join(map(str, walked.keyless[:_MOST_NAMED])) + (
            ", ..." if len(walked.keyless) > _MOST_NAMED else ""
        )
        raise KafkaError(
            ErrorCode.INVALID_RECORD, f"a compacted topic takes no record without a key: {numbers} of the batch"
        )
    return plain, walked


def check_stored_batches(records: memoryview, log_end_offset: int, *, gaps_allowed: bool) -> list[BatchHeader]:
    """The headers of batches that their leader has stored, if they are sound and go on from ``log_end_offset``.

    Raises CORRUPT_MESSAGE, or OFFSET_OUT_OF_RANGE.
    """
    headers: list[BatchHeader] = []
    expected, position, end = log_end_offset, 0, len(records)
    while position + HEADER_BYTES <= end:
        header = read_header(records, position)
        base_offset, next_position = header.base_offset, position + header.length + PREFIX_BYTES
        if next_position < position + HEADER_BYTES or next_position > end:
            break
        if (
            header.magic != MAGIC
            or header.last_offset_delta < 0
            or crc32c(records[position + CRC_START : next_position]) != header.crc
        ):
            raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"the batch at offset {base_offset} is not sound")
        if base_offset != expected and not (gaps_allowed and base_offset > expected):
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE, f"a batch starts at {base_offset} where {expected} comes next"
            )
        headers.append(header)
        expected = base_offset + header.last_offset_delta + 1
        position = next_position
    if position != end or not headers:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"{end - position} bytes are no whole batch")
    return headers


def _check_header(
    records: memoryview, position: int, available: int, config: LogConfig, from_client: bool
) -> BatchHeader:
    if available > MAGIC_POSITION and records[position + MAGIC_POSITION] != MAGIC:
        magic = records[position + MAGIC_POSITION]
        if magic in (0, 1):
            raise KafkaError(
                ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
                f"message format {magic} is not taken; send record batches (format 2, Kafka 0.11 and later)",
            )
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"a batch has the unknown magic {magic}")
    try:
        header = read_header(records, position)
    except struct.error:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"{available} bytes are less than the header of a batch") from None
    size = header.length + PREFIX_BYTES
    if size < HEADER_BYTES or size > available:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"a batch says it has {size} bytes where there are {available}")
    if size > config.max_message_bytes:
        raise KafkaError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"the batch of {size} bytes is over the topic's max.message.bytes of {config.max_message_bytes}",
        )
    computed = crc32c(records[position + CRC_START : position + size])
    if computed != header.crc:
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE, f"the CRC of a batch is {computed:#010x} where it says {header.crc:#010x}"
        )
    record_count, attributes = header.record_count, header.attributes
    codec = attributes & CODEC_MASK
    if record_count <= 0 or header.last_offset_delta != record_count - 1:
        raise KafkaError(
            ErrorCode.INVALID_RECORD,
            f"a batch of {size} bytes names {record_count} records and a last offset delta of "
            f"{header.last_offset_delta}",
        )
    if codec > ZSTD:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"there is no compression codec {codec}")
    if header.producer_id != NO_PRODUCER_ID and header.base_sequence < 0 and not header.is_control:
        raise KafkaError(
            ErrorCode.INVALID_RECORD, f"a batch of producer {header.producer_id} has sequence {header.base_sequence}"
        )
    if from_client:
        if header.base_offset != 0:
            raise KafkaError(ErrorCode.INVALID_RECORD, f"a batch to append has base offset {header.base_offset}, not 0")
        if attributes & CONTROL_BIT:
            raise KafkaError(ErrorCode.INVALID_RECORD, "clients are not allowed to write control records")
    return header


def _check_timestamps(header: BatchHeader, walked: Walked, config: LogConfig, now_ms: int) -> None:
    if header.attributes & LOG_APPEND_TIME_BIT:
        raise KafkaError(
            ErrorCode.INVALID_TIMESTAMP, "a producer must not send LogAppendTime; the topic's type is CreateTime"
        )
    if walked.max_timestamp == NO_TIMESTAMP:
        return
    if walked.max_timestamp - now_ms > config.message_timestamp_after_max_ms:
        raise KafkaError(
            ErrorCode.INVALID_TIMESTAMP,
            f"the timestamp {walked.max_timestamp} is more than message.timestamp.after.max.ms "
            f"({config.message_timestamp_after_max_ms}) ahead of the broker's clock ({now_ms})",
        )
    if now_ms - walked.min_timestamp > config.message_timestamp_before_max_ms:
        raise KafkaError(
            ErrorCode.INVALID_TIMESTAMP,
            f"the timestamp {walked.min_timestamp} is more than message.timestamp.before.max.ms "
            f"({config.message_timestamp_before_max_ms}) behind the broker's clock ({now_ms})",
        )


def _recompress_all(
    records: memoryview, headers: list[BatchHeader], plain: list[Buffer], config: LogConfig
) -> tuple[memoryview, list[BatchHeader]]:
    codec = config.compression_codec
    assert codec is not None
    out, position, changed = bytearray(), 0, []
    for header, plain_records in zip(headers, plain, strict=True):
        batch = records[position : position + header.size]
        position += header.size
        if header.codec != codec:
            batch = memoryview(recompress(plain_records, header, codec, config.compression_level))
        if len(batch) > config.max_message_bytes:
            raise KafkaError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"the batch has {len(batch)} bytes under the topic's compression.type, over its max.message.bytes "
                f"of {config.max_message_bytes}",
            )
        changed.append(read_header(batch))
        out += batch
    return memoryview(out), changed
