"""Kafka's own DumpLogSegments reads every file that a log writes, and finds nothing wrong."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from raykafka.log.batch import Record, build_batch, iter_batches
from raykafka.log.producers import REMEMBERED_BATCHES
from tests.lab.log_parts import NOW_MS, crash, open_log
from tests.lab.peer.kafka import VERSIONS, run_tool

CONFIG = {"segment.bytes": "120000", "index.interval.bytes": "4096"}


STATES = ("running", "closed", "recovered", "cut")


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Partitions of several segments, with all codecs, random times, idempotent and plain batches, three epochs."""
    return [write_partition(tmp_path_factory.mktemp(state) / "dumped-0", state) for state in STATES]


def write_partition(directory: Path, state: str) -> Path:
    log, rng, sequence = open_log(directory, CONFIG), random.Random(7), 0
    for number in range(240):
        count = rng.randrange(1, 30)
        records = [
            Record(b"k%d" % i, rng.randbytes(rng.randrange(300)), NOW_MS + rng.randrange(100_000), [("h", b"v")])
            for i in range(count)
        ]
        producer: dict[str, Any] = (
            {"producer_id": 9, "producer_epoch": 0, "base_sequence": sequence} if number % 2 else {}
        )
        sequence += count if number % 2 else 0
        log.append_as_leader(memoryview(build_batch(records, codec=number % 5, **producer)), number // 80, NOW_MS)
    assert len(log.segments) > 3
    if state == "closed":
        log.close()
    elif state == "recovered":
        crash(log)
        for index in directory.glob("*index"):
            index.unlink()
        with (directory / f"{log.segments[-1]:020d}.log").open("ab") as tail:
            tail.write(b"\1" * 500)
        open_log(directory, CONFIG).close()
    elif state == "cut":
        log.truncate_to(log.segments[-2] + 100)
        log.append_as_leader(memoryview(build_batch([Record(b"k", b"v", NOW_MS)])), 3, NOW_MS)
        log.close()
    return directory


def dump(version: str, directories: list[Path], pattern: str, *options: str) -> tuple[list[Path], str]:
    files = [file for directory in directories for file in sorted(directory.glob(pattern))]
    assert files
    done = run_tool("kafka-dump-log", *options, "--files", ",".join(map(str, files)), version=version)
    return files, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_every_record_is_read_and_valid(directories, version):
    files, text = dump(version, directories, "*.log", "--deep-iteration")
    assert "isvalid: false" not in text
    assert "out of order" not in text
    stored = [
        offset
        for file in files
        for _, header in iter_batches(file.read_bytes())
        for offset in range(header.base_offset, header.last_offset + 1)
    ]
    assert [int(offset) for offset in re.findall(r"^\| offset: (\d+) CreateTime", text, re.MULTILINE)] == stored
    assert stored.count(0) == len(directories)


def test_indexes_agree_with_their_segments(directories):
    _, text = dump(VERSIONS[0], directories, "*index")
    for complaint in ("Found timestamp mismatch", "Found out of order", "Mismatches in", "is not found", "mismatch"):
        assert complaint not in text
    assert len(re.findall(r"^offset: \d+ position: \d+", text, re.MULTILINE)) > 200
    assert len(re.findall(r"^timestamp: \d+ offset: \d+", text, re.MULTILINE)) > 20


def test_indexes_pass_kafkas_sanity_check(directories):
    files, text = dump(VERSIONS[0], directories, "*index", "--index-sanity-check")
    for file in files:  # an index whose first entries are still held back is empty
        assert f"{file} passed sanity check" in text or (f"{file} is empty" in text and not file.stat().st_size)


def test_producer_snapshots_are_read(directories):
    """An entry for each batch that may be sent again, the last one last: by that one Kafka goes."""
    files, text = dump(VERSIONS[0], directories, "*.snapshot")
    assert text.count("producerId: 9 producerEpoch: 0") == REMEMBERED_BATCHES * len(files)
    for shown in text.split("Dumping ")[1:]:
        offsets = [int(offset) for offset in re.findall(r"lastOffset: (\d+)", shown)]
        assert offsets == sorted(offsets)
