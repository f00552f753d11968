"""What is found after a crash: every whole batch, nothing torn, the same indexes; and one writer only."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid

import pytest

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log import DirectoryLocked, Log, LogConfig, lock_holder
from raykafka.log.batch import iter_batches
from raykafka.log.lock import boot_id, process_start_time
from raykafka.log.segments import Segments
from tests.lab.log_parts import (
    NOW_MS,
    TOPIC_ID,
    batch,
    crash,
    idempotent,
    open_log,
    read_all,
    stored_bytes,
    stored_headers,
)

SMALL = {"segment.bytes": "4000", "index.interval.bytes": "200"}


def files_of(directory, *suffixes):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name.endswith(suffixes)}


def test_a_torn_tail_at_every_byte_of_the_last_batch(tmp_path):
    directory = tmp_path / "t-0"
    log = open_log(directory)
    for _ in range(3):
        log.append_as_leader(batch(3), 0, NOW_MS)
    crash(log)
    path = directory / "00000000000000000000.log"
    whole = path.read_bytes()
    last = len(whole) // 3
    for cut in range(1, last + 1):
        path.write_bytes(whole[:-cut])
        log = open_log(directory)
        assert log.log_end_offset == 6, f"{cut} bytes short"
        assert log.recovered_bytes_cut == last - cut
        assert path.read_bytes() == whole[: 2 * last]
        assert log.append_as_leader(batch(1), 0, NOW_MS).base_offset == 6
        crash(log)


def test_every_damaged_byte_of_the_last_batch_is_found(tmp_path):
    directory = tmp_path / "t-0"
    log = open_log(directory)
    log.append_as_leader(batch(3), 0, NOW_MS)
    start = log.size_bytes
    log.append_as_leader(batch(2), 0, NOW_MS)
    crash(log)
    path = directory / "00000000000000000000.log"
    whole = path.read_bytes()
    not_covered = {*range(start + 12, start + 16)}  # the leader epoch, which no CRC covers
    not_covered.add(start + 7)  # an offset that still goes up
    for byte in {*range(start, len(whole))} - not_covered:
        damaged = bytearray(whole)
        damaged[byte] ^= 0x80
        path.write_bytes(damaged)
        log = open_log(directory)
        if byte > start + 7 or log.log_end_offset <= 3:
            assert (log.log_end_offset, path.read_bytes()) == (3, whole[:start]), f"byte {byte - start}"
        crash(log)


@pytest.mark.parametrize("garbage", [b"\0" * 5000, b"\xff" * 100, b"\0" * 7, bytes(range(256))])
def test_garbage_behind_the_last_batch_is_cut(tmp_path, garbage):
    directory = tmp_path / "t-0"
    log = open_log(directory)
    log.append_as_leader(batch(3), 0, NOW_MS)
    whole = stored_bytes(log)
    crash(log)
    with open(directory / "00000000000000000000.log", "ab") as tail:
        tail.write(garbage)
    log = open_log(directory)
    assert (log.log_end_offset, log.recovered_bytes_cut) == (3, len(garbage))
    assert stored_bytes(log) == whole
    log.close()


def test_damage_in_the_unflushed_part_ends_the_log_there(tmp_path):
    directory = tmp_path / "t-0"
    log = open_log(directory, SMALL)
    for _ in range(100):
        log.append_as_leader(batch(3), 0, NOW_MS)
    assert len(log.segments) > 3
    second, total = log.segments[1], log.size_bytes
    crash(log)
    path = directory / f"{second:020d}.log"
    content = bytearray(path.read_bytes())
    batches = [position for position, _ in iter_batches(bytes(content))]
    content[batches[5] + 70] ^= 1
    path.write_bytes(content)
    log = open_log(directory, SMALL)
    assert log.log_end_offset == second + 15
    assert log.segments == (0, second)
    assert log.recovered_bytes_cut == total - log.size_bytes
    assert sorted(path.name for path in directory.glob("*.index")) == [f"{base:020d}.index" for base in (0, second)]
    assert [record.offset for record in read_all(log)] == list(range(log.log_end_offset))
    log.close()


@pytest.mark.parametrize("next_is_empty", [True, False])
def test_a_segment_that_ends_early_at_a_batch_is_the_end_of_the_log(tmp_path, next_is_empty):
    """A power cut may take the end of a segment and leave the next one, or just its name."""
    directory = tmp_path / "t-0"
    log = open_log(directory, SMALL)
    for _ in range(60):
        log.append_as_leader(batch(3), 0, NOW_MS)
    first, second, third = log.segments[:3]
    crash(log)
    path = directory / f"{second:020d}.log"
    batches = [position for position, _ in iter_batches(path.read_bytes())]
    os.truncate(path, batches[5])
    if next_is_empty:
        os.truncate(directory / f"{third:020d}.log", 0)
    log = open_log(directory, SMALL)
    assert (log.log_end_offset, log.segments) == (second + 15, (first, second))
    assert [record.offset for record in read_all(log)] == list(range(log.log_end_offset))
    log.close()


def test_damage_amid_flushed_batches_drops_none_of_them(tmp_path):
    directory = tmp_path / "t-0"
    log = open_log(directory, SMALL)
    for _ in range(100):
        log.append_as_leader(batch(3), 0, NOW_MS)
    log.flush()
    end = log.recovery_point
    crash(log)
    path = directory / f"{0:020d}.log"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    (directory / f"{0:020d}.index").unlink()  # so that the segment must be read again
    before = files_of(directory, ".log")
    with pytest.raises(KafkaError) as refused:
        open_log(directory, SMALL, recovery_point=end)
    assert refused.value.code == ErrorCode.KAFKA_STORAGE_ERROR
    assert files_of(directory, ".log") == before
    assert lock_holder(directory) is None


@pytest.mark.parametrize("flushed_share", [0, 0.3, 0.7, 1])
def test_recovery_makes_the_indexes_that_appends_make(tmp_path, flushed_share):
    lived, crashed = open_log(tmp_path / "a" / "t-0", SMALL), open_log(tmp_path / "b" / "t-0", SMALL)
    count = 150
    for number in range(count):
        if number == int(count * flushed_share):
            crashed.flush()
        for log in (lived, crashed):
            log.append_as_leader(batch(number % 4 + 1, time_ms=NOW_MS + (number * 37) % 100), number // 50, NOW_MS)
    if flushed_share == 1:
        crashed.flush()
    crash(crashed)
    for path in crashed.directory.glob("*index"):
        if flushed_share == 0:
            path.unlink()
    again = open_log(crashed.directory, SMALL, recovery_point=crashed.recovery_point)
    assert again.recovered_bytes_cut == 0
    assert again.log_end_offset == lived.log_end_offset
    assert again.segments == lived.segments
    assert again.epochs.history == lived.epochs.history
    for log in (lived, again):
        log.append_as_leader(batch(1), 3, NOW_MS)
        log.roll(NOW_MS)
    for offset in range(lived.log_end_offset):
        assert again.position_of(offset) == lived.position_of(offset)
    assert files_of(again.directory, ".index", ".timeindex") == files_of(lived.directory, ".index", ".timeindex")
    lived.close()
    again.close()


def test_an_index_that_does_not_fit_its_log_is_made_again(tmp_path):
    directory = tmp_path / "t-0"
    log = open_log(directory, SMALL)
    for _ in range(100):
        log.append_as_leader(batch(3), 0, NOW_MS)
    log.close()
    sound = files_of(directory, ".index")
    (directory / f"{0:020d}.index").write_bytes(b"\x7f" * 40)
    (directory / f"{log.segments[1]:020d}.index").write_bytes(sound[f"{log.segments[1]:020d}.index"] + b"\1\2\3")
    (directory / f"{log.segments[-1]:020d}.timeindex").unlink()
    log = open_log(directory, SMALL, recovery_point=log.recovery_point, clean=True)
    assert (log.log_end_offset, log.recovered_bytes_cut) == (300, 0)
    assert [record.offset for record in read_all(log)] == list(range(300))
    log.close()
    assert files_of(directory, ".index") == sound


def test_a_clean_close_opens_as_it_was(tmp_path):
    directory = tmp_path / "t-0"
    log = open_log(directory, SMALL)
    for number in range(50):
        log.append_as_leader(idempotent(number), 2, NOW_MS)
    log.close()
    before = files_of(directory, ".log", ".index")
    again = open_log(directory, SMALL, recovery_point=log.recovery_point, clean=True)
    assert again.log_end_offset == again.recovery_point == 50
    producer = again.producers.get(7)
    assert producer is not None and producer.last_sequence == 49
    assert files_of(directory, ".log", ".index") == before
    again.close()


def test_a_closed_log_refuses_appends(tmp_path):
    log = open_log(tmp_path / "t-0")
    log.close()
    with pytest.raises(KafkaError) as refused:
        log.append_as_leader(batch(1), 0, NOW_MS)
    assert refused.value.code == ErrorCode.KAFKA_STORAGE_ERROR


def test_log_start_is_kept_and_leads_where_records_are_gone(tmp_path):
    directory = tmp_path / "t-0"
    log = open_log(directory)
    for _ in range(4):
        log.append_as_leader(batch(3), 0, NOW_MS)
    log.advance_log_start(5)
    log.close()
    log = open_log(directory, clean=True, recovery_point=12, log_start_offset=5)
    assert (log.log_start_offset, log.log_end_offset) == (5, 12)
    log.close()
    log = open_log(directory, clean=True, recovery_point=12, log_start_offset=40)
    assert (log.log_start_offset, log.log_end_offset, log.segments) == (40, 40, (40,))
    assert log.append_as_leader(batch(1), 1, NOW_MS).base_offset == 40
    log.close()


def test_leftovers_of_a_stopped_writer_are_tidied(tmp_path):
    directory = tmp_path / "t-0"
    log = open_log(directory)
    log.append_as_leader(batch(3), 0, NOW_MS)
    log.close()
    leftovers = [
        "00000000000000000000.log.deleted",
        "00000000000000000009.index",
        "00000000000000000009.timeindex",
        "00000000000000000000.log.cleaned",
        "leader-epoch-checkpoint.tmp",
    ]
    for name in leftovers:
        (directory / name).write_bytes(b"x")
    (directory / "somebody-elses.txt").write_bytes(b"x")
    log = open_log(directory, clean=True)
    names = {path.name for path in directory.iterdir()}
    assert not names & set(leftovers)
    assert "somebody-elses.txt" in names
    assert log.log_end_offset == 3
    log.close()


def test_an_empty_segment_of_a_failed_roll_does_not_hide_records(tmp_path):
    directory = tmp_path / "t-0"
    log = open_log(directory)
    for _ in range(4):
        log.append_as_leader(batch(3), 0, NOW_MS)
    crash(log)
    for suffix in (".log", ".index", ".timeindex"):
        (directory / f"{6:020d}{suffix}").write_bytes(b"")
    log = open_log(directory)
    assert (log.log_end_offset, log.segments) == (12, (0,))
    log.close()


def test_another_topics_directory_is_refused(tmp_path):
    directory = tmp_path / "t-0"
    open_log(directory).close()
    with pytest.raises(KafkaError) as refused:
        Log.open(directory, LogConfig(), topic_id=uuid.uuid4(), recovery_point=0, now_ms=NOW_MS)
    assert refused.value.code == ErrorCode.INCONSISTENT_TOPIC_ID
    assert lock_holder(directory) is None


def test_only_one_writer_at_a_time(tmp_path):
    directory = tmp_path / "t-0"
    assert lock_holder(directory) is None
    log = open_log(directory)
    with pytest.raises(DirectoryLocked) as locked:
        open_log(directory)
    assert locked.value.holder == lock_holder(directory)
    assert locked.value.holder == (os.getpid(), process_start_time(os.getpid()), boot_id())
    log.close()
    assert lock_holder(directory) is None
    open_log(directory).close()


WRITER = """
    import sys
    from pathlib import Path
    from tests.lab.log_parts import NOW_MS, idempotent, open_log
    log = open_log(Path(sys.argv[1]), {"segment.bytes": "100000", "index.interval.bytes": "1000"})
    sequence = log.log_end_offset
    while True:
        info = log.append_as_leader(idempotent(sequence, value_bytes=sequence % 3000), 0, NOW_MS)
        sequence += 1
        print(info.last_offset, flush=True)
