"""What the tests of the log share: logs in a test's own folder, batches, and a crash."""

from __future__ import annotations

import os
import resource
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from raykafka.log import Log, LogConfig, LogReader
from raykafka.log.batch import BatchHeader, Record, build_batch, iter_batches, iter_records
from raykafka.log.seal import SEAL_FILE

TOPIC_ID = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
NOW_MS = 1_700_000_000_000

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
"""How random tests run: what they find must not depend on how busy the machine is."""


def batch(count: int = 3, *, value_bytes: int = 20, time_ms: int = NOW_MS, **fields: Any) -> memoryview:
    """A client's batch of ``count`` records, one ms apart."""
    records = [Record(b"key-%d" % i, bytes([i % 251]) * value_bytes, time_ms + i) for i in range(count)]
    return memoryview(build_batch(records, **fields))


def idempotent(sequence: int, count: int = 1, *, producer_id: int = 7, epoch: int = 0, **fields: Any) -> memoryview:
    return batch(count, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence, **fields)


def open_log(
    directory: Path,
    config: Mapping[str, str] | None = None,
    *,
    recovery_point: int = 0,
    clean: bool = False,
    log_start_offset: int = 0,
) -> Log:
    """Without ``clean``, the log opens as if its last writer had been killed."""
    if not clean:
        (directory / SEAL_FILE).unlink(missing_ok=True)
    return Log.open(
        directory,
        LogConfig.from_topic_config(config or {}),
        topic_id=TOPIC_ID,
        recovery_point=recovery_point,
        now_ms=NOW_MS,
        log_start_offset=log_start_offset,
    )


def crash(log: Log) -> None:
    """What a killed process leaves: its files as they are, the lock free, nothing written on the way out."""
    log._segments.close()
    log._lock.release()


def open_files(directory: Path) -> list[str]:
    """The files in ``directory`` that this process has open, one for each descriptor."""
    opened = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            opened.append(Path(os.readlink(f"/proc/self/fd/{fd}")))
    return [path.name for path in opened if path.parent == directory.resolve()]


def reader_of(log: Log) -> LogReader:
    """A reader that has heard of everything the log has."""
    reader = LogReader(log.directory)
    reader.update(log.segments, log.truncations)
    return reader


def stored_bytes(log: Log) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(log.directory.glob("*.log")))


def stored_headers(log: Log) -> list[BatchHeader]:
    return [header for _, header in iter_batches(stored_bytes(log))]


def read_all(log: Log, start: int | None = None, max_bytes: int = 1 << 20) -> Iterator[Record]:
    """Every record from ``start`` on, as a consumer would fetch them."""
    reader, end = reader_of(log), log.position_of(log.log_end_offset)
    offset = log.log_start_offset if start is None else start
    while (found := reader.read(offset, max_bytes, end)) is not None:
        data = reader.fetch_bytes(found)
        for position, header in iter_batches(data):
            for record in iter_records(data[position:]):
                if record.offset >= offset:
                    yield record
            offset = header.last_offset + 1


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """No file of this process can grow past ``size`` bytes: what fits is written, then it fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
