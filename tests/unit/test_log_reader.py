"""Reading beside the writer: whole batches, the right offsets by time and epoch, and never past the given end."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log import LogReader, WouldBlock
from raykafka.log.batch import Record, build_batch, iter_batches
from raykafka.types import LogPosition
from tests.lab.log_parts import NOW_MS, batch, crash, open_log, read_all, reader_of, unhurried

CONFIG = {"segment.bytes": "3000", "index.interval.bytes": "200"}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """200 batches of 1-5 records of very different sizes in some ten segments; closed to writes by no one."""
    written = open_log(tmp_path_factory.mktemp("reader") / "t-0", CONFIG)
    for number in range(200):
        written.append_as_leader(batch(number % 5 + 1, value_bytes=number * 7 % 150), number // 40, NOW_MS)
    assert len(written.segments) > 8
    yield written
    written.close()


@pytest.fixture(scope="module")
def batches(log):
    """(base offset, last offset, position, size) of every batch, from the files alone."""
    found = []
    for base in log.segments:
        data = (log.directory / f"{base:020d}.log").read_bytes()
        for position, header in iter_batches(data):
            found.append((header.base_offset, header.last_offset, LogPosition(base, position), header.size))
    return found


@pytest.fixture(scope="module")
def shared(log):
    """A reader that many read through, with full caches."""
    return reader_of(log)


@settings(unhurried, max_examples=200)
@given(data=st.data())
def test_a_range_is_what_the_rules_say(log, batches, shared, data):
    offset = data.draw(st.integers(0, log.log_end_offset))
    end_offset = data.draw(st.sampled_from([first for first, *_ in batches] + [log.log_end_offset]))
    max_bytes = data.draw(st.integers(0, 4000))
    min_one = data.draw(st.booleans())
    end = log.position_of(end_offset)
    reader = shared if data.draw(st.booleans()) else reader_of(log)
    known = data.draw(st.sampled_from([-1, end_offset]))

    wanted = [b for b in batches if b[1] >= offset and b[1] < end_offset]
    wanted = [b for b in wanted if b[2].segment == wanted[0][2].segment]
    size, fitting = 0, 0
    for *_, batch_size in wanted:
        if size + batch_size > max_bytes and not (size == 0 and min_one):
            break
        size, fitting = size + batch_size, fitting + 1
        if size > max_bytes:
            break
    found = reader.read(offset, max_bytes, end, min_one_batch=min_one, end_offset=known)
    if fitting == 0:
        assert found is None
    else:
        assert found is not None
        assert (found.files.base_offset, found.position, found.length) == (*wanted[0][2], size)
        headers = [header for _, header in iter_batches(reader.fetch_bytes(found))]
        assert [h.base_offset for h in headers] == [b[0] for b in wanted[:fitting]]


@pytest.mark.parametrize("max_bytes", [1, 300, 1000, 100_000])
def test_a_sequential_reader_sees_every_record_once(log, max_bytes):
    assert [record.offset for record in read_all(log, max_bytes=max_bytes)] == list(range(log.log_end_offset))
    assert [record.offset for record in read_all(log, start=123, max_bytes=max_bytes)] == list(
        range(123, log.log_end_offset)
    )


def searches_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What readers search for from now on."""
    searches: list[tuple[Any, ...]] = []
    locate = LogReader._locate

    def noted(reader: LogReader, *args: Any) -> Any:
        searches.append(args)
        return locate(reader, *args)

    monkeypatch.setattr(LogReader, "_locate", noted)
    return searches


def test_sequential_readers_do_not_search(log, monkeypatch):
    reader, end = reader_of(log), log.position_of(log.log_end_offset)
    searches = searches_of(monkeypatch)
    offset, ranges = 0, 0
    while found := reader.read(offset, 700, end, end_offset=log.log_end_offset):
        headers = [header for _, header in iter_batches(reader.fetch_bytes(found))]
        offset, ranges = headers[-1].last_offset + 1, ranges + 1
    assert offset == log.log_end_offset
    assert ranges > 40
    assert len(searches) <= len(log.segments), "only the first read in a segment may search"


def test_before_the_first_segment_is_out_of_range(tmp_path):
    log = open_log(tmp_path / "t-0", log_start_offset=100)
    log.append_as_leader(batch(3), 0, NOW_MS)
    with pytest.raises(KafkaError) as refused:
        reader_of(log).read(99, 1000, log.position_of(103))
    assert refused.value.code == ErrorCode.OFFSET_OUT_OF_RANGE
    log.close()


def test_a_reader_follows_a_log_that_grows_without_a_search(tmp_path, monkeypatch):
    log = open_log(tmp_path / "t-0", CONFIG)
    reader = reader_of(log)
    searches = searches_of(monkeypatch)
    offset = 0
    for number in range(120):
        log.append_as_leader(batch(number % 4 + 1, value_bytes=number % 90), 0, NOW_MS)
        reader.update(log.segments, log.truncations)
        end = log.position_of(log.log_end_offset)
        while found := reader.read(offset, 500, end, end_offset=log.log_end_offset):
            headers = [header for _, header in iter_batches(reader.fetch_bytes(found))]
            assert headers[0].base_offset == offset
            offset = headers[-1].last_offset + 1
        assert offset == log.log_end_offset
    assert len(log.segments) > 3
    assert len(searches) == 1
    log.close()


