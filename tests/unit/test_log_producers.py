"""Idempotent producers: one copy of each batch, in order, also across restarts and cuts."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log import DuplicateSequence, Log
from raykafka.log.batch import Record, build_batch
from raykafka.log.batch_layout import MAX_INT32
from raykafka.log.log import AppendInfo
from raykafka.log.producers import REMEMBERED_BATCHES
from tests.lab.log_parts import NOW_MS, batch, crash, idempotent, open_log, read_all, unhurried


@pytest.fixture
def log(tmp_path):
    opened = open_log(tmp_path / "t-0")
    yield opened
    opened.close()


def append(log: Log, sequence: int, count: int = 1, **fields: Any) -> AppendInfo:
    return log.append_as_leader(idempotent(sequence, count, **fields), 0, NOW_MS)


def refusal(log: Log, sequence: int, **fields: Any) -> ErrorCode:
    end = log.log_end_offset
    with pytest.raises(KafkaError) as refused:
        append(log, sequence, **fields)
    assert log.log_end_offset == end
    return refused.value.code


def test_a_repeated_batch_is_answered_with_its_first_place(log):
    for sequence in (0, 3, 6, 9, 12):
        append(log, sequence, 3)
    for sequence in (0, 3, 6, 9, 12):
        with pytest.raises(DuplicateSequence) as duplicate:
            append(log, sequence, 3)
        assert (duplicate.value.base_offset, duplicate.value.timestamp) == (sequence, NOW_MS + 2)
    assert log.log_end_offset == 15


def test_only_five_batches_are_remembered(log):
    for sequence in range(6):
        append(log, sequence)
    assert refusal(log, 0) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    with pytest.raises(DuplicateSequence):
        append(log, 1)


@pytest.mark.parametrize("sequence", [0, 2, 4, 100])
def test_a_gap_or_a_step_back_is_out_of_order(log, sequence):
    append(log, 0, 3)
    if sequence == 0:
        assert refusal(log, 0, count=2) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    else:
        assert refusal(log, sequence) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_an_unknown_producer_may_start_anywhere(log):
    assert append(log, 17).base_offset == 0
    assert append(log, 18).base_offset == 1


def test_sequences_go_on_behind_the_largest(log):
    append(log, MAX_INT32 - 1, 4)
    assert append(log, 2).base_offset == 4
    with pytest.raises(DuplicateSequence):
        append(log, MAX_INT32 - 1, 4)


def test_a_new_epoch_starts_at_zero_and_fences_the_old(log):
    append(log, 0, epoch=1)
    assert refusal(log, 1, epoch=2) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    append(log, 0, epoch=2)
    assert refusal(log, 1, epoch=1) == ErrorCode.INVALID_PRODUCER_EPOCH
    append(log, 1, epoch=2)


def test_several_batches_of_a_producer_in_one_append_are_checked_in_turn(log):
    in_turn = bytes(idempotent(0, 2)) + bytes(idempotent(2, 2))
    log.append_as_leader(memoryview(bytearray(in_turn)), 0, NOW_MS)
    out_of_turn = bytes(idempotent(4, 2)) + bytes(idempotent(7, 2))
    with pytest.raises(KafkaError) as refused:
        log.append_as_leader(memoryview(bytearray(out_of_turn)), 0, NOW_MS)
    assert refused.value.code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    append(log, 4)


def test_a_batch_without_a_sequence_is_invalid(log):
    assert refusal(log, -1) == ErrorCode.INVALID_RECORD


def test_producers_are_apart(log):
    append(log, 0, producer_id=1)
    append(log, 0, producer_id=2)
    append(log, 1, producer_id=1)
    assert refusal(log, 2, producer_id=2) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


@pytest.mark.parametrize("cleanly", [True, False])
def test_a_restart_knows_the_last_batches(tmp_path, cleanly):
    log = open_log(tmp_path / "t-0", {"segment.bytes": "500"})
    for sequence in range(20):
        append(log, sequence)
    assert len(log.segments) > 2
    if cleanly:
        log.close()
    else:
        crash(log)
    log = open_log(tmp_path / "t-0", clean=cleanly)
    for sequence in range(20 - REMEMBERED_BATCHES, 20):  # as many as may be in flight, and so be sent again
        with pytest.raises(DuplicateSequence) as duplicate:
            append(log, sequence)
        assert duplicate.value.base_offset == sequence
    assert refusal(log, 21) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert append(log, 20).base_offset == 20
    log.close()


def test_a_torn_snapshot_is_passed_over(tmp_path):
    log = open_log(tmp_path / "t-0", {"segment.bytes": "500"})
    for sequence in range(30):
        append(log, sequence)
    crash(log)
    snapshots = sorted((tmp_path / "t-0").glob("*.snapshot"))
    assert len(snapshots) >= 3
    snapshots[-1].write_bytes(snapshots[-1].read_bytes()[:-5])
    snapshots[-2].write_bytes(b"")
    damaged = bytearray(snapshots[-3].read_bytes())
    damaged[17] ^= 1  # another producer's id
    snapshots[-3].write_bytes(damaged)
    log = open_log(tmp_path / "t-0")
    assert len(log.producers) == 1
    with pytest.raises(DuplicateSequence):
        append(log, 29)
    append(log, 30)
    log.close()


def test_snapshots_are_kafkas(tmp_path):
    log = open_log(tmp_path / "t-0")
    append(log, 0, 4, producer_id=11, epoch=2)
    append(log, 4, 3, producer_id=11, epoch=2)
    log.close()
    content = (tmp_path / "t-0" / f"{7:020d}.snapshot").read_bytes()
    version, crc, count = struct.unpack_from(">hIi", content)
    assert (version, count) == (1, 2)
    assert crc == crc32c(content[6:])
    entries = list(struct.iter_unpack(">qhiqiqiq", content[10:]))
    assert entries == [(11, 2, 3, 3, 3, NOW_MS + 3, -1, -1), (11, 2, 6, 6, 2, NOW_MS + 2, -1, -1)]


def test_a_silent_producer_is_forgotten(log):
    append(log, 0, producer_id=1)
    append(log, 0, producer_id=2, time_ms=NOW_MS + 5000)
    expiration_ms = log.config.producer_id_expiration_ms
    log.expire(NOW_MS + expiration_ms - 1, 0)
    assert len(log.producers) == 2
    log.expire(NOW_MS + expiration_ms, 0)
    assert log.producers.get(1) is None
    append(log, 99, producer_id=1)
    append(log, 1, producer_id=2, time_ms=NOW_MS + 5001)


def test_an_open_transaction_holds_the_first_unstable_offset(tmp_path):
    log = open_log(tmp_path / "t-0")
    log.append_as_leader(batch(2), 0, NOW_MS)
    append(log, 0, 2, producer_id=1, transactional=True)
    append(log, 0, 2, producer_id=2, transactional=True)
    append(log, 2, 2, producer_id=1, transactional=True)
    assert log.first_unstable_offset == 2
    assert log.producers.expire(NOW_MS + 10**12, 1) == 0

    def end_transaction(log, producer_id, kind):
        marker = build_batch(
            [Record(struct.pack(">hh", 0, kind), struct.pack(">hi", 0, 0), NOW_MS)],
            producer_id=producer_id,
            producer_epoch=0,
            control=True,
            transactional=True,
        )
        log.append_as_leader(memoryview(marker), 0, NOW_MS, from_client=False)

    end_transaction(log, 1, 1)
    assert log.first_unstable_offset == 4
    crash(log)
    log = open_log(tmp_path / "t-0")
    assert log.first_unstable_offset == 4
    log.close()
    log = open_log(tmp_path / "t-0", clean=True)
    assert log.first_unstable_offset == 4
    end_transaction(log, 2, 0)
    assert log.first_unstable_offset is None
    append(log, 4, producer_id=1)
    log.close()


def test_a_cut_log_forgets_what_was_cut(tmp_path):
    log = open_log(tmp_path / "t-0", {"segment.bytes": "500"})
    for sequence in range(30):
        append(log, sequence)
    log.truncate_to(12)
    assert append(log, 12).base_offset == 12
    with pytest.raises(DuplicateSequence):
        append(log, 11)
    log.truncate_fully(100)
    assert len(log.producers) == 0
    assert append(log, 55).base_offset == 100
    log.close()


@settings(unhurried, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.booleans()), max_size=40),
    st.sampled_from(["crash", "close"]),
)
def test_however_often_a_producer_sends_again_each_batch_is_there_once(tmp_path_factory, sends, stop):
    """Each producer sends in turn; after some batches comes a repeat of one of its last five, or a restart."""
    directory = tmp_path_factory.mktemp("log") / "t-0"
    log = open_log(directory, {"segment.bytes": "2000"})
    next_sequence, expected = [0, 0, 0], list[int]()
    sent: list[list[tuple[int, int, int]]] = [[], [], []]
    for producer, count, disturb in sends:
        sequence = next_sequence[producer]
        info = append(log, sequence, count, producer_id=producer)
        expected += [producer] * count
        sent[producer].append((sequence, count, info.base_offset))
        next_sequence[producer] += count
        if disturb:
            for sequence, count, base_offset in sent[producer][-5:]:
                with pytest.raises(DuplicateSequence) as duplicate:
                    append(log, sequence, count, producer_id=producer)
                assert duplicate.value.base_offset == base_offset
        if disturb and count == 4:
            if stop == "close":
                log.close()
            else:
                crash(log)
            log = open_log(directory, {"segment.bytes": "2000"}, clean=stop == "close")
            sent = [batches[-1:] for batches in sent]
    assert len(list(read_all(log))) == len(expected) == log.log_end_offset
    log.close()
