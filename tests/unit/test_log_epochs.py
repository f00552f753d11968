"""The leader epoch file: what it holds, and what stays known over cuts and crashes."""

from __future__ import annotations

import pytest

from raykafka.errors import KafkaError
from raykafka.log import LeaderEpochs, Log, LogConfig
from tests.lab.log_parts import NOW_MS, TOPIC_ID, batch, crash, open_log


def test_the_file_is_kafkas(tmp_path):
    epochs = LeaderEpochs(tmp_path)
    epochs.assign(0, 0)
    epochs.assign(3, 120)
    assert (tmp_path / "leader-epoch-checkpoint").read_text() == "0\n2\n0 0\n3 120\n"
    again = LeaderEpochs(tmp_path)
    assert again.history == epochs.history
    assert again.latest_epoch == 3


@pytest.mark.parametrize("content", ["", "1\n0\n", "0\n2\n0 0\n", "0\n1\n0\n", "0\nx\n", "0\n1\n0 0 0\n"])
def test_a_malformed_file_is_an_error(tmp_path, content):
    (tmp_path / "leader-epoch-checkpoint").write_text(content)
    with pytest.raises(KafkaError, match="malformed"):
        LeaderEpochs(tmp_path)


def test_cutting_from_both_ends(tmp_path):
    epochs = LeaderEpochs(tmp_path)
    for entry in ((2, 0), (4, 11), (6, 20)):
        epochs.assign(*entry)
    epochs.truncate_from_end(15)
    assert epochs.history == ((2, 0), (4, 11), (6, 15))
    epochs.truncate_from_end(15)
    assert epochs.history == ((2, 0), (4, 11), (6, 15))
    epochs.truncate_from_start(5)
    assert epochs.history == ((2, 5), (4, 11), (6, 15))
    epochs.truncate_from_start(11)
    assert epochs.history == ((4, 11), (6, 15))
    assert LeaderEpochs(tmp_path).history == epochs.history


def test_a_begun_epoch_survives_a_crash_before_its_first_record(tmp_path):
    log = open_log(tmp_path / "t-0")
    log.append_as_leader(batch(3), 1, NOW_MS)
    log.epochs.assign(5, log.log_end_offset)
    crash(log)
    log = open_log(tmp_path / "t-0")
    assert log.epochs.history[-1] == (5, 3)
    log.close()


def test_epochs_of_a_lost_tail_are_forgotten_but_for_the_newest(tmp_path):
    log = open_log(tmp_path / "t-0")
    log.append_as_leader(batch(3), 1, NOW_MS)
    size = log.size_bytes
    log.append_as_leader(batch(3), 2, NOW_MS)
    log.append_as_leader(batch(3), 3, NOW_MS)
    crash(log)
    with open(tmp_path / "t-0" / "00000000000000000000.log", "r+b") as file:
        file.truncate(size + 20)
    log = open_log(tmp_path / "t-0")
    assert log.epochs.history == ((1, 0), (3, 3))
    log.close()


def test_a_lost_epoch_file_comes_back_from_the_batches(tmp_path):
    log = open_log(tmp_path / "t-0")
    for epoch in (1, 1, 4, 6):
        log.append_as_leader(batch(2), epoch, NOW_MS)
    before = log.epochs.history
    crash(log)
    (tmp_path / "t-0" / "leader-epoch-checkpoint").unlink()
    log = open_log(tmp_path / "t-0")
    assert log.epochs.history == before
    log.close()


def new_log(directory):
    return Log.open(
        directory,
        LogConfig.from_topic_config({}),
        topic_id=TOPIC_ID,
        recovery_point=0,
        now_ms=NOW_MS,
        in_first_epoch=True,
    )


def test_a_new_logs_first_epoch_is_on_disk_before_it_begins_and_is_not_written_again(tmp_path):
    log, path = new_log(tmp_path / "t-0"), tmp_path / "t-0" / "leader-epoch-checkpoint"
    assert path.read_text() == "0\n1\n0 0\n"
    assert log.epochs.history == () and log.epochs.is_on_disk([(0, 0)]) and not log.epochs.is_on_disk([])
    written = path.stat().st_ino
    log.epochs.assign(0, 0)
    assert path.stat().st_ino == written
    crash(log)
    log = new_log(tmp_path / "t-0")
    assert log.epochs.history == ((0, 0),)
    log.close()


def test_a_new_log_whose_first_leader_has_another_epoch_takes_that_one(tmp_path):
    log = new_log(tmp_path / "t-0")
    log.epochs.replace([(3, 0)])
    crash(log)
    log = open_log(tmp_path / "t-0")
    assert log.epochs.history == ((3, 0),)
    log.close()


def test_an_epoch_that_is_on_disk_and_was_not_begun_counts_after_a_crash(tmp_path):
    crash(new_log(tmp_path / "t-0"))
    log = open_log(tmp_path / "t-0")
    assert log.epochs.history == ((0, 0),)
    log.close()