def test_a_cold_page_would_block(log, monkeypatch):
    reader, end = reader_of(log), log.position_of(log.log_end_offset)
    found = reader.read(0, 1000, end)
    assert found is not None
    real = os.preadv
    for failure in (BlockingIOError(errno.EAGAIN, "cold"), OSError(errno.EOPNOTSUPP, "not here")):

        def cold(fd, buffers, position, flags=0, failure=failure):
            if flags & os.RWF_NOWAIT:
                raise failure
            return real(fd, buffers, position, flags)

        monkeypatch.setattr(os, "preadv", cold)
        with pytest.raises(WouldBlock):
            reader.fetch_bytes(found, nowait=True)
        with pytest.raises(WouldBlock):
            reader_of(log).read(50, 1000, end, nowait=True)
        assert len(reader.fetch_bytes(found)) == found.length


def test_half_a_page_in_memory_would_block_too(log, monkeypatch):
    reader = reader_of(log)
    found = reader.read(0, 1000, log.position_of(log.log_end_offset))
    assert found is not None
    real, calls = os.preadv, []

    def first_half_only(fd, buffers, position, flags=0):
        calls.append(position)
        if len(calls) > 1:
            raise BlockingIOError(errno.EAGAIN, "cold")
        return real(fd, [buffers[0][: found.length // 2]], position, flags)

    monkeypatch.setattr(os, "preadv", first_half_only)
    with pytest.raises(WouldBlock):
        reader.fetch_bytes(found, nowait=True)


def test_a_range_stays_readable_when_the_reader_lets_go(log):
    reader, end = reader_of(log), log.position_of(log.log_end_offset)
    found = reader.read(0, 1000, end)
    assert found is not None
    reader.close()
    assert len(os.pread(found.fd, found.length, found.position)) == found.length


def test_few_files_are_open_at_once(tmp_path):
    log = open_log(tmp_path / "t-0", {"segment.bytes": "300"})
    for _ in range(100):
        log.append_as_leader(batch(2), 0, NOW_MS)
    assert len(log.segments) >= 50
    reader, end = reader_of(log), log.position_of(200)
    before = len(os.listdir("/proc/self/fd"))
    for offset in range(0, 200, 2):
        assert reader.read(offset, 100, end) is not None
    assert len(os.listdir("/proc/self/fd")) - before <= 16 * 3
    log.close()


# offsets by time

times = st.lists(
    st.lists(st.integers(-1, 60).map(lambda t: NOW_MS + t if t >= 0 else -1), min_size=1, max_size=4),
    min_size=1,
    max_size=40,
)


@settings(unhurried, max_examples=60)
@given(
    batches=times,
    append_time=st.booleans(),
    queries=st.lists(st.integers(-2, 62), min_size=5, max_size=10),
    start_share=st.floats(0, 1),
    end_share=st.floats(0, 1),
    cut_share=st.none() | st.floats(0, 1),
    stop=st.sampled_from(["", "crash", "close"]),
)
def test_offsets_by_time_agree_with_a_list_of_every_record(
    tmp_path_factory, batches, append_time, queries, start_share, end_share, cut_share, stop
):
    config = {"segment.bytes": "600", "index.interval.bytes": "150", "message.timestamp.after.max.ms": str(10**15)}
    if append_time:
        config["message.timestamp.type"] = "LogAppendTime"
    directory = tmp_path_factory.mktemp("times") / "t-0"
    log = open_log(directory, config)
    records: list[tuple[int, int, int]] = []  # (timestamp, offset, epoch) of all
    ends = [0]

    def write(stamps, number):
        sent = build_batch([Record(b"k", b"v" * 30, stamp) for stamp in stamps], codec=number % 5)
        now_ms = NOW_MS + number
        base = log.append_as_leader(memoryview(sent), number // 10, now_ms).base_offset
        records.extend((now_ms if append_time else t, base + i, number // 10) for i, t in enumerate(stamps))
        ends.append(log.log_end_offset)

    for number, stamps in enumerate(batches):
        write(stamps, number)
    if cut_share is not None:
        kept = int(cut_share * (len(ends) - 1))
        log.truncate_to(ends[kept])
        records, ends = records[: ends[kept]], ends[: kept + 1]
        for number, stamps in enumerate(reversed(batches), len(batches)):
            write(stamps, number)
    if stop:
        crash(log) if stop == "crash" else log.close()
        log = open_log(directory, config, clean=stop == "close")
    start = int(start_share * log.log_end_offset)
    end_offset = ends[int(end_share * (len(ends) - 1))]
    end = log.position_of(end_offset)
    reader = reader_of(log)
    visible = [record for record in records if start <= record[1] < end_offset]
    for query in queries:
        expected = next((r for r in visible if r[0] >= NOW_MS + query), None)
        assert reader.offset_for_timestamp(NOW_MS + query, end, start) == expected
    assert reader.offset_for_timestamp(0, end, start) == next((r for r in visible if r[0] >= 0), None)
    newest = max((record[0] for record in visible), default=-1)
    expected = next((r for r in visible if r[0] == newest), None) if newest >= 0 else None
    assert reader.offset_of_max_timestamp(end, start) == expected
    log.close()


def test_epochs_are_read_from_the_file(log):
    reader = reader_of(log)
    for epoch in range(-1, 7):
        assert reader.epoch_end_offset(epoch, log.log_end_offset) == log.epochs.history.end_offset_for(
            epoch, log.log_end_offset
        )
