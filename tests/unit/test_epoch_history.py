"""What a history of leader epochs answers to a replica that looks for the last offset it has in common with its leader
(KIP-101, KIP-279)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raykafka.epoch_history import UNDEFINED, EpochHistory, agreeing_end
from tests.lab.log_parts import unhurried

HISTORY = EpochHistory.of([(2, 0), (4, 11), (6, 20)])


def written_by(epochs: list[int]) -> EpochHistory:
    """The history of a log whose record at each offset was written in that epoch."""
    return EpochHistory.of((epoch, offset) for offset, epoch in enumerate(epochs) if epoch not in epochs[:offset])


def test_an_epoch_without_records_gives_way_to_the_next() -> None:
    history = EpochHistory()
    for epoch, start in ((1, 0), (2, 50), (3, 50), (4, 50)):
        history = history.assign(epoch, start)
    assert [*history] == [(1, 0), (4, 50)]
    assert history.latest_epoch == 4


# the table of Kafka's own answers, in a log that ends at 30
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
def test_end_offsets(epoch: int, answer: tuple[int, int]) -> None:
    assert HISTORY.end_offset_for(epoch, 30) == answer


def test_without_history_nothing_is_known() -> None:
    assert EpochHistory().end_offset_for(3, 10) == UNDEFINED == (-1, -1)
    assert EpochHistory().latest_epoch == -1
    assert EpochHistory().last_record_epoch(0, 10) == -1


def test_cutting_from_both_ends() -> None:
    cut = HISTORY.truncate_from_end(15)
    assert [*cut] == [(2, 0), (4, 11), (6, 15)]
    assert cut.truncate_from_end(15) == cut
    assert cut.forget_beyond(15) == cut
    assert [*cut.truncate_fully(7)] == [(6, 7)]
    assert cut.truncate_from_start(0) == cut
    later = cut.truncate_from_start(5)
    assert [*later] == [(2, 5), (4, 11), (6, 15)]
    last = later.truncate_from_start(11)
    assert [*last] == [(4, 11), (6, 15)]
    assert [last.epoch_at(offset) for offset in (10, 11, 99)] == [-1, 4, 6]


def test_what_was_begun_where_the_log_is_found_to_end_stays() -> None:
    assert HISTORY.forget_beyond(20) == HISTORY
    assert [*HISTORY.truncate_from_end(20)] == [(2, 0), (4, 11), (6, 20)]
    assert [*HISTORY.forget_beyond(11)] == [(2, 0), (6, 11)]


def test_the_last_record_is_not_of_an_epoch_that_has_none() -> None:
    assert HISTORY.last_record_epoch(0, 20) == 4
    assert HISTORY.last_record_epoch(20, 20) == -1
    assert HISTORY.epochs_with_records(20) == {4: 20, 2: 11}


@pytest.mark.parametrize(
    ("own", "leader", "agreed"),
    [
        ([1, 1, 1], [1, 1, 1, 1], 3),
        ([1, 1, 2, 2], [1, 1, 3], 2),
        ([1, 1, 2], [1, 1, 2, 2, 3], 3),
        ([1, 1, 2, 2, 2], [1, 1, 2, 3], 3),
        ([2, 2], [1, 3], None),
    ],
    ids=["behind", "another's tail", "an epoch behind", "longer in a common epoch", "nothing in common"],
)
def test_two_logs_agree_to_the_end_of_the_newest_common_epoch(
    own: list[int], leader: list[int], agreed: int | None
) -> None:
    assert agreeing_end(written_by(own), len(own), written_by(leader), len(leader)) == agreed


@unhurried
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(0, 12))
def test_end_offsets_agree_with_a_list_of_every_record(gaps: list[int], asked: int) -> None:
    """``gaps``: how many epochs pass before each record."""
    written, epoch = [], 0
    for gap in gaps:
        epoch += gap
        written.append(epoch)
    history = written_by(written)
    assert [history.epoch_at(offset) for offset in range(len(written))] == written
    answer = history.end_offset_for(asked, len(written))
    not_newer = [epoch for epoch in written if epoch <= asked]
    if asked > written[-1]:
        assert answer == (-1, -1)
    elif not_newer:
        assert answer == (not_newer[-1], len(not_newer))
    else:
        assert answer == (asked, 0)
