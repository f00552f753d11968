"""The data directory: its lock, its identity, its clean-shutdown mark, and who is ended when a broker starts on it."""

import subprocess
import sys
from pathlib import Path

import pytest

from raykafka.broker.identity import META_PROPERTIES, DataDirectory, IdentityError
from raykafka.broker.partitions.checkpoints import HIGH_WATERMARKS, CheckpointError, OffsetCheckpoint
from raykafka.types import TopicPartition
from tests.lab.log_parts import files_limited_to

HOLD_LOCK = """
import sys, time
from pathlib import Path
from raykafka.log.lock import DirectoryLock
Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
lock = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def _holder(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD_LOCK, str(directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_directory_keeps_its_identity(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path).identify("cluster-a", 3)
    assert DataDirectory(tmp_path).identify("cluster-a", 3) == first
    lines = (tmp_path / META_PROPERTIES).read_text().splitlines()
    assert {"version=0", "cluster.id=cluster-a", "broker.id=3", f"directory.id={first.directory_id}"} <= set(lines)


def test_a_lock_that_a_full_disk_refused_is_free(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    with files_limited_to(0), pytest.raises(OSError):
        directory.lock(0.0)
    directory.lock(0.0)
    directory.release()


def test_a_directory_written_by_kafka_without_a_directory_id_gets_one(tmp_path: Path) -> None:
    (tmp_path / META_PROPERTIES).write_text("#\n#Sun Nov 22\ncluster.id=c\nversion=0\nbroker.id=1\n")
    made = DataDirectory(tmp_path).identify("c", 1)
    assert len(made.directory_id) == 22
    assert DataDirectory(tmp_path).identify("c", 1) == made


@pytest.mark.parametrize(("cluster", "broker", "named"), [("other", 3, "cluster id"), ("cluster-a", 4, "broker 3's")])
def test_a_directory_of_another_broker_or_cluster_is_refused(
    tmp_path: Path, cluster: str, broker: int, named: str
) -> None:
    before = DataDirectory(tmp_path).identify("cluster-a", 3)
    with pytest.raises(IdentityError, match=named):
        DataDirectory(tmp_path).identify(cluster, broker)
    assert DataDirectory(tmp_path).identify("cluster-a", 3) == before


def test_a_directory_of_a_later_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / META_PROPERTIES).write_text("version=1\nnode.id=3\ncluster.id=c\n")
    with pytest.raises(IdentityError, match="format version 1"):
        DataDirectory(tmp_path).identify("c", 3)


def test_the_clean_shutdown_mark_names_the_life_that_left_it_and_stays_until_the_next_has_begun(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    assert directory.clean_shutdown_epoch() is None
    directory.leave_clean_shutdown_mark(7)
    assert directory.clean_shutdown_epoch() == directory.clean_shutdown_epoch() == 7
    directory.remove_clean_shutdown_mark()
    directory.remove_clean_shutdown_mark()
    assert directory.clean_shutdown_epoch() is None


@pytest.mark.parametrize("content", ["", "7", "[]", '{"version": 0}', '{"brokerEpoch": "x"}', "{"])
def test_a_mark_that_is_none_is_no_mark(tmp_path: Path, content: str) -> None:
    (tmp_path / ".kafka_cleanshutdown").write_text(content)
    assert DataDirectory(tmp_path).clean_shutdown_epoch() is None


def test_a_directory_in_use_is_refused_by_name_and_free_once_its_holder_is_dead(tmp_path: Path) -> None:
    holder = _holder(tmp_path)
    try:
        with pytest.raises(IdentityError, match=str(holder.pid)):
            DataDirectory(tmp_path).lock(0.1)
    finally:
        holder.kill()
        holder.wait()
    directory = DataDirectory(tmp_path)
    directory.lock(0.1)
    directory.release()


def test_processes_that_still_write_partitions_are_ended(tmp_path: Path) -> None:
    holders = [_holder(tmp_path / "flights-0"), _holder(tmp_path / "flights-1")]
    (tmp_path / "flights-2").mkdir()
    directory = DataDirectory(tmp_path)
    directory.lock(0.1)
    try:
        assert directory.end_orphans(10) == sorted(h.pid for h in holders)
        assert [h.wait(10) for h in holders] == [-9, -9]
        assert directory.end_orphans(10) == []
    finally:
        directory.release()
        for holder in holders:
            holder.kill()


def test_checkpoints_are_kafkas_and_survive_reading_back(tmp_path: Path) -> None:
    file = OffsetCheckpoint(tmp_path, HIGH_WATERMARKS)
    assert file.read() == {}
    entries = {TopicPartition("flights", 1): 42, TopicPartition("flights", 0): 7, TopicPartition("a.b_c-d", 0): 0}
    file.write(entries)
    assert (tmp_path / HIGH_WATERMARKS).read_text() == "0\n3\na.b_c-d 0 0\nflights 0 7\nflights 1 42\n"
    assert file.read() == entries


@pytest.mark.parametrize("text", ["", "0\n", "1\n0\n", "0\n2\na 0 1\n", "0\n1\na 0\n", "0\n1\na x 1\n"])
def test_a_malformed_checkpoint_says_which_file_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / HIGH_WATERMARKS).write_text(text)
    with pytest.raises(CheckpointError, match=HIGH_WATERMARKS):
        OffsetCheckpoint(tmp_path, HIGH_WATERMARKS).read()
