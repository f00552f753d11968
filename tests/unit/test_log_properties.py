"""A log against a list: whatever is done to it, it holds what a list of batches would hold, also after a crash."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from raykafka.log.batch import Record, build_batch, iter_batches
from raykafka.log.lock import LOCK_FILE
from raykafka.types import LogPosition
from tests.lab.log_parts import NOW_MS, batch, crash, open_files, open_log, read_all, reader_of, unhurried

CONFIG = {"segment.bytes": "1200", "index.interval.bytes": "150", "file.delete.delay.ms": "0", "retention.ms": "-1"}
TORN = bytes(batch(3, value_bytes=100))[:-1]  # a write that was cut short


class LogAgainstList(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.folder = tempfile.mkdtemp()
        self.directory = Path(self.folder) / "t-0"
        self.log = open_log(self.directory, CONFIG)
        self.batches: list[tuple[int, int, bytes]] = []  # (base offset, last offset, value of its records)
        self.start = self.end = 0
        self.epoch = 0
        self.counter = 0
        self.reader = reader_of(self.log)

    @rule(counts=st.lists(st.integers(1, 4), min_size=1, max_size=5), size=st.integers(0, 200))
    def append(self, counts, size):
        for count in counts:
            self.counter += 1
            value = b"%d-" % self.counter + b"x" * size
            sent = memoryview(build_batch([Record(b"k", value, NOW_MS)] * count))
            info = self.log.append_as_leader(sent, self.epoch, NOW_MS)
            assert info.base_offset == self.end
            self.batches.append((self.end, self.end + count - 1, value))
            self.end += count

    @rule()
    def new_epoch(self):
        self.epoch += 1
        self.log.epochs.assign(self.epoch, self.log.log_end_offset)

    @rule()
    def roll(self):
        self.log.roll(NOW_MS)

    @rule()
    def flush(self):
        self.log.flush()
        assert self.log.recovery_point == self.end

    @rule(share=st.floats(0, 1.1))
    def truncate(self, share):
        offset = int(self.start + share * (self.end - self.start))
        self.log.truncate_to(offset)
        self.batches = [b for b in self.batches if b[1] < offset]
        if offset < self.end:
            self.end = self.log.log_end_offset
            assert self.end == (self.batches[-1][1] + 1 if self.batches else self.log.segments[0])
            self.start = min(self.start, self.end)

    @rule(gap=st.integers(0, 50))
    def start_again(self, gap):
        self.start = self.end = self.end + gap
        self.log.truncate_fully(self.end)
        self.batches = []

    @rule(share=st.floats(0, 1))
    def advance_start(self, share):
        self.start = max(self.start, int(self.start + share * (self.end - self.start)))
        self.log.advance_log_start(self.start)
        self.log.expire(NOW_MS, self.end)
        self.log.purge(NOW_MS)
        assert len(self.log.segments) < 2 or self.log.segments[1] > self.start

    @rule(how=st.sampled_from(("closed", "closed unflushed", "crashed")), torn=st.integers(0, len(TORN)))
    def restart(self, how, torn):
        flushed = self.log.recovery_point
        if how != "crashed":
            self.log.close(flush=how == "closed")
            assert self.log.recovery_point == (self.end if how == "closed" else flushed)
        else:
            crash(self.log)
            files = sorted(self.directory.glob("*.log"))
            torn = torn if files else 0
            for last in files[-1:]:
                with last.open("ab") as tail:
                    tail.write(TORN[:torn])
        self.log = open_log(
            self.directory,
            CONFIG,
            recovery_point=self.log.recovery_point,
            clean=how != "crashed",
            log_start_offset=self.start,
        )
        self.reader = reader_of(self.log)
        assert self.log.recovered_bytes_cut == (torn if how == "crashed" else 0)
        assert (self.log.note is None) == (how == "crashed")
        assert open_files(self.directory) == [LOCK_FILE]
        if how == "closed unflushed":
            assert self.log.recovery_point == max(flushed, self.log.segments[0])

    @rule(flush=st.booleans())
    def idle(self, flush):
        """What is let go of is opened again, for appends as for look-ups."""
        for _ in range(2):
            self.log.rest()
            self.reader.rest()
        if flush:
            self.log.flush()
        assert not self.log.rest() or not flush
        if flush:
            assert open_files(self.directory) == [LOCK_FILE]

    @invariant()
    def it_holds_what_the_list_holds(self):
        log = self.log
        assert (log.log_start_offset, log.log_end_offset) == (self.start, self.end)
        expected = [(offset, value) for first, last, value in self.batches for offset in range(first, last + 1)]
        found = [(r.offset, r.value) for r in read_all(log, self.start, max_bytes=700)]
        assert found == [pair for pair in expected if pair[0] >= self.start]

    @invariant()
    def positions_go_up_with_offsets(self):
        self.log._boundaries.clear()
        positions = [self.log.position_of(offset) for offset in range(self.log.segments[0], self.end + 1)]
        assert positions == sorted(positions)
        assert positions[0] == LogPosition(self.log.segments[0], 0)

    @invariant()
    def the_long_lived_reader_agrees(self):
        self.reader.update(self.log.segments, self.log.truncations)
        end = self.log.position_of(self.end)
        offset, offsets = self.start, list[int]()
        while found := self.reader.read(offset, 500, end, end_offset=self.end):
            for _, header in iter_batches(self.reader.fetch_bytes(found)):
                offsets += range(max(header.base_offset, self.start), header.last_offset + 1)
            offset = offsets[-1] + 1
        assert offsets == list(range(self.start, self.end))

    def teardown(self):
        if hasattr(self, "log"):
            self.log.close()
            shutil.rmtree(self.folder)


TestLogAgainstList = LogAgainstList.TestCase
TestLogAgainstList.settings = settings(unhurried, max_examples=60, stateful_step_count=25)
