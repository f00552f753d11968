"""Retention and cuts: what goes, what must stay, and what readers see of it."""

from __future__ import annotations

import errno
import os

import pytest

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log import LeaderEpochs, LogConfig, StaleRange
from raykafka.log.batch import Record, build_batch
from raykafka.log.batch_layout import NO_TIMESTAMP
from tests.lab.log_parts import NOW_MS, batch, crash, open_log, read_all, reader_of, stored_headers

HOUR_MS = 3600 * 1000


def hourly_log(directory, **config):
    """Six segments of three records each, an hour apart; the last is active."""
    log = open_log(directory, {"segment.ms": "1000", **{key.replace("_", "."): value for key, value in config.items()}})
    for hour in range(6):
        log.append_as_leader(batch(3, time_ms=NOW_MS + hour * HOUR_MS), 0, NOW_MS + hour * HOUR_MS)
    assert log.segments == (0, 3, 6, 9, 12, 15)
    return log


def test_segments_older_than_retention_go(tmp_path):
    log = hourly_log(tmp_path / "t-0", retention_ms=str(2 * HOUR_MS))
    assert log.expire(NOW_MS + 4 * HOUR_MS + 2, log.log_end_offset) == 2
    assert (log.segments, log.log_start_offset) == ((6, 9, 12, 15), 6)
    assert [record.offset for record in read_all(log)] == list(range(6, 18))
    assert log.expire(NOW_MS + 4 * HOUR_MS + 2, log.log_end_offset) == 0
    log.close()


def test_segments_over_the_size_go(tmp_path):
    log = hourly_log(tmp_path / "t-0", retention_ms="-1")
    size = log.size_bytes // 6
    log.config = LogConfig.from_topic_config({"retention.ms": "-1", "retention.bytes": str(3 * size + 1)})
    assert log.expire(NOW_MS, log.log_end_offset) == 2
    log.config = LogConfig.from_topic_config({"retention.ms": "-1", "retention.bytes": str(3 * size)})
    assert log.expire(NOW_MS, log.log_end_offset) == 1
    assert log.segments == (9, 12, 15)
    log.close()


def test_everything_may_expire_the_active_segment_too(tmp_path):
    log = hourly_log(tmp_path / "t-0", retention_ms=str(HOUR_MS))
    assert log.expire(NOW_MS + 100 * HOUR_MS, log.log_end_offset) == 6
    assert (log.segments, log.log_start_offset, log.log_end_offset) == ((18,), 18, 18)
    assert log.expire(NOW_MS + 200 * HOUR_MS, log.log_end_offset) == 0
    assert log.append_as_leader(batch(1), 0, NOW_MS).base_offset == 18
    log.close()


@pytest.mark.parametrize(("high_watermark", "kept"), [(0, 0), (2, 0), (3, 3), (8, 6), (17, 15)])
def test_nothing_at_or_above_the_high_watermark_goes(tmp_path, high_watermark, kept):
    log = hourly_log(tmp_path / "t-0", retention_ms="1", retention_bytes="0")
    log.expire(NOW_MS + 100 * HOUR_MS, high_watermark)
    assert log.segments[0] == kept
    log.close()


def test_a_compacted_topic_keeps_all_but_what_is_below_the_log_start(tmp_path):
    log = hourly_log(tmp_path / "t-0", retention_ms="1", retention_bytes="0", cleanup_policy="compact")
    assert log.expire(NOW_MS + 100 * HOUR_MS, log.log_end_offset) == 0
    log.advance_log_start(7)
    assert log.expire(NOW_MS, log.log_end_offset) == 2
    assert (log.segments[0], log.log_start_offset) == (6, 7)
    log.close()


def test_records_without_a_time_expire_by_the_files(tmp_path):
    log = open_log(tmp_path / "t-0", {"retention.ms": "1000"})
    log.append_as_leader(memoryview(build_batch([Record(b"k", b"v", NO_TIMESTAMP)])), 0, NOW_MS)
    log.roll(NOW_MS)
    written_ms = int((log.directory / f"{0:020d}.log").stat().st_mtime * 1000)
    assert log.expire(written_ms + 1000, 1) == 0
    assert log.expire(written_ms + 1001, 1) == 1
    log.close()


