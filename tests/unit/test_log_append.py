"""A leader's append: what is refused, what is changed in place, and that the rest stays as the client sent it."""

from __future__ import annotations

import os
import struct

import pytest

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log import LogConfig
from raykafka.log.batch import Record, build_batch, crc_of, iter_records
from raykafka.log.batch_layout import CRC, CRC_POSITION, NO_TIMESTAMP
from raykafka.log.compression import CODEC_OF_NAME, GZIP, ZSTD
from raykafka.log.files import claim, read_topic_id
from raykafka.types import LogPosition
from tests.lab.log_parts import NOW_MS, TOPIC_ID, batch, open_log, read_all, reader_of, stored_bytes, stored_headers


@pytest.fixture
def log(tmp_path):
    with_defaults = open_log(tmp_path / "t-0")
    yield with_defaults
    with_defaults.close()


def refusal(log, records, **arguments):
    end, stored = log.log_end_offset, stored_bytes(log)
    with pytest.raises(KafkaError) as refused:
        log.append_as_leader(records, 0, NOW_MS, **arguments)
    assert (log.log_end_offset, stored_bytes(log)) == (end, stored), "a refused batch must leave no trace"
    return refused.value.code


def with_crc(records):
    CRC.pack_into(records, CRC_POSITION, crc_of(records, 0, len(records)))
    return records


def test_only_offset_and_epoch_change_in_the_stored_batch(log):
    log.append_as_leader(batch(4), 3, NOW_MS)
    sent = batch(5, codec=GZIP)
    before = bytes(sent)
    info = log.append_as_leader(sent, 3, NOW_MS)
    assert (info.base_offset, info.last_offset, info.log_append_time_ms) == (4, 8, -1)
    stored = stored_bytes(log)[-len(before) :]
    assert stored[12 + 4 :] == before[12 + 4 :]
    assert struct.unpack_from(">qii", stored) == (4, len(before) - 12, 3)


def test_several_batches_in_one_append_follow_each_other(log):
    both = memoryview(bytearray(bytes(batch(2)) + bytes(batch(3))))
    info = log.append_as_leader(both, 0, NOW_MS)
    assert (info.base_offset, info.last_offset) == (0, 4)
    assert [record.offset for record in read_all(log)] == [0, 1, 2, 3, 4]


def test_a_buffer_that_cannot_be_written_is_copied(log):
    sent = bytes(batch(2))
    log.append_as_leader(memoryview(bytes(batch(2))), 0, NOW_MS)
    info = log.append_as_leader(memoryview(sent), 0, NOW_MS)
    assert info.base_offset == 2
    assert struct.unpack_from(">q", sent) == (0,)


@pytest.mark.parametrize("byte", [17, 21, 25, 40, 61, -1])
def test_a_flipped_bit_is_corrupt(log, byte):
    damaged = batch(3)
    damaged[byte] ^= 1
    assert refusal(log, damaged) == ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize("cut", [1, 30, 60])
def test_half_a_batch_is_corrupt(log, cut):
    whole = batch(3)
    assert refusal(log, whole[:-cut]) == ErrorCode.CORRUPT_MESSAGE
    assert refusal(log, whole[:cut]) in (ErrorCode.CORRUPT_MESSAGE, ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT)


@pytest.mark.parametrize(
    ("magic", "code"),
    [
        (0, ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT),
        (1, ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT),
        (3, ErrorCode.CORRUPT_MESSAGE),
    ],
)
def test_other_message_formats_are_refused_by_name(log, magic, code):
    other = batch(1)
    other[16] = magic
    assert refusal(log, other) == code


def test_no_batch_at_all_is_invalid(log):
    assert refusal(log, memoryview(bytearray())) == ErrorCode.INVALID_RECORD


def test_a_batch_with_an_offset_is_invalid(log):
    assert refusal(log, batch(1, base_offset=5)) == ErrorCode.INVALID_RECORD


