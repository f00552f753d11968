"""What the seal on a closed log is worth: it is opened as it was, once, and a log that was not flushed only by the same
boot of the machine."""

from __future__ import annotations

import os
import random

import pytest

from raykafka.broker.partitions.checkpoints import RECOVERY_POINTS, OffsetCheckpoint
from raykafka.log import Log, read_seal, seal
from raykafka.log.seal import SEAL_FILE
from raykafka.log.segment import Segment
from raykafka.types import TopicPartition
from tests.lab.hosts.power_cut import cut_logs
from tests.lab.log_parts import NOW_MS, batch, idempotent, open_log, read_all, stored_bytes

TP = TopicPartition("t", 0)
SMALL = {"segment.bytes": "1500", "index.interval.bytes": "200"}


def written(directory, count=30):
    log = open_log(directory, SMALL)
    for number in range(count):
        log.append_as_leader(idempotent(number, time_ms=NOW_MS + number), number // 20, NOW_MS)
        if number == 9:
            log.flush()
    return log


def known(log: Log) -> tuple[object, ...]:
    """What a writer knows of its log."""
    producer = log.producers.get(7)
    assert producer is not None
    log._boundaries.clear()
    for segment in log._segments:
        segment.seal_indexes()
    return (
        (log.log_start_offset, log.log_end_offset, log.epochs.history, log.segments, log.size_bytes),
        (list(producer.batches), producer.epoch, producer.last_timestamp),
        [segment.state() for segment in log._segments],
        [log.position_of(offset) for offset in range(log.log_end_offset + 1)],
    )


@pytest.mark.parametrize("flush", [True, False])
def test_a_sealed_log_is_what_it_was_without_being_read(tmp_path, monkeypatch, flush):
    log = written(tmp_path / "t-0")
    before, flushed = known(log), log.recovery_point
    log.close({"kept": 1}, flush=flush)
    assert log.recovery_point == (30 if flush else flushed)

    def opened(*_, **__):
        raise AssertionError("a segment was opened")

    with monkeypatch.context() as while_opening:
        while_opening.setattr(Segment, "_open_files", opened)
        log = open_log(tmp_path / "t-0", SMALL, recovery_point=log.recovery_point, clean=True)
    assert (log.note, log.recovery_point) == ({"kept": 1}, 30 if flush else 10)
    assert known(log) == before
    log.append_as_leader(idempotent(30), 1, NOW_MS)
    assert [record.offset for record in read_all(log)] == list(range(31))
    log.close()


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("harm", ["torn", "missing", "appended", "a segment more", "a segment less", "of another form"])
def test_only_an_intact_seal_spares_a_recovery(tmp_path, harm, flush):
    directory = tmp_path / "t-0"
    log = written(directory)
    log.close({"kept": 1}, flush=flush)
    path, end = directory / SEAL_FILE, 30
    match harm:
        case "torn":
            path.write_bytes(path.read_bytes()[:-20])
        case "missing":
            path.unlink()
        case "appended":
            with open(directory / f"{log.segments[-1]:020d}.log", "ab") as tail:
                tail.write(b"\0" * 10)
        case "a segment more":
            (directory / f"{30:020d}.log").touch()
        case "a segment less":
            (directory / f"{log.segments[-1]:020d}.log").unlink()
            end = log.segments[-1]
        case "of another form":
            path.write_bytes(b"1" + path.read_bytes()[1:])
    assert read_seal(directory) is None
    log = open_log(directory, SMALL, recovery_point=10, clean=True)
    assert (log.note, log.log_end_offset, log.recovered_bytes_cut) == (None, end, 10 if harm == "appended" else 0)
    assert log.recovery_point == 10
    log.close()


@pytest.mark.parametrize("flush", [True, False])
def test_a_seal_opens_a_log_for_one_writer_only(tmp_path, flush):
    directory = tmp_path / "t-0"
    log = open_log(directory)
    log.append_as_leader(batch(2), 0, NOW_MS)
    log.close({"kept": 1}, flush=flush)
    left = read_seal(directory)
    assert left is not None and (left.log_end_offset, left.segments, left.note) == (2, (0,), {"kept": 1})
    first = open_log(directory, clean=True)
    assert first.note == {"kept": 1}
    assert read_seal(directory) is None
    first.close(None, flush=flush)
    assert open_log(directory, clean=True).note is None


def test_a_log_closed_without_a_flush_syncs_nothing(tmp_path, monkeypatch):
    log = written(tmp_path / "t-0")

    def fsync(_):
        raise AssertionError("it was synced")

    monkeypatch.setattr(os, "fsync", fsync)
    log.close({"kept": 1}, flush=False)
    assert read_seal(tmp_path / "t-0") is not None


def test_a_seal_of_an_unflushed_log_counts_in_its_boot_only(tmp_path, monkeypatch):
    """What was in the page cache went with the boot, whatever the files look like."""
    directory = tmp_path / "t-0"
    log = written(directory)
    log.close({"kept": 1}, flush=False)
    monkeypatch.setattr(seal, "boot_id", lambda: "another boot")
    assert read_seal(directory) is None
    path = directory / f"{log.segments[-1]:020d}.log"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # a page that never got to the disk, in a file of the right length
    path.write_bytes(data)
    log = open_log(directory, SMALL, recovery_point=10, clean=True)
    assert (log.note, log.recovery_point, log.log_end_offset) == (None, 10, 29)
    assert log.recovered_bytes_cut > 0
    log.close({})
    monkeypatch.undo()
    assert open_log(directory, SMALL, clean=True).note == {}, "a flushed log's seal counts in every boot"


@pytest.mark.parametrize("seal_got_to_the_disk", [True, False])
def test_a_power_cut_behind_an_unflushed_close_leaves_a_prefix_with_all_that_was_flushed(
    tmp_path, monkeypatch, seal_got_to_the_disk
):
    cuts = 0
    for number in range(60):
        data_dir = tmp_path / str(number)
        log = written(data_dir / "t-0")
        whole, records = stored_bytes(log), list(read_all(log))
        log.close({"kept": 1}, flush=False)
        OffsetCheckpoint(data_dir, RECOVERY_POINTS).write({TP: log.recovery_point})
        cut = cut_logs(data_dir, [TP], random.Random(number))[TP]
        assert cut.flushed_offset == 10
        if not seal_got_to_the_disk:
            (data_dir / "t-0" / SEAL_FILE).unlink()
        with monkeypatch.context() as next_boot:
            next_boot.setattr(seal, "boot_id", lambda: "another boot")
            log = open_log(data_dir / "t-0", SMALL, recovery_point=10, clean=True)
        assert log.note is None
        assert log.recovery_point == 10
        assert whole.startswith(stored_bytes(log))
        assert 10 <= log.log_end_offset <= 30
        assert list(read_all(log)) == records[: log.log_end_offset]
        cuts += log.log_end_offset < 30
        log.append_as_leader(idempotent(log.log_end_offset), 9, NOW_MS)
        log.close()
    assert cuts > 30


def test_indexes_that_are_not_what_the_seal_says_are_made_again(tmp_path):
    directory = tmp_path / "t-0"
    log = written(directory)
    log.close({"kept": 1})
    names = [f"{log.segments[number]:020d}{suffix}" for number, suffix in ((0, ".index"), (1, ".timeindex"))]
    sound = [(directory / name).read_bytes() for name in names]
    (directory / names[0]).write_bytes(b"\x7f" * 40)
    (directory / names[1]).unlink()
    log = open_log(directory, SMALL, recovery_point=30, clean=True)
    assert (log.note, log.log_end_offset, log.recovery_point) == ({"kept": 1}, 30, 30)
    log.close()
    assert [(directory / name).read_bytes() for name in names] == sound