def test_files_of_deleted_segments_live_on_for_the_delay(tmp_path):
    log = hourly_log(tmp_path / "t-0", retention_ms=str(HOUR_MS), file_delete_delay_ms="60000")
    reader, end = reader_of(log), log.position_of(18)
    held = reader.read(0, 100, end)
    now_ms = NOW_MS + 3 * HOUR_MS
    assert log.expire(now_ms, log.log_end_offset) == 2
    deleted = sorted(path.name for path in log.directory.glob("*.deleted"))
    assert "00000000000000000000.log.deleted" in deleted
    assert not list(log.directory.glob("00000000000000000000.log"))
    assert log.purge(now_ms + 59_999) == len(deleted)
    assert held is not None
    assert len(reader.fetch_bytes(held)) == held.length
    assert log.purge(now_ms + 60_000) == 0
    assert not list(log.directory.glob("*.deleted"))
    assert len(reader.fetch_bytes(held)) == held.length, "an open file outlives its name"
    late = reader_of(log)
    late.update((0, 3, *log.segments), 0)  # a view from before the deletion
    with pytest.raises(KafkaError) as gone:
        late.read(0, 100, end)
    assert gone.value.code == ErrorCode.OFFSET_OUT_OF_RANGE
    log.close()


def test_retention_cuts_the_epochs_and_snapshots_with_it(tmp_path):
    log = open_log(tmp_path / "t-0", {"segment.ms": "1000", "retention.ms": str(2 * HOUR_MS)})
    for hour in range(6):
        log.append_as_leader(
            batch(3, time_ms=NOW_MS + hour * HOUR_MS, producer_id=1, producer_epoch=0, base_sequence=3 * hour),
            hour // 2,
            NOW_MS + hour * HOUR_MS,
        )
    log.expire(NOW_MS + 5 * HOUR_MS, log.log_end_offset)
    assert log.epochs.history == ((1, 9), (2, 12))
    assert log.producers.snapshot_offsets() == [9, 12, 15]
    log.close()


def test_retention_needs_no_room(tmp_path, monkeypatch):
    log = open_log(tmp_path / "t-0", {"segment.ms": "1000", "retention.ms": str(HOUR_MS), "file.delete.delay.ms": "0"})
    for hour in range(6):
        log.append_as_leader(batch(3, time_ms=NOW_MS + hour * HOUR_MS), hour, NOW_MS + hour * HOUR_MS)
    with monkeypatch.context() as full:
        full.setattr("raykafka.log.epochs.write_whole", no_room)
        full.setattr("raykafka.log.segment.Segment._open_files", no_room)
        assert log.expire(NOW_MS + 100 * HOUR_MS, log.log_end_offset) == 5
        assert log.purge(None) == 0
    assert (log.segments, log.log_start_offset, log.failed) == ((15,), 15, False)
    assert log.epochs.history == ((5, 15),)
    crash(log)
    log = open_log(tmp_path / "t-0", {"retention.ms": str(HOUR_MS)})
    assert log.epochs.history == ((5, 15),)
    assert log.expire(NOW_MS + 100 * HOUR_MS, log.log_end_offset) == 1
    assert log.append_as_leader(batch(1), 6, NOW_MS).base_offset == 18
    assert LeaderEpochs(tmp_path / "t-0").history == log.epochs.history
    log.close()