@pytest.mark.parametrize(("last_delta", "count"), [(1, 3), (2, 2), (-1, 0), (2**31 - 2, 2**31 - 1)])
def test_a_record_count_that_is_not_its_offsets_is_invalid(log, last_delta, count):
    lying = batch(3)
    struct.pack_into(">i", lying, 23, last_delta)
    struct.pack_into(">i", lying, 57, count)
    assert refusal(log, with_crc(lying)) == ErrorCode.INVALID_RECORD


def test_clients_write_no_control_batches(log):
    marker = memoryview(build_batch([Record(b"\0\0\0\1", b"\0" * 6, NOW_MS)], control=True, transactional=True))
    assert refusal(log, marker) == ErrorCode.INVALID_RECORD
    log.append_as_leader(marker, 0, NOW_MS, from_client=False)
    assert log.log_end_offset == 1


def test_max_message_bytes_is_the_whole_batch(tmp_path):
    size = len(batch(3))
    log = open_log(tmp_path / "t-0", {"max.message.bytes": str(size)})
    log.append_as_leader(batch(3), 0, NOW_MS)
    assert refusal(log, batch(3, value_bytes=21)) == ErrorCode.MESSAGE_TOO_LARGE
    log.config = LogConfig.from_topic_config({"max.message.bytes": str(size - 1)})
    assert refusal(log, batch(3)) == ErrorCode.MESSAGE_TOO_LARGE
    log.close()


def test_an_append_over_the_segment_size_is_refused(tmp_path):
    log = open_log(tmp_path / "t-0", {"segment.bytes": "1000"})
    assert refusal(log, batch(3, value_bytes=1000)) == ErrorCode.RECORD_LIST_TOO_LARGE
    log.close()


def test_keyless_records_do_not_enter_a_compacted_topic(tmp_path):
    log = open_log(tmp_path / "t-0", {"cleanup.policy": "compact,delete"})
    keyed, keyless = Record(b"k", b"v", NOW_MS), Record(None, b"v", NOW_MS)
    for codec in CODEC_OF_NAME.values():
        assert refusal(log, memoryview(build_batch([keyed, keyless], codec=codec))) == ErrorCode.INVALID_RECORD
        log.append_as_leader(memoryview(build_batch([keyed], codec=codec)), 0, NOW_MS)
    log.close()


def test_create_time_bounds(tmp_path):
    log = open_log(
        tmp_path / "t-0", {"message.timestamp.after.max.ms": "1000", "message.timestamp.before.max.ms": "5000"}
    )

    def at(*times):
        return memoryview(build_batch([Record(b"k", b"v", time) for time in times]))

    assert refusal(log, at(NOW_MS + 1001)) == ErrorCode.INVALID_TIMESTAMP
    assert refusal(log, at(NOW_MS, NOW_MS - 5001, NOW_MS)) == ErrorCode.INVALID_TIMESTAMP
    log.append_as_leader(at(NOW_MS + 1000), 0, NOW_MS)
    log.append_as_leader(at(NOW_MS, NOW_MS - 5000), 0, NOW_MS)
    log.append_as_leader(at(NO_TIMESTAMP), 0, NOW_MS)
    log.close()


def test_a_producer_must_not_claim_log_append_time(log):
    claiming = batch(1)
    claiming[22] |= 8
    assert refusal(log, with_crc(claiming)) == ErrorCode.INVALID_TIMESTAMP


@pytest.mark.parametrize("compression", ["producer", "zstd"])
def test_log_append_time_is_in_the_batch_and_in_every_record(tmp_path, compression):
    log = open_log(tmp_path / "t-0", {"message.timestamp.type": "LogAppendTime", "compression.type": compression})
    info = log.append_as_leader(batch(3, time_ms=5), 0, NOW_MS)
    assert (info.log_append_time_ms, info.max_timestamp) == (NOW_MS, NOW_MS)
    assert {record.timestamp for record in read_all(log)} == {NOW_MS}
    stored = memoryview(stored_bytes(log))
    assert stored_headers(log)[0].crc == crc_of(stored, 0, len(stored))
    log.close()


