"""A disk that takes no more: the append fails whole, and the log goes on when there is room again."""

from __future__ import annotations

import os

import pytest

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log.index import TIME_ENTRY, Index
from tests.lab.log_parts import NOW_MS, batch, crash, files_limited_to, idempotent, open_log, read_all, stored_bytes


def storage_error(call):
    with pytest.raises(KafkaError) as failed:
        call()
    assert failed.value.code == ErrorCode.KAFKA_STORAGE_ERROR


@pytest.mark.parametrize("room", [0, 1, 11, 60, 100, 999])
def test_a_partial_write_is_cut_back_to_the_batchs_start(tmp_path, room):
    directory = tmp_path / "t-0"
    log = open_log(directory)
    log.append_as_leader(idempotent(0, 3, value_bytes=400), 0, NOW_MS)
    whole, position = stored_bytes(log), log.position_of(3)
    with files_limited_to(len(whole) + room):
        storage_error(lambda: log.append_as_leader(idempotent(3, 3, value_bytes=400), 0, NOW_MS))
        assert stored_bytes(log) == whole
        assert (log.log_end_offset, log.position_of(3), log.failed) == (3, position, False)
    info = log.append_as_leader(idempotent(3, 3, value_bytes=400), 0, NOW_MS)
    assert info.base_offset == 3
    assert [record.offset for record in read_all(log)] == list(range(6))
    crash(log)
    log = open_log(directory)
    assert (log.log_end_offset, log.recovered_bytes_cut) == (6, 0)
    log.close()


def test_smaller_batches_still_fit_after_a_large_one_did_not(tmp_path):
    log = open_log(tmp_path / "t-0")
    with files_limited_to(1000):
        storage_error(lambda: log.append_as_leader(batch(3, value_bytes=2000), 0, NOW_MS))
        assert log.append_as_leader(batch(1), 0, NOW_MS).base_offset == 0
    assert [record.offset for record in read_all(log)] == [0]
    log.close()


def test_a_roll_that_fails_leaves_the_old_segment_active(tmp_path):
    directory = tmp_path / "t-0"
    config = {"segment.bytes": "1500"}
    log = open_log(directory, config)
    for number in range(100):
        if len(log.segments) == 2:
            break
        log.append_as_leader(idempotent(number, producer_id=number), 0, NOW_MS)
    end, segments = log.log_end_offset, log.segments
    while log.position_of(log.log_end_offset).position + len(batch(1)) <= 1500:
        log.append_as_leader(batch(1), 0, NOW_MS)
    end, segments = log.log_end_offset, log.segments
    with files_limited_to(100):  # the snapshot of the producers does not fit
        storage_error(lambda: log.append_as_leader(batch(1), 0, NOW_MS))
        assert (log.log_end_offset, log.segments) == (end, segments)
    assert log.append_as_leader(batch(1), 0, NOW_MS).base_offset == end
    assert len(log.segments) == 3
    crash(log)
    log = open_log(directory, config)
    assert [record.offset for record in read_all(log)] == list(range(end + 1))
    log.close()


def test_index_entries_wait_for_room(tmp_path):
    directory = tmp_path / "t-0"
    config = {"index.interval.bytes": "1"}
    log = open_log(directory, config)
    for _ in range(5):
        log.append_as_leader(batch(1), 0, NOW_MS)
    size = log.size_bytes
    # indexes may not grow, the log may: as when the file system has no block left but those of the log
    index = log._segments.active.index
    room = index._fd
    read_only = (directory / "00000000000000000000.index").open("rb")
    index._fd = read_only.fileno()
    for _ in range(100):
        log.append_as_leader(batch(1), 0, NOW_MS)
    assert index.size_bytes > 0
    assert (directory / "00000000000000000000.index").stat().st_size == 0
    index._fd = room
    read_only.close()
    for _ in range(100):
        log.append_as_leader(batch(1), 0, NOW_MS)
    assert (directory / "00000000000000000000.index").stat().st_size > 150 * 8
    assert log.size_bytes == size * 41
    log._boundaries.clear()
    assert [log.position_of(offset).position for offset in range(205)] == [size // 5 * n for n in range(205)]
    log.close()


@pytest.mark.parametrize("room", range(0, 50, 3))
def test_an_index_entry_that_fits_by_half_is_written_again(tmp_path, room):
    path = tmp_path / "00000000000000000000.timeindex"
    index = Index(str(path), TIME_ENTRY)
    index.open(os.O_CREAT)
    entries = [(NOW_MS + n, n) for n in range(4)]
    for entry in entries:
        index.append(*entry)
    with files_limited_to(room):
        if room < 4 * TIME_ENTRY.size:
            with pytest.raises(OSError, match="File too large"):
                index.write_out()
        else:
            index.write_out()
    assert (index.count, index.last) == (4, entries[-1])
    assert [index.floor(NOW_MS + n) for n in range(4)] == entries
    index.write_out()
    assert list(TIME_ENTRY.iter_unpack(path.read_bytes())) == entries
    index.close()


def test_an_epoch_that_cannot_be_written_is_not_acted_on(tmp_path):
    log = open_log(tmp_path / "t-0")
    log.append_as_leader(batch(1), 0, NOW_MS)
    with files_limited_to(1):
        storage_error(lambda: log.append_as_leader(batch(1), 1, NOW_MS))
    assert log.epochs.latest_epoch == 0
    assert log.log_end_offset == 1
    log.append_as_leader(batch(1), 1, NOW_MS)
    assert log.epochs.latest_epoch == 1
    log.close()