def no_room(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_log_start_cannot_pass_the_end(tmp_path):
    log = hourly_log(tmp_path / "t-0")
    with pytest.raises(KafkaError) as refused:
        log.advance_log_start(19)
    assert refused.value.code == ErrorCode.OFFSET_OUT_OF_RANGE
    log.advance_log_start(18)
    log.advance_log_start(4)
    assert log.log_start_offset == 18
    log.close()


@pytest.mark.parametrize("offset", range(19))
def test_a_cut_leaves_whole_batches_below_it(tmp_path, offset):
    log = hourly_log(tmp_path / "t-0")
    log.flush()
    truncations = log.truncations
    log.truncate_to(offset)
    end = offset // 3 * 3
    assert log.log_end_offset == end
    assert log.recovery_point == min(18, end)
    assert log.truncations == truncations + (offset < 18)
    assert [header.last_offset for header in stored_headers(log)] == list(range(2, end, 3))
    assert log.append_as_leader(batch(2), 1, NOW_MS).base_offset == end
    crash(log)
    log = open_log(tmp_path / "t-0")
    assert [record.offset for record in read_all(log)] == list(range(end + 2))
    assert log.recovered_bytes_cut == 0
    log.close()


def test_a_cut_takes_its_index_entries_along(tmp_path):
    log = open_log(tmp_path / "t-0", {"index.interval.bytes": "1"})
    for second in range(10):
        log.append_as_leader(batch(1, time_ms=NOW_MS + second), 0, NOW_MS)
    log.flush()
    log.truncate_to(5)
    for _ in range(10):
        log.append_as_leader(batch(1, value_bytes=90, time_ms=NOW_MS + 50), 1, NOW_MS)
    log.flush()
    reader, end = reader_of(log), log.position_of(15)
    assert reader.offset_for_timestamp(NOW_MS + 9, end, 0) == (NOW_MS + 50, 5, 1)
    log._boundaries.clear()
    sizes = [header.size for header in stored_headers(log)]
    assert [log.position_of(offset).position for offset in range(15)] == [sum(sizes[:n]) for n in range(15)]
    for offset in range(15):
        found = reader.read(offset, 1, end)
        assert found is not None
        assert (found.position, found.length) == (sum(sizes[:offset]), sizes[offset])
    log.close()


def test_a_long_log_keeps_few_files_open(tmp_path):
    log = open_log(tmp_path / "t-0", {"segment.bytes": "300"})
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(60):
        log.append_as_leader(batch(2), 0, NOW_MS)
        log.flush()
    assert len(log.segments) >= 30
    assert len(os.listdir("/proc/self/fd")) - before <= 6
    log._boundaries.clear()
    assert [log.position_of(offset).segment for offset in log.segments[:-1]] == list(log.segments[:-1])
    log.truncate_to(log.segments[20] + 2)
    log.append_as_leader(batch(2), 0, NOW_MS)
    log.flush()
    assert [record.offset for record in read_all(log)] == list(range(log.log_end_offset))
    log.close()
    log = open_log(tmp_path / "t-0", {"segment.bytes": "300"}, clean=True)
    assert len(os.listdir("/proc/self/fd")) - before <= 6
    assert [record.offset for record in read_all(log)] == list(range(log.log_end_offset))
    log.close()


def test_a_cut_below_the_first_segment_starts_anew(tmp_path):
    log = hourly_log(tmp_path / "t-0", retention_ms=str(HOUR_MS))
    log.expire(NOW_MS + 5 * HOUR_MS, log.log_end_offset)
    first = log.log_start_offset
    assert first > 2
    log.truncate_to(2)
    assert (log.log_start_offset, log.log_end_offset, log.segments) == (2, 2, (2,))
    log.truncate_fully(50)
    assert (log.log_start_offset, log.log_end_offset, log.segments) == (50, 50, (50,))
    assert [entry.start_offset for entry in log.epochs.history] == [50]
    log.close()


def test_a_reader_finds_out_that_the_log_was_cut(tmp_path):
    log = open_log(tmp_path / "t-0")
    for _ in range(4):
        log.append_as_leader(batch(3), 0, NOW_MS)
    reader = reader_of(log)
    found = reader.read(6, 10_000, log.position_of(12), end_offset=12)
    assert found is not None
    log.truncate_to(6)
    with pytest.raises(StaleRange):
        reader.fetch_bytes(found)
    log.append_as_leader(batch(3, value_bytes=500), 1, NOW_MS)
    log.append_as_leader(batch(3, value_bytes=500), 1, NOW_MS)
    reader.update(log.segments, log.truncations)
    with pytest.raises(StaleRange):
        reader.fetch_bytes(found)
    assert reader.read(12, 10_000, log.position_of(12)) is None
    again = reader.read(9, 10_000, log.position_of(12))
    assert again is not None
    assert again.position == log.position_of(9).position
    log.close()
