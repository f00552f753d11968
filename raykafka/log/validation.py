"""The checks of batches before they are written: a leader's of what clients send, a follower's of what its leader
sent."""

from __future__ import annotations

import struct

from crc32c import crc32c

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log.batch import (
    BatchHeader,
    iter_records,
    read_header,
    recompress,
    stamp_log_append_time,
)
from raykafka.log.batch_layout import (
    CODEC_MASK,
    CONTROL_BIT,
    CRC_START,
    HEADER_BYTES,
    LOG_APPEND_TIME_BIT,
    MAGIC,
    MAGIC_POSITION,
    NO_PRODUCER_ID,
    NO_TIMESTAMP,
    PREFIX_BYTES,
)
from raykafka.log.compression import ZSTD, UnreadableRecords
from raykafka.log.config import LogConfig

_MAX_INT64 = 2**63 - 1
_MIN_RECORD_BYTES = 7


def check_batches(
    records: memoryview, config: LogConfig, now_ms: int, *, from_client: bool
) -> tuple[memoryview, list[BatchHeader]]:
    """The batches in ``records`` as the log takes them, with their headers.

    They are changed in place for LogAppendTime; another buffer comes back where the topic's compression is not the
    producer's. Raises KafkaError.
    """
    headers: list[BatchHeader] = []
    position, end = 0, len(records)
    log_append_time, compression_codec = config.log_append_time, config.compression_codec
    check_keys = from_client and config.compact
    while position < end:
        header = _check_header(records, position, end - position, config, from_client)
        size = header.length + PREFIX_BYTES
        if check_keys:
            _check_keys(records[position : position + size])
        if log_append_time:
            if compression_codec is None:
                stamp_log_append_time(records, position, size, now_ms)
                header = read_header(records, position)
        elif header.max_timestamp != NO_TIMESTAMP:
            _check_timestamps(records, position, header, config, now_ms)
        headers.append(header)
        position += size
    if not headers:
        raise KafkaError(ErrorCode.INVALID_RECORD, "there is no record batch to append")
    if compression_codec is not None:
        if any(header.codec != compression_codec and not header.is_control for header in headers):
            records, headers = _recompress_all(records, headers, config)
        if log_append_time:
            position = 0
            for number, header in enumerate(headers):
                stamp_log_append_time(records, position, header.size, now_ms)
                headers[number] = read_header(records, position)
                position += header.size
    return records, headers


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
    if (
        record_count <= 0
        or header.last_offset_delta != record_count - 1
        or (not codec and record_count * _MIN_RECORD_BYTES > size - HEADER_BYTES)
    ):
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


def _check_keys(batch: memoryview) -> None:
    try:
        keyless = any(record.key is None for record in iter_records(batch))
    except UnreadableRecords as error:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, str(error)) from error
    if keyless:
        raise KafkaError(ErrorCode.INVALID_RECORD, "a compacted topic takes no record without a key")


def _check_timestamps(records: memoryview, position: int, header: BatchHeader, config: LogConfig, now_ms: int) -> None:
    if header.attributes & LOG_APPEND_TIME_BIT:
        raise KafkaError(
            ErrorCode.INVALID_TIMESTAMP, "a producer must not send LogAppendTime; the topic's type is CreateTime"
        )
    latest = header.max_timestamp
    if latest - now_ms > config.message_timestamp_after_max_ms:
        raise KafkaError(
            ErrorCode.INVALID_TIMESTAMP,
            f"the timestamp {latest} is more than message.timestamp.after.max.ms "
            f"({config.message_timestamp_after_max_ms}) ahead of the broker's clock ({now_ms})",
        )
    if config.message_timestamp_before_max_ms == _MAX_INT64:
        return
    earliest_allowed = now_ms - config.message_timestamp_before_max_ms
    try:
        # only the largest timestamp is in the header
        stamps = (record.timestamp for record in iter_records(records[position : position + header.size]))
        too_old = next((t for t in stamps if t != NO_TIMESTAMP and t < earliest_allowed), None)
    except UnreadableRecords as error:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, str(error)) from error
    if too_old is not None:
        raise KafkaError(
            ErrorCode.INVALID_TIMESTAMP,
            f"the timestamp {too_old} is more than message.timestamp.before.max.ms "
            f"({config.message_timestamp_before_max_ms}) behind the broker's clock ({now_ms})",
        )


def _recompress_all(
    records: memoryview, headers: list[BatchHeader], config: LogConfig
) -> tuple[memoryview, list[BatchHeader]]:
    codec = config.compression_codec
    assert codec is not None
    out, position, changed = bytearray(), 0, []
    for header in headers:
        batch = records[position : position + header.size]
        position += header.size
        try:
            again = (
                batch
                if header.codec == codec or header.is_control
                else memoryview(recompress(batch, header, codec, config.compression_level))
            )
        except UnreadableRecords as error:
            raise KafkaError(ErrorCode.CORRUPT_MESSAGE, str(error)) from error
        if len(again) > config.max_message_bytes:
            raise KafkaError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"the batch has {len(again)} bytes under the topic's compression.type, over its max.message.bytes "
                f"of {config.max_message_bytes}",
            )
        changed.append(read_header(again))
        out += again
    return memoryview(out), changed
