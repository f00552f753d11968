"""Histories with a planted fault of each kind are found, and found as what they are; what is allowed is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from raykafka.log.batch import Record, build_batch
from raykafka.log.batch_layout import CRC_START
from tests.lab.chaos import history, stored
from tests.lab.chaos.checker import LATE_S, Election, gaps
from tests.lab.chaos.history import Acked, Assigned, Committed, Event, Fault, Latest, Read, Refused, Sent
from tests.lab.chaos.stored import StoredRecord
from tests.lab.histories import PER_PARTITION, Run, good_run

LAST = PER_PARTITION - 1


def lose_tail(run: Run, partition: int, start: int) -> None:
    """Cut the stored log at ``start``; readers of the group and the watcher had not come further."""
    del run.stored(partition)[start:]
    run.events = [e for e in run.events if not (type(e) is Read and e.partition == partition and e.offset >= start)]


def test_a_good_run_holds() -> None:
    verdict = good_run().verdict()
    assert verdict.holds
    assert (verdict.sent, verdict.acknowledged, verdict.stored) == (16, 16, 16)


@pytest.mark.parametrize("offset", range(4))
def test_a_lost_record_is_found_whoever_wrote_it(offset: int) -> None:
    run = good_run()
    run.stored(0)[offset] = StoredRecord(offset, ("idempotent", 100), "")
    run.events.append(Sent("idempotent", 100, 0, "", 999.0))
    run.events = [e for e in run.events if not (type(e) is Read and e.partition == 0 and e.offset == offset)]
    run.events += [Read(reader, 0, offset, "idempotent", 100, 2000.0) for reader in ("watcher", "group-0")]
    found = run.violations()
    assert found["lost"] == 1 and "moved" not in found


def test_a_record_that_is_somewhere_else_than_acknowledged_is_found() -> None:
    run = good_run()
    (acked,) = run.of(Acked, partition=1, offset=LAST)
    run.remove(acked)
    run.events.append(acked._replace(offset=LAST + 5))
    assert run.violations() == {"moved": 1}


@pytest.mark.parametrize("stored", [True, False])
def test_a_record_that_was_acknowledged_without_its_offset_has_to_be_somewhere(stored: bool) -> None:
    run = good_run()
    number = 0 if stored else 1000
    run.events.append(Sent("idempotent", 1000, 1, "", 1.0))
    run.events.append(Acked("idempotent", number, 1, -1, 2000.0))
    assert run.violations() == ({} if stored else {"lost": 1})


def append(run: Run, partition: int, record: tuple[str, int] | None, key: str = "") -> None:
    """Store one record more, which all readers get."""
    offset = len(run.stored(partition))
    run.stored(partition).append(StoredRecord(offset, record, key))
    writer, number = record or ("?", -1)
    for reader in ("watcher", "group-0"):
        run.events.append(Read(reader, partition, offset, writer, number, 3000.0))


def test_a_record_of_an_idempotent_writer_that_is_there_twice_is_found() -> None:
    run = good_run()
    append(run, 0, ("idempotent", 0))
    assert run.violations() == {"duplicated": 1}


def test_a_record_that_a_writer_without_idempotence_repeated_is_allowed_and_counted() -> None:
    run = good_run()
    append(run, 0, ("plain", 0))
    assert run.violations() == {}
    assert run.verdict().repeated == 1


def test_records_that_are_not_in_the_order_of_sending_are_found() -> None:
    run = good_run()
    run.events.append(Sent("idempotent", 50, 0, "", 1.0))
    run.events.append(Sent("idempotent", 49, 0, "", 1.0))
    append(run, 0, ("idempotent", 50))
    append(run, 0, ("idempotent", 49))
    assert run.violations() == {"reordered": 1}


def test_a_key_in_two_partitions_is_found() -> None:
    run = good_run()
    run.events.append(Sent("keyed", 90, -1, "k0", 1.0))
    append(run, 1, ("keyed", 90), "k0")
    assert run.violations() == {"reordered": 1}


@pytest.mark.parametrize("record", [("idempotent", 77), ("nobody", 0), None])
def test_a_record_that_nobody_sent_is_found(record: tuple[str, int] | None) -> None:
    run = good_run()
    append(run, 0, record)
    assert run.violations()["phantom"] == 1


def test_a_record_in_another_partition_than_it_was_sent_to_is_found() -> None:
    run = good_run()
    run.events.append(Sent("idempotent", 60, 0, "", 1.0))
    append(run, 1, ("idempotent", 60))
    assert run.violations() == {"phantom": 1}


def test_a_read_that_is_not_what_is_stored_is_found() -> None:
    run = good_run()
    (read,) = run.of(Read, reader="watcher", partition=0, offset=3)
    run.events[run.events.index(read)] = read._replace(number=66)
    assert run.violations() == {"changed": 1}


def test_a_read_of_what_vanished_is_found() -> None:
    run = good_run()
    run.events.append(Read("watcher", 0, PER_PARTITION, "idempotent", 0, 3000.0))
    assert run.violations() == {"changed": 1}


def test_an_offset_that_a_watcher_was_not_given_is_found() -> None:
    run = good_run()
    run.remove(*run.of(Read, reader="watcher", partition=0, offset=3))
    assert run.violations() == {"skipped": 1}


def test_an_end_that_a_watcher_did_not_reach_is_found() -> None:
    run = good_run()
    run.remove(*run.of(Read, reader="watcher", partition=1, offset=LAST))
    assert run.violations() == {"skipped": 1}


def test_an_offset_that_no_member_of_the_group_was_given_is_found() -> None:
    run = good_run()
    run.remove(*run.of(Read, reader="group-0", partition=1, offset=2))
    assert run.violations() == {"skipped": 1}


def test_a_latest_offset_that_went_back_is_found() -> None:
    run = good_run()
    run.events.append(Latest("observer", 0, 5, 5000.0))
    assert run.violations() == {"went back": 1}


def test_a_commit_that_was_forgotten_is_found() -> None:
    run = good_run()
    run.events.append(Assigned("group-1", 0, 4000.0))
    run.events.append(Read("group-1", 0, LAST, *(run.stored(0)[LAST].who or ("", 0)), 4000.1))
    assert run.violations() == {"went back": 1}


def test_a_member_may_read_again_what_was_not_committed() -> None:
    run = good_run()
    run.remove(*run.of(Committed))
    run.events.append(Committed("group-0", 0, LAST, 3000.0))
    run.events.append(Assigned("group-1", 0, 4000.0))
    run.events.append(Read("group-1", 0, LAST, *(run.stored(0)[LAST].who or ("", 0)), 4000.1))
    assert run.violations() == {}


def test_an_error_that_clients_cannot_retry_is_found() -> None:
    run = good_run()
    run.events.append(Refused("idempotent", "OUT_OF_ORDER_SEQUENCE_NUMBER", 1.0))
    assert run.violations() == {"refused": 1}


# what elections may lose


@pytest.fixture
def cut() -> Run:
    """The last two records of partition 0, of writers ``keyed`` and ``leader``, are gone."""
    run = good_run()
    lose_tail(run, 0, PER_PARTITION - 2)
    run.remove(*run.of(Latest, partition=0, offset=PER_PARTITION), *run.of(Latest, partition=0, offset=LAST))
    run.remove(*run.of(Committed, partition=0))
    return run


def acked_at(run: Run, offset: int) -> float:
    (acked,) = run.of(Acked, partition=0, offset=offset)
    return float(acked.at)


def test_without_an_election_nothing_may_be_lost(cut: Run) -> None:
    assert cut.violations() == {"lost": 2}


def test_an_election_may_lose_what_acks_1_acknowledged_and_nothing_else(cut: Run) -> None:
    cut.partitions[0].elections = [Election(1, PER_PARTITION - 2, acked_at(cut, LAST) + 0.5, False)]
    assert cut.violations() == {"lost": 1}
    assert {name: len(lost) for name, lost in cut.verdict().allowed_losses.items()} == {"leader": 1}


def test_an_unclean_election_may_lose_what_was_behind_its_leaders_end(cut: Run) -> None:
    cut.partitions[0].elections = [Election(1, PER_PARTITION - 2, acked_at(cut, LAST) + 0.5, True)]
    assert cut.violations() == {}
    assert {name: len(lost) for name, lost in cut.verdict().allowed_losses.items()} == {"keyed": 1, "leader": 1}


def test_an_unclean_election_may_not_lose_what_its_leader_had(cut: Run) -> None:
    cut.partitions[0].elections = [Election(1, PER_PARTITION - 1, acked_at(cut, LAST) + 0.5, True)]
    assert cut.violations() == {"lost": 1}


def test_an_election_may_not_lose_what_was_acknowledged_long_after_it(cut: Run) -> None:
    cut.partitions[0].elections = [Election(1, 0, acked_at(cut, LAST) - 2 * LATE_S, True)]
    assert cut.violations() == {"lost": 2}


def test_what_was_read_may_vanish_by_an_unclean_election_only() -> None:
    for unclean in (False, True):
        run = good_run()
        del run.stored(0)[LAST:]
        run.partitions[0].elections = [Election(1, LAST, 3000.0, unclean)]
        found = run.violations()
        assert found == ({} if unclean else {"changed": 2}), (unclean, found)


def test_clients_may_meet_what_an_unclean_election_lost_and_only_then() -> None:
    for unclean in (False, True):
        run = good_run()
        run.partitions[0].elections = [Election(1, PER_PARTITION, 3000.0, unclean)]
        run.events += [Latest("observer", 0, 5, 3001.0), Refused("watcher", "truncation detected", 3001.0)]
        run.events += [Read("watcher", 0, n, *(run.stored(0)[n].who or ("", 0)), 3002.0) for n in range(PER_PARTITION)]
        assert run.violations() == ({} if unclean else {"went back": 1, "refused": 1, "skipped": 1})


# what replicas hold


def batch(offset: int, count: int = 2) -> bytearray:
    value = history.pack_value("idempotent", offset, 10)
    made = build_batch([Record(b"", value, 1)] * count, base_offset=offset)
    return bytearray(made)


def write(folder: Path, *batches: bytearray) -> Path:
    folder.mkdir()
    (folder / f"{0:020}.log").write_bytes(b"".join(batches))
    return folder


def test_replicas_that_are_equal_have_no_differences_and_their_records_can_be_read(tmp_path: Path) -> None:
    places = {b: write(tmp_path / f"b{b}", batch(0), batch(2)) for b in range(3)}
    assert stored.differences(places, 4) == []
    assert [(r.offset, r.who) for r in stored.records(places[0], 4)] == [
        (0, ("idempotent", 0)),
        (1, ("idempotent", 0)),
        (2, ("idempotent", 2)),
        (3, ("idempotent", 2)),
    ]


@pytest.mark.parametrize("broker", range(3))
def test_a_byte_that_differs_is_found_on_whichever_replica(tmp_path: Path, broker: int) -> None:
    places = {b: write(tmp_path / f"b{b}", batch(0), batch(2)) for b in range(3)}
    path = next(places[broker].glob("*.log"))
    data = bytearray(path.read_bytes())
    data[CRC_START + 50] ^= 1
    path.write_bytes(data)
    (found,) = stored.differences(places, 4)
    assert f"b{broker}" in found and "CRC" in found


def test_another_batch_at_the_same_offset_is_found(tmp_path: Path) -> None:
    other = bytearray(build_batch([Record(b"", b"other", 1)] * 2, base_offset=2))
    places = {0: write(tmp_path / "b0", batch(0), batch(2)), 1: write(tmp_path / "b1", batch(0), other)}
    (found,) = stored.differences(places, 4)
    assert "offset 2" in found


def test_a_log_that_ends_too_soon_is_found(tmp_path: Path) -> None:
    places = {0: write(tmp_path / "b0", batch(0), batch(2)), 1: write(tmp_path / "b1", batch(0))}
    (found,) = stored.differences(places, 4)
    assert "ends at 2" in found


def test_offsets_that_are_missing_within_are_found(tmp_path: Path) -> None:
    places = {0: write(tmp_path / "b0", batch(0), batch(2), batch(4))}
    places[1] = write(tmp_path / "b1", batch(0), batch(4))
    (found,) = stored.differences(places, 6)
    assert "offset 4 follows where 2 comes next" in found


def test_what_lies_above_the_high_watermark_may_differ(tmp_path: Path) -> None:
    places = {0: write(tmp_path / "b0", batch(0), batch(2)), 1: write(tmp_path / "b1", batch(0))}
    assert stored.differences(places, 2) == []


def test_a_value_that_was_tampered_with_is_nobodys() -> None:
    value = history.pack_value("plain", 12, 5)
    assert history.unpack_value(value) == ("plain", 12)
    assert history.unpack_value(value.replace(b"12", b"13")) is None
    assert history.unpack_value(None) is None


# files and times


def test_events_come_back_from_their_file_and_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    events: list[Event] = [*good_run().events, Fault("kill", "broker 1", 1.0, 2.0)]
    path = tmp_path / "history.jsonl"
    path.write_text(history.write(events) + '["acked", "pla')
    assert list(history.read(path)) == events


def test_a_fault_is_charged_with_the_longest_silence_until_the_next_one() -> None:
    faults = [Fault("a", "", 10.0, 10.0), Fault("b", "", 20.0, 20.0)]
    quiet = [Acked("idempotent", n, 0, n, at) for n, at in enumerate((9.9, 10.1, 13.1, 19.0, 19.9, 20.2, 29.0))]
    busy = [Acked("keyed", n, 1, n, 9.0 + n / 10) for n in range(200)]
    ignored = [Acked("leader", 0, 2, 0, 11.0), Acked("leader", 1, 2, 1, 18.0)]
    found = [(gap.fault.kind, round(gap.seconds, 1), gap.partition) for gap in gaps(faults, quiet + busy + ignored)]
    assert found == [("a", 5.9, 0), ("b", 8.8, 0)]
