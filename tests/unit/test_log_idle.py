"""A log that idles holds its lock and no other file, and loses nothing by that."""

from __future__ import annotations

import os
import threading

import pytest

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log.lock import LOCK_FILE
from tests.lab.log_parts import (
    NOW_MS,
    batch,
    crash,
    idempotent,
    open_files,
    open_log,
    read_all,
    reader_of,
)

SMALL = {"segment.bytes": "1500", "index.interval.bytes": "200"}
IDLE = [LOCK_FILE]


@pytest.fixture
def synced(monkeypatch):
    """The names of the files that were fsynced, in order."""
    names, real = [], os.fsync

    def fsync(fd):
        real(fd)
        names.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))

    monkeypatch.setattr(os, "fsync", fsync)
    return names


def test_a_log_that_was_never_written_has_no_segment_files(tmp_path):
    directory = tmp_path / "t-0"
    log = open_log(directory)
    assert open_files(directory) == IDLE
    assert (log.segments, log.size_bytes, log.position_of(0)) == ((0,), 0, (0, 0))
    assert not list(directory.glob("0*"))
    reader = reader_of(log)
    end = log.position_of(0)
    assert reader.read(0, 1000, end) is None
    assert reader.offset_for_timestamp(0, end, 0) is None
    assert reader.offset_of_max_timestamp(end, 0) is None
    assert log.expire(NOW_MS * 2, 0) == 0
    log.flush()
    log.close({"kept": 1})
    log = open_log(directory, clean=True)
    assert (log.note, log.log_end_offset, log.segments) == ({"kept": 1}, 0, (0,))
    assert log.append_as_leader(batch(2), 0, NOW_MS).base_offset == 0
    assert [record.offset for record in read_all(log)] == [0, 1]
    assert sorted(path.suffix for path in directory.glob("0*")) == [".index", ".log", ".timeindex"]
    log.close()


def test_a_log_that_begins_behind_0_knows_it_after_a_crash(tmp_path):
    crash(open_log(tmp_path / "t-0", log_start_offset=40))
    log = open_log(tmp_path / "t-0")
    assert (log.log_start_offset, log.log_end_offset) == (40, 40)
    log.close()


def test_files_that_can_not_be_made_refuse_the_first_append_and_not_the_next(tmp_path):
    directory = tmp_path / "t-0"
    log = open_log(directory)
    log.epochs.assign(0, 0)
    (directory / f"{0:020d}.index").mkdir()
    with pytest.raises(KafkaError) as refused:
        log.append_as_leader(batch(1), 0, NOW_MS)
    assert refused.value.code == ErrorCode.KAFKA_STORAGE_ERROR
    assert not (directory / f"{0:020d}.log").exists()
    assert open_files(directory) == IDLE
    assert (log.failed, log.log_end_offset) == (False, 0)
    (directory / f"{0:020d}.index").rmdir()
    assert log.append_as_leader(batch(1), 0, NOW_MS).base_offset == 0
    log.close()


@pytest.mark.parametrize("clean", [True, False])
def test_an_opened_log_holds_only_its_lock(tmp_path, clean):
    directory = tmp_path / "t-0"
    log = open_log(directory, SMALL)
    for number in range(40):
        log.append_as_leader(idempotent(number), 0, NOW_MS)
    assert len(log.segments) > 2
    if clean:
        log.close()
    else:
        crash(log)
    log = open_log(directory, SMALL, clean=clean)
    assert open_files(directory) == IDLE
    assert log.log_end_offset == 40
    log.append_as_leader(idempotent(40), 0, NOW_MS)
    assert [record.offset for record in read_all(log)] == list(range(41))
    log.close()


def test_an_idle_log_lets_go_of_its_files_once_they_are_flushed(tmp_path, synced):
    directory = tmp_path / "t-0"
    log = open_log(directory)
    log.append_as_leader(batch(3), 0, NOW_MS)
    assert not log.rest(), "what was appended to since the last look does not idle"
    synced.clear()
    assert log.rest(), "what is not flushed keeps its files"
    assert not synced
    assert len(open_files(directory)) == 4
    log.flush()
    assert f"{0:020d}.log" in synced
    assert not log.rest()
    assert open_files(directory) == IDLE
    log._boundaries.clear()
    assert log.position_of(1) == (0, 0)
    assert log.append_as_leader(batch(3), 0, NOW_MS).base_offset == 3
    assert not log.rest()
    assert len(open_files(directory)) == 4
    assert [record.offset for record in read_all(log)] == list(range(6))
    log.close()


