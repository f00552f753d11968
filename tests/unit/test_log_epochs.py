"""The leader epoch file, and what it answers to a follower that looks for the last common offset."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raykafka.errors import KafkaError
from raykafka.log import LeaderEpochs
from raykafka.log.epochs import EpochEntry, end_offset_for
from tests.lab.log_parts import NOW_MS, batch, crash, open_log, unhurried


def test_the_file_is_kafkas(tmp_path):
    epochs = LeaderEpochs(tmp_path)
    epochs.assign(0, 0)
    epochs.assign(3, 120)
    assert (tmp_path / "leader-epoch-checkpoint").read_text() == "0\n2\n0 0\n3 120\n"
    again = LeaderEpochs(tmp_path)
    assert again.entries == epochs.entries
    assert again.latest_epoch == 3


@pytest.mark.parametrize("content", ["", "1\n0\n", "0\n2\n0 0\n", "0\n1\n0\n", "0\nx\n", "0\n1\n0 0 0\n"])
def test_a_malformed_file_is_an_error(tmp_path, content):
    (tmp_path / "leader-epoch-checkpoint").write_text(content)
    with pytest.raises(KafkaError, match="malformed"):
        LeaderEpochs(tmp_path)


def test_an_epoch_without_records_gives_way_to_the_next(tmp_path):
    epochs = LeaderEpochs(tmp_path)
    for epoch, start in ((1, 0), (2, 50), (3, 50), (4, 50)):
        epochs.assign(epoch, start)
    assert epochs.entries == ((1, 0), (4, 50))


# the table of Kafka's own answers: history 2@0, 4@11, 6@20, log end 30
@pytest.mark.parametrize(
    ("epoch", "answer"),
    [
        (-1, (-1, -1)),
        (0, (0, 0)),
        (2, (2, 11)),
        (3, (2, 11)),
        (4, (4, 20)),
        (5, (4, 20)),
        (6, (6, 30)),
        (7, (-1, -1)),
    ],
)
def test_end_offsets(tmp_path, epoch, answer):
    epochs = LeaderEpochs(tmp_path)
    for entry in ((2, 0), (4, 11), (6, 20)):
        epochs.assign(*entry)
    assert epochs.end_offset_for(epoch, 30) == answer


def test_without_history_nothing_is_known():
    assert end_offset_for([], 3, 10) == (-1, -1)


def test_cutting_from_both_ends(tmp_path):
    epochs = LeaderEpochs(tmp_path)
    for entry in ((2, 0), (4, 11), (6, 20)):
        epochs.assign(*entry)
    epochs.truncate_from_end(15)
    assert epochs.entries == ((2, 0), (4, 11), (6, 15))
    epochs.truncate_from_end(15)
    assert epochs.entries == ((2, 0), (4, 11), (6, 15))
    epochs.truncate_from_start(5)
    assert epochs.entries == ((2, 5), (4, 11), (6, 15))
    epochs.truncate_from_start(11)
    assert epochs.entries == ((4, 11), (6, 15))
    assert [epochs.epoch_of(offset) for offset in (10, 11, 99)] == [-1, 4, 6]
    assert LeaderEpochs(tmp_path).entries == epochs.entries


@unhurried
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(0, 12))
def test_end_offsets_agree_with_a_list_of_every_record(gaps, asked):
    """``gaps``: how many epochs pass before each record."""
    written, epoch = [], 0
    for gap in gaps:
        epoch += gap
        written.append(epoch)
    entries = [EpochEntry(epoch, offset) for offset, epoch in enumerate(written) if epoch not in written[:offset]]
    answer = end_offset_for(entries, asked, len(written))
    not_newer = [epoch for epoch in written if epoch <= asked]
    if asked > written[-1]:
        assert answer == (-1, -1)
    elif not_newer:
        assert answer == (not_newer[-1], len(not_newer))
    else:
        assert answer == (asked, 0)


def test_a_begun_epoch_survives_a_crash_before_its_first_record(tmp_path):
    log = open_log(tmp_path / "t-0")
    log.append_as_leader(batch(3), 1, NOW_MS)
    log.epochs.assign(5, log.log_end_offset)
    crash(log)
    log = open_log(tmp_path / "t-0")
    assert log.epochs.latest == (5, 3)
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
    assert log.epochs.entries == ((1, 0), (3, 3))
    log.close()


def test_a_lost_epoch_file_comes_back_from_the_batches(tmp_path):
    log = open_log(tmp_path / "t-0")
    for epoch in (1, 1, 4, 6):
        log.append_as_leader(batch(2), epoch, NOW_MS)
    before = log.epochs.entries
    crash(log)
    (tmp_path / "t-0" / "leader-epoch-checkpoint").unlink()
    log = open_log(tmp_path / "t-0")
    assert log.epochs.entries == before
    log.close()