@pytest.mark.parametrize("target", ["uncompressed", "gzip", "snappy", "lz4", "zstd"])
def test_the_topics_compression_replaces_the_producers(tmp_path, target):
    log = open_log(tmp_path / "t-0", {"compression.type": target})
    for codec in range(5):
        log.append_as_leader(batch(10, codec=codec), 0, NOW_MS)
    assert {header.codec for header in stored_headers(log)} == {CODEC_OF_NAME[target]}
    stored = memoryview(stored_bytes(log))
    assert [record.value for record in read_all(log)] == [bytes([i]) * 20 for i in range(10)] * 5
    position = 0
    for header in stored_headers(log):
        assert header.crc == crc_of(stored, position, header.size)
        position += header.size
    log.close()


def test_max_message_bytes_counts_after_recompression(tmp_path):
    log = open_log(tmp_path / "t-0", {"compression.type": "uncompressed", "max.message.bytes": "5000"})
    assert refusal(log, batch(10, value_bytes=1000, codec=ZSTD)) == ErrorCode.MESSAGE_TOO_LARGE
    log.close()


def test_positions_are_those_of_a_full_scan(tmp_path):
    log = open_log(tmp_path / "t-0", {"segment.bytes": "6000", "index.interval.bytes": "300"})
    expected, end = {}, LogPosition(0, 0)
    for number in range(200):
        info = log.append_as_leader(batch(number % 7 + 1), 0, NOW_MS)
        segment = log.segments[-1]
        position = log.position_of(log.log_end_offset).position - info.size_bytes
        for offset in range(info.base_offset, info.last_offset + 1):
            expected[offset] = LogPosition(segment, position)
        end = LogPosition(segment, position + info.size_bytes)
    assert len(log.segments) > 3
    log._boundaries.clear()
    assert {offset: log.position_of(offset) for offset in expected} == expected
    assert log.position_of(log.log_end_offset) == end
    with pytest.raises(KafkaError):
        log.position_of(log.log_end_offset + 1)
    log.close()


