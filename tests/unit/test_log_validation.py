"""What is not believed of a client's batch: each of its records is looked at before it is stored."""

from __future__ import annotations

import struct
import tracemalloc

import cramjam
import pytest
from crc32c import crc32c

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log import Log
from raykafka.log.batch import Record, build_batch, crc_of, read_header
from raykafka.log.batch_layout import CRC, CRC_POSITION, HEADER_BYTES, LENGTH, LENGTH_POSITION, MAX_TIMESTAMP_POSITION
from raykafka.log.compression import (
    CODEC_OF_NAME,
    GZIP,
    LZ4,
    MOST_BYTES,
    NONE,
    SNAPPY,
    ZSTD,
    UnreadableRecords,
    compress,
    decompress,
)
from raykafka.log.validation import is_slow_to_check
from tests.lab.log_parts import NOW_MS, idempotent, open_log, read_all, reader_of, stored_bytes, stored_headers

CODECS = list(CODEC_OF_NAME.values())[:-1]
COMPRESSED = [GZIP, SNAPPY, LZ4, ZSTD]
TIMES = [NOW_MS - 50, NOW_MS + 7, NOW_MS - 9]


@pytest.fixture
def log(tmp_path):
    with_defaults = open_log(tmp_path / "t-0")
    yield with_defaults
    with_defaults.close()


def whole(batch: bytearray) -> memoryview:
    """With the length and the CRC that its bytes have."""
    LENGTH.pack_into(batch, LENGTH_POSITION, len(batch) - 12)
    CRC.pack_into(batch, CRC_POSITION, crc32c(bytes(batch[21:])))
    return memoryview(batch)


def with_records(batch: bytearray, records: bytes) -> memoryview:
    """The batch with other bytes where its records stand, compressed or not."""
    return whole(batch[:HEADER_BYTES] + records)


def of_times(codec: int, times: list[int] = TIMES) -> bytearray:
    return build_batch([Record(b"k", b"v" * 30, time) for time in times], codec=codec)


def refused(log: Log, batch: memoryview) -> KafkaError:
    end, stored = log.log_end_offset, stored_bytes(log)
    with pytest.raises(KafkaError) as refusal:
        log.append_as_leader(batch, 0, NOW_MS)
    assert (log.log_end_offset, stored_bytes(log)) == (end, stored), "a refused batch must leave no trace"
    return refusal.value


# the largest timestamp


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("said", [-1, TIMES[0], 0, 2**63 - 1, TIMES[1]])
def test_the_largest_timestamp_is_the_records_whatever_the_header_says(log, codec, said):
    claiming = of_times(codec)
    struct.pack_into(">q", claiming, MAX_TIMESTAMP_POSITION, said)
    info = log.append_as_leader(whole(claiming), 0, NOW_MS)
    assert info.max_timestamp == max(TIMES)
    (header,) = stored_headers(log)
    stored = memoryview(stored_bytes(log))
    assert header.max_timestamp == max(TIMES)
    assert header.crc == crc_of(stored, 0, len(stored))
    assert [record.timestamp for record in read_all(log)] == TIMES


def test_a_batch_whose_records_have_no_timestamp_has_none(log):
    claiming = of_times(NONE, [-1, -1])
    struct.pack_into(">q", claiming, MAX_TIMESTAMP_POSITION, NOW_MS)
    assert log.append_as_leader(whole(claiming), 0, NOW_MS).max_timestamp == -1


def test_a_record_is_found_by_its_time_though_the_header_named_an_earlier_one(log):
    claiming = of_times(ZSTD)
    struct.pack_into(">q", claiming, MAX_TIMESTAMP_POSITION, TIMES[0])
    log.append_as_leader(whole(claiming), 0, NOW_MS)
    found = reader_of(log).offset_for_timestamp(NOW_MS, log.position_of(log.log_end_offset), 0)
    assert found is not None and (found.offset, found.timestamp) == (1, TIMES[1])


@pytest.mark.parametrize("codec", CODECS)
def test_a_timestamp_too_far_ahead_is_refused_whatever_the_header_says(tmp_path, codec):
    log = open_log(tmp_path / "t-0", {"message.timestamp.after.max.ms": "6"})
    claiming = of_times(codec)
    struct.pack_into(">q", claiming, MAX_TIMESTAMP_POSITION, -1)
    assert refused(log, whole(claiming)).code is ErrorCode.INVALID_TIMESTAMP
    log.close()


