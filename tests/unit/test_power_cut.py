"""What a power cut leaves of a log, as tests on simulated hosts make it: never less than was flushed, and what recovery
makes of it."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from raykafka.broker.identity import DataDirectory
from raykafka.broker.partitions.checkpoints import RECOVERY_POINTS, OffsetCheckpoint
from raykafka.log import Log
from raykafka.types import TopicPartition
from tests.lab.hosts.power_cut import cut_logs
from tests.lab.log_parts import NOW_MS, batch, crash, idempotent, open_log, read_all, stored_bytes, unhurried

TP = TopicPartition("t", 0)
SMALL = {"segment.bytes": "1500", "index.interval.bytes": "200"}


def written_log(data_dir: Path, batches: int, flushed: int | None) -> Log:
    """``batches`` of one to three records, the first ``flushed`` of them flushed and noted in the checkpoint."""
    log = open_log(data_dir / "t-0", SMALL)
    for number in range(batches):
        if number == flushed:
            log.flush()
        log.append_as_leader(batch(number % 3 + 1, time_ms=NOW_MS + number), number // 20, NOW_MS)
    if flushed == batches:
        log.flush()
    OffsetCheckpoint(data_dir, RECOVERY_POINTS).write({TP: log.recovery_point} if flushed is not None else {})
    return log


@unhurried
@given(batches=st.integers(1, 60), flushed_share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_a_cut_log_is_a_prefix_with_all_that_was_flushed(tmp_path_factory, batches, flushed_share, seed):
    data_dir = tmp_path_factory.mktemp("broker")
    log = written_log(data_dir, batches, int(batches * flushed_share))
    whole, records, flushed = stored_bytes(log), list(read_all(log)), log.recovery_point
    crash(log)
    cut = cut_logs(data_dir, [TP], random.Random(seed))[TP]
    assert cut.flushed_offset == flushed
    assert 0 <= cut.lost_bytes <= cut.unflushed_bytes <= len(whole)
    log = open_log(data_dir / "t-0", SMALL, recovery_point=flushed)
    kept = stored_bytes(log)
    assert whole.startswith(kept)
    assert list(read_all(log)) == records[: log.log_end_offset]
    assert flushed <= log.log_end_offset
    log.append_as_leader(batch(2), 9, NOW_MS)
    assert [record.offset for record in read_all(log)] == list(range(log.log_end_offset))
    log.close()


def test_cuts_reach_from_the_flushed_end_to_the_last_byte_and_tear_batches(tmp_path):
    lost, torn = set(), 0
    for seed in range(120):
        data_dir = tmp_path / str(seed)
        data_dir.mkdir()
        crash(written_log(data_dir, 4, 2))
        cut = cut_logs(data_dir, [TP], random.Random(seed))[TP]
        lost.add(cut.lost_bytes)
        log = open_log(data_dir / "t-0", SMALL, recovery_point=cut.flushed_offset)
        torn += log.recovered_bytes_cut > 0
        log.close()
    assert min(lost) < 20
    assert cut.unflushed_bytes - 20 < max(lost) <= cut.unflushed_bytes
    assert torn > 60


def test_nothing_flushed_may_lose_everything_and_all_flushed_loses_nothing(tmp_path):
    crash(written_log(tmp_path, 10, None))
    assert cut_logs(tmp_path, [TP], random.Random(1))[TP].flushed_offset == 0
    whole = tmp_path / "whole"
    whole.mkdir()
    log = written_log(whole, 10, 10)
    before = stored_bytes(log)
    crash(log)
    assert cut_logs(whole, [TP], random.Random(1))[TP].unflushed_bytes == 0
    assert stored_bytes(log) == before


def test_a_sealed_log_and_those_not_named_are_left_alone(tmp_path):
    written_log(tmp_path, 5, None).close({"high_watermark": 5})
    other = open_log(tmp_path / "u-3", SMALL)
    other.append_as_leader(batch(5), 0, NOW_MS)
    crash(other)
    files = {path: path.read_bytes() for path in tmp_path.glob("*-*/*")}
    assert cut_logs(tmp_path, [TP, TopicPartition("not-here", 1)], random.Random(2)) == {}
    assert {path: path.read_bytes() for path in tmp_path.glob("*-*/*")} == files


def test_the_mark_of_a_clean_stop_goes(tmp_path):
    directory = DataDirectory(tmp_path)
    directory.leave_clean_shutdown_mark(4)
    cut_logs(tmp_path, [], random.Random(3))
    assert directory.clean_shutdown_epoch() is None


def test_producer_state_follows_from_what_is_left(tmp_path):
    """The snapshots of a cut log are torn as well; a producer's next batch fits, an earlier one is known."""
    for seed in range(30):
        data_dir = tmp_path / str(seed)
        data_dir.mkdir()
        log = open_log(data_dir / "t-0", SMALL)
        for sequence in range(40):
            log.append_as_leader(idempotent(sequence), 0, NOW_MS)
        crash(log)
        cut_logs(data_dir, [TP], random.Random(seed))
        log = open_log(data_dir / "t-0", SMALL)
        log.append_as_leader(idempotent(log.log_end_offset), 0, NOW_MS)
        log.close()