def test_a_follower_stores_what_its_leader_stored(tmp_path):
    leader, follower = open_log(tmp_path / "l" / "t-0"), open_log(tmp_path / "f" / "t-0")
    for number in range(20):
        leader.append_as_leader(batch(number % 3 + 1), number // 5, NOW_MS)
    follower.append_as_follower(memoryview(stored_bytes(leader)), NOW_MS)
    assert stored_bytes(follower) == stored_bytes(leader)
    assert follower.epochs.history == leader.epochs.history
    assert follower.log_end_offset == leader.log_end_offset
    leader.close()
    follower.close()


def test_a_follower_takes_no_gap_no_overlap_and_no_damage(tmp_path):
    log = open_log(tmp_path / "t-0")
    log.append_as_follower(batch(3), NOW_MS)
    for base_offset in (2, 4):
        with pytest.raises(KafkaError) as refused:
            log.append_as_follower(batch(1, base_offset=base_offset), NOW_MS)
        assert refused.value.code == ErrorCode.OFFSET_OUT_OF_RANGE
    damaged = batch(2, base_offset=3)
    damaged[-1] ^= 1
    with pytest.raises(KafkaError) as refused:
        log.append_as_follower(damaged, NOW_MS)
    assert refused.value.code == ErrorCode.CORRUPT_MESSAGE
    assert log.log_end_offset == 3
    log.append_as_follower(batch(1, base_offset=9), NOW_MS, gaps_allowed=True)
    assert [record.offset for record in read_all(log)] == [0, 1, 2, 9]
    log.close()


def test_segments_roll_by_size_and_by_time(tmp_path):
    log = open_log(tmp_path / "t-0", {"segment.bytes": "1000", "segment.ms": "60000"})
    version = log.segments_version
    log.append_as_leader(batch(1), 0, NOW_MS)
    log.append_as_leader(batch(1, time_ms=NOW_MS + 60000), 0, NOW_MS)
    assert log.segments == (0,)
    log.append_as_leader(batch(1, time_ms=NOW_MS + 60001), 0, NOW_MS + 60001)
    assert log.segments == (0, 2)
    log.append_as_leader(batch(1, value_bytes=850, time_ms=NOW_MS + 60001), 0, NOW_MS)
    assert log.segments == (0, 2, 3)
    assert log.segments_version > version
    log.close()


def test_records_without_a_time_roll_by_the_first_append(tmp_path):
    log = open_log(tmp_path / "t-0", {"segment.ms": "60000"})
    timeless = [Record(b"k", b"v")]
    log.append_as_leader(memoryview(build_batch(timeless)), 0, NOW_MS + 10**9)
    log.append_as_leader(memoryview(build_batch(timeless)), 0, NOW_MS + 10**9 + 60000)
    assert log.segments == (0,)
    log.append_as_leader(memoryview(build_batch(timeless)), 0, NOW_MS + 10**9 + 60001)
    assert log.segments == (0, 2)
    log.close()


def test_partition_metadata_is_kafkas(log):
    text = (log.directory / "partition.metadata").read_text()
    assert text == "version: 0\ntopic_id: a6e4EJ2tEdGAtADAT9QwyA\n"
    assert TOPIC_ID.hex.startswith("6ba7b810")


@pytest.mark.parametrize("length", [0, 1, 30, 42])
def test_a_directory_whose_id_was_cut_short_is_a_new_one(tmp_path, length):
    log = open_log(tmp_path / "t-0")
    log.close()
    path = tmp_path / "t-0" / "partition.metadata"
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    assert read_topic_id(tmp_path / "t-0") is None
    open_log(tmp_path / "t-0").close()
    assert path.read_bytes() == whole


def test_the_id_of_a_new_directory_is_durable_behind_what_it_begins_with_and_the_names_are_last(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda fd: synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
    directory = tmp_path / "t-0"
    directory.mkdir()
    assert claim(directory, TOPIC_ID, {"first": b"1"})
    assert synced == ["first.tmp", "partition.metadata", "t-0", tmp_path.name]
    assert not claim(directory, TOPIC_ID, {"first": b"2"}) and (directory / "first").read_bytes() == b"1"


def test_flush_moves_the_recovery_point_beside_appends(log):
    log.append_as_leader(batch(3), 0, NOW_MS)
    assert log.recovery_point == 0
    log.flush()
    assert log.recovery_point == 3
    log.append_as_leader(batch(3), 0, NOW_MS)
    assert log.recovery_point == 3


def test_flush_is_due_by_count_and_by_time(tmp_path):
    log = open_log(tmp_path / "t-0", {"flush.messages": "5", "flush.ms": "1000"})
    assert not log.flush_due(NOW_MS + 10**6)
    log.append_as_leader(batch(4), 0, NOW_MS)
    assert not log.flush_due(NOW_MS + 999)
    assert log.flush_due(NOW_MS + 1000)
    log.append_as_leader(batch(1), 0, NOW_MS)
    assert log.flush_due(NOW_MS)
    log.flush()
    assert not log.flush_due(NOW_MS + 10**6)
    log.close()


def test_a_readers_range_holds_whole_batches_only(log):
    for _ in range(10):
        log.append_as_leader(batch(3, value_bytes=100), 0, NOW_MS)
    reader, end = reader_of(log), log.position_of(log.log_end_offset)
    found = reader.read(4, 1000, end)
    assert found is not None
    data = reader.fetch_bytes(found)
    assert next(iter_records(data)).offset == 3
    assert len(data) <= 1000
