"""Kafka's own DumpLogSegments reads every file that a log writes, and finds nothing wrong."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from kafka_peer import VERSIONS, run_tool

from raykafka.log.batch import Record, build_batch, iter_batches
from tests.unit.log_parts import NOW_MS, crash, open_log

CONFIG = {"segment.bytes": "120000", "index.interval.bytes": "4096"}


@pytest.fixture(scope="module", params=["running", "closed", "recovered", "cut"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A partition of several segments: all codecs, random times, idempotent and plain batches, three epochs."""
    directory = tmp_path_factory.mktemp(request.param) / "dumped-0"
    log, rng, sequence = open_log(directory, CONFIG), random.Random(7), 0
    for number in range(240):
        count = rng.randrange(1, 30)
        records = [
            Record(b"k%d" % i, rng.randbytes(rng.randrange(300)), NOW_MS + rng.randrange(100_000), [("h", b"v")])
            for i in range(count)
        ]
        producer = {"producer_id": 9, "producer_epoch": 0, "base_sequence": sequence} if number % 2 else {}
        sequence += count if number % 2 else 0
        log.append_as_leader(memoryview(build_batch(records, codec=number % 5, **producer)), number // 80, NOW_MS)
    assert len(log.segments) > 3
    if request.param == "closed":
        log.close()
    elif request.param == "recovered":
        crash(log)
        for index in directory.glob("*index"):
            index.unlink()
        with (directory / f"{log.segments[-1]:020d}.log").open("ab") as tail:
            tail.write(b"\1" * 500)
        open_log(directory, CONFIG).close()
    elif request.param == "cut":
        log.truncate_to(log.segments[-2] + 100)
        log.append_as_leader(memoryview(build_batch([Record(b"k", b"v", NOW_MS)])), 3, NOW_MS)
        log.close()
    return directory


def dump(version: str, files: list[Path], *options: str) -> str:
    assert files
    done = run_tool("kafka-dump-log", *options, "--files", ",".join(map(str, files)), version=version)
    return done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_every_record_is_read_and_valid(directory, version):
    text = dump(version, sorted(directory.glob("*.log")), "--deep-iteration")
    assert "isvalid: false" not in text
    assert "out of order" not in text
    dumped = [int(offset) for offset in re.findall(r"^\| offset: (\d+) CreateTime", text, re.MULTILINE)]
    stored = [
        offset
        for segment in sorted(directory.glob("*.log"))
        for _, header in iter_batches(segment.read_bytes())
        for offset in range(header.base_offset, header.last_offset + 1)
    ]
    assert dumped == stored == list(range(len(stored)))


@pytest.mark.parametrize("version", VERSIONS)
def test_indexes_agree_with_their_segments(directory, version):
    files = sorted(directory.glob("*index"))
    text = dump(version, files)
    for complaint in ("Found timestamp mismatch", "Found out of order", "Mismatches in", "is not found", "mismatch"):
        assert complaint not in text
    assert len(re.findall(r"^offset: \d+ position: \d+", text, re.MULTILINE)) > 50
    assert len(re.findall(r"^timestamp: \d+ offset: \d+", text, re.MULTILINE)) > 5
    sanity = dump(version, files, "--index-sanity-check")
    for file in files:  # an index whose first entries are still held back is empty
        assert f"{file} passed sanity check" in sanity or (f"{file} is empty" in sanity and not file.stat().st_size)


def test_producer_snapshots_are_read(directory):
    text = dump(VERSIONS[0], sorted(directory.glob("*.snapshot")))
    assert "producerId: 9 producerEpoch: 0" in text