def test_a_producers_state_is_as_old_as_its_records(log):
    claiming = bytearray(idempotent(0))
    struct.pack_into(">q", claiming, MAX_TIMESTAMP_POSITION, -1)
    log.append_as_leader(whole(claiming), 0, NOW_MS)
    log.producers.expire(NOW_MS + 1000, 86_400_000)
    with pytest.raises(KafkaError) as refusal:
        log.append_as_leader(idempotent(5), 0, NOW_MS)
    assert refusal.value.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


# the records


@pytest.mark.parametrize("codec", COMPRESSED)
def test_records_that_do_not_decompress_are_refused(log, codec):
    sound = of_times(codec)
    for records in (b"", b"garbage", sound[HEADER_BYTES:-3], sound[HEADER_BYTES : HEADER_BYTES + 9]):
        assert refused(log, with_records(sound, bytes(records))).code is ErrorCode.INVALID_RECORD


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("count", [1, 2, 4, 1000, 2**31 - 1])
def test_a_header_that_names_other_than_the_records_there_are_is_refused(log, codec, count):
    lying = of_times(codec)
    struct.pack_into(">i", lying, 23, count - 1)
    struct.pack_into(">i", lying, 57, count)
    assert refused(log, whole(lying)).code is ErrorCode.INVALID_RECORD


@pytest.mark.parametrize("codec", CODECS)
def test_records_that_are_none_are_refused(log, codec):
    sound = bytes(decompress(codec, of_times(codec)[HEADER_BYTES:]))
    records = {
        "garbage": b"\xff" * len(sound),
        "zeros": bytes(len(sound)),
        "cut": sound[:-1],
        "behind": sound + b"\x00",
        "a record longer than the batch": bytes([sound[0] + 2]) + sound[1:],
        "offsets that do not count on": sound[:3] + b"\x02" + sound[4:],
        "a key longer than its record": sound[:4] + b"\x7e" + sound[5:],
    }
    for what, content in records.items():
        batch = with_records(of_times(codec), bytes(compress(codec, content)))
        assert refused(log, batch).code is ErrorCode.INVALID_RECORD, what


def test_keyless_records_are_named(tmp_path):
    log = open_log(tmp_path / "t-0", {"cleanup.policy": "compact"})
    records = [Record(None if number % 3 == 1 else b"k", b"v", NOW_MS) for number in range(9)]
    assert "1, 4, 7 " in refused(log, memoryview(build_batch(records))).message
    log.close()


# bounds


@pytest.mark.parametrize("codec", COMPRESSED)
def test_decompressing_is_bounded(codec):
    zeros = bytes(3_000_000)
    packed = bytes(compress(codec, zeros))
    assert bytes(decompress(codec, packed, len(zeros))) == zeros
    with pytest.raises(UnreadableRecords, match="more than 2999999 bytes"):
        decompress(codec, packed, len(zeros) - 1)


def test_raw_snappy_is_bounded_by_what_it_says():
    raw = bytes(cramjam.snappy.compress_raw(bytes(100_000)))
    assert decompress(SNAPPY, raw, 100_000) == bytes(100_000)
    with pytest.raises(UnreadableRecords, match="more than 99999 bytes"):
        decompress(SNAPPY, raw, 99_999)


def test_a_small_batch_of_many_zeros_is_refused_in_bounded_memory(log):
    packed = bytes(cramjam.zstd.compress(bytes(2 * MOST_BYTES)))
    assert len(packed) < 50_000
    tracemalloc.start()
    try:
        assert refused(log, with_records(of_times(ZSTD), packed)).code is ErrorCode.INVALID_RECORD
        assert tracemalloc.get_traced_memory()[1] < 1.5 * MOST_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("batch", "slow"),
    [
        (of_times(NONE), False),
        (of_times(ZSTD), False),
        (build_batch([Record(None, bytes(900_000))]), False),
        (build_batch([Record(None, None)] * 10_000), False),
        (build_batch([Record(None, None)] * 10_001), True),
        (build_batch([Record(None, b"%d" % number * 9) for number in range(9000)], codec=GZIP), True),
        (bytearray(b"short"), False),
    ],
)
def test_what_takes_long_to_check_is_known_from_the_header(batch, slow):
    assert is_slow_to_check(memoryview(batch)) is slow
    if len(batch) > HEADER_BYTES:
        assert read_header(batch).record_count > 0