"""


def test_what_a_killed_writer_acknowledged_is_there(tmp_path):
    directory = tmp_path / "t-0"
    end = 0
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(directory)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acknowledged = -1
        while acknowledged < end + 300:
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):
                acknowledged = int(line)
        writer.wait()
        assert lock_holder(directory) is None
        log = open_log(directory, {"segment.bytes": "100000", "index.interval.bytes": "1000"})
        assert log.log_end_offset > acknowledged
        assert [record.offset for record in read_all(log)] == list(range(log.log_end_offset))
        producer = log.producers.get(7)
        assert producer is not None and producer.last_sequence == log.log_end_offset - 1
        end = log.log_end_offset
        crash(log)


def test_flush_runs_beside_appends_in_another_thread(tmp_path):
    log = open_log(tmp_path / "t-0", SMALL)
    stop, points, errors = threading.Event(), [], []

    def flushing():
        while not stop.is_set():
            try:
                log.flush()
            except Exception as error:
                errors.append(error)
            points.append(log.recovery_point)

    thread = threading.Thread(target=flushing)
    thread.start()
    deadline, appends = time.monotonic() + 60, 0
    try:
        while len(set(points)) < 5 or appends < 500:
            assert time.monotonic() < deadline
            log.append_as_leader(batch(3), 0, NOW_MS)
            appends += 1
            if appends % 50 == 0:
                log.truncate_to(log.log_end_offset - 10)
            if appends % 70 == 0:
                log.advance_log_start(log.log_end_offset - 50)
                log.expire(NOW_MS, log.log_end_offset)
    finally:
        stop.set()
        thread.join()
    assert not errors
    assert len(set(points)) >= 5
    assert log.recovery_point <= log.log_end_offset
    log.close()
    assert log.recovery_point == log.log_end_offset


def test_a_flush_that_a_cut_overtakes_vouches_for_nothing(tmp_path, monkeypatch):
    log = open_log(tmp_path / "t-0")
    for _ in range(3):
        log.append_as_leader(batch(3), 0, NOW_MS)
    sync = Segments.sync

    def cut_meanwhile(segments, **options):
        sync(segments, **options)
        log.truncate_to(3)
        log.append_as_leader(batch(5), 1, NOW_MS)

    monkeypatch.setattr(Segments, "sync", cut_meanwhile)
    log.flush()
    assert log.recovery_point <= 3
    monkeypatch.undo()
    log.close()


@pytest.mark.parametrize("cut", ["in the log", "below the log", "before the crash"])
def test_what_was_written_behind_a_cut_is_checked_though_an_older_recovery_point_covers_it(tmp_path, cut):
    """The broker's file of recovery points may not have heard of the cut when the power goes."""
    directory, config = tmp_path / "t-0", {"index.interval.bytes": "1"}

    def write(count, epoch):
        for _ in range(count):
            log.append_as_leader(batch(1), epoch, NOW_MS)
        log._segments.active.write_indexes()

    log = open_log(directory, config)
    write(100, 0)
    log.flush()
    told = log.recovery_point
    if cut == "below the log":
        log.truncate_fully(50)
    else:
        log.truncate_to(50)
    if cut == "before the crash":
        crash(log)
        log = open_log(directory, config, recovery_point=told)
    write(100, 1)
    crash(log)
    path = sorted(directory.glob("*.log"))[-1]
    data = bytearray(path.read_bytes())
    position = next(at for at, header in iter_batches(data) if header.base_offset == 80)
    data[position + 70] ^= 1
    path.write_bytes(data)
    log = open_log(directory, config, recovery_point=told)
    assert log.log_end_offset == 80
    write(30, 2)
    log.flush()
    assert log.recovery_point > told
    assert not (directory / "recovery-bound").exists()
    log.close()


def test_a_failed_fsync_ends_the_logs_writes(tmp_path, monkeypatch):
    log = open_log(tmp_path / "t-0")
    log.append_as_leader(batch(3), 0, NOW_MS)
    real, failing = os.fsync, True

    def fsync(fd):
        if failing:
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    for attempt in (log.flush, log.flush, lambda: log.append_as_leader(batch(1), 0, NOW_MS)):
        with pytest.raises(KafkaError) as refused:
            attempt()
        assert refused.value.code == ErrorCode.KAFKA_STORAGE_ERROR
        failing = False  # a second fsync would succeed, and say nothing of what the first one lost
    assert log.failed
    assert log.recovery_point == 0
    with pytest.raises(KafkaError):
        log.close()
    assert lock_holder(tmp_path / "t-0") is None


def test_stored_headers_carry_offsets_and_epochs(tmp_path):
    log = open_log(tmp_path / "t-0")
    for epoch in (0, 0, 4):
        log.append_as_leader(batch(2), epoch, NOW_MS)
    assert [(header.base_offset, header.leader_epoch) for header in stored_headers(log)] == [(0, 0), (2, 0), (4, 4)]
    assert TOPIC_ID
    log.close()