@pytest.mark.parametrize("left", ["crashed", "closed unflushed"])
def test_what_an_earlier_process_wrote_is_synced_before_the_recovery_point_passes_it(tmp_path, synced, left):
    directory = tmp_path / "t-0"
    log = open_log(directory, SMALL)
    for number in range(10):
        log.append_as_leader(batch(2, time_ms=NOW_MS + number), 0, NOW_MS)
    log.flush()
    flushed = log.recovery_point
    before = len(log.segments)
    for number in range(20):
        log.append_as_leader(batch(2, time_ms=NOW_MS + number), 0, NOW_MS)
    synced.clear()
    if left == "crashed":
        crash(log)
    else:
        log.close(flush=False)
    assert not synced
    log = open_log(directory, SMALL, recovery_point=flushed, clean=left != "crashed")
    assert log.recovery_point == flushed
    assert len(log.segments) > before + 1
    synced.clear()
    log.flush()
    assert log.recovery_point == 60
    unflushed = [f"{base:020d}.log" for base in log.segments[before - 1 :]]
    assert [name for name in synced if name.endswith(".log")] == unflushed
    assert synced[-1] == directory.name
    synced.clear()
    log.flush()
    assert not synced
    log.close()


def test_a_flush_waits_for_one_that_is_under_way(tmp_path, monkeypatch):
    log = open_log(tmp_path / "t-0")
    log.append_as_leader(batch(3), 0, NOW_MS)
    real, begun, go_on = os.fsync, threading.Event(), threading.Event()

    def fsync(fd):
        begun.set()
        assert go_on.wait(60)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    flushes = [threading.Thread(target=log.flush) for _ in range(2)]
    flushes[0].start()
    assert begun.wait(60)
    flushes[1].start()
    flushes[1].join(0.2)
    assert flushes[1].is_alive()
    assert log.recovery_point == 0
    go_on.set()
    for flush in flushes:
        flush.join()
    assert log.recovery_point == 3
    log.close()


def test_a_reader_closes_what_was_not_read_since_it_was_last_told_to(tmp_path):
    directory = tmp_path / "t-0"
    log = open_log(directory, SMALL)
    for _ in range(20):
        log.append_as_leader(batch(3), 0, NOW_MS)
    log.flush()
    for _ in range(2):
        log.rest()
    reader, end = reader_of(log), log.position_of(60)
    found = [reader.read(base, 300, end) for base in log.segments[:3]]
    opened = len(open_files(directory))
    assert opened > 3
    reader.rest()
    assert len(open_files(directory)) == opened
    again = reader.read(0, 300, end)
    assert again is not None and found[0] is not None
    reader.rest()
    del found[1:]
    assert len(open_files(directory)) == 1 + len(again.files._fds)
    reader.rest()
    assert len(open_files(directory)) > 1, "a range that was handed out stays readable"
    assert bytes(reader.fetch_bytes(again)) == bytes(reader.fetch_bytes(found[0]))
    del again, found
    assert open_files(directory) == IDLE
    assert reader.read(0, 300, end) is not None
    log.close()


def test_logs_are_opened_by_several_threads_at_once(tmp_path):
    def closed(number):
        log = open_log(tmp_path / f"t-{number}", SMALL)
        for sequence in range(number % 7 * 3):
            log.append_as_leader(idempotent(sequence), 0, NOW_MS)
        log.close()

    for number in range(0, 60, 2):  # the others are new
        closed(number)
    logs, errors, barrier = {}, [], threading.Barrier(6)

    def opening(first):
        barrier.wait()
        try:
            for number in range(first, 60, 6):
                logs[number] = open_log(tmp_path / f"t-{number}", SMALL, clean=True)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=opening, args=(first,)) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for number, log in logs.items():
        assert log.log_end_offset == (number % 7 * 3 if number % 2 == 0 else 0)
        log.append_as_leader(idempotent(log.log_end_offset), 0, NOW_MS)
        assert len(list(read_all(log))) == log.log_end_offset
        log.close()
    assert len(logs) == 60
