"""The check of a run: what clients saw against what is stored. Pure; docs/chaos.md states the model."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from tests.lab.chaos.history import (
    WRITERS,
    Acked,
    Assigned,
    Committed,
    Event,
    Failed,
    Fault,
    Latest,
    Read,
    Refused,
    Sent,
    Writer,
)
from tests.lab.chaos.stored import StoredRecord

GROUP = "group"
# A leader that was deposed acknowledges acks=1 until its lease has run out, and a client may note that late.
LATE_S = 15.0
BEFORE_S = 0.5


class Violation(StrEnum):
    LOST = "lost"  # acknowledged, and not there any more
    MOVED = "moved"  # acknowledged at one offset, and only found at another
    DUPLICATED = "duplicated"  # of an idempotent writer, there twice
    REORDERED = "reordered"  # of an idempotent writer, not in the order of sending
    PHANTOM = "phantom"  # there, and nobody sent it, or not to that partition
    CHANGED = "changed"  # a reader got something else at that offset
    SKIPPED = "skipped"  # a reader was not given an offset, or a member of the group never was
    WENT_BACK = "went back"  # the latest offset, or what the group had committed
    DIVERGED = "diverged"  # replicas that are not the same below the high watermark
    REFUSED = "refused"  # an error that clients can't retry


class Election(NamedTuple):
    """A leader epoch of a partition began: ``start`` is where the log of its leader ended."""

    epoch: int
    start: int
    at: float
    unclean: bool


class Gap(NamedTuple):
    """The longest time for which a partition acknowledged nothing to the idempotent writers around a fault."""

    fault: Fault
    seconds: float
    partition: int


@dataclass
class Partition:
    """What is stored of a partition at the end, who led it, and where its replicas differ."""

    records: Sequence[StoredRecord]
    elections: Sequence[Election] = ()
    differences: Sequence[str] = ()


@dataclass
class Verdict:
    violations: dict[Violation, list[str]] = field(default_factory=lambda: defaultdict(list))
    sent: int = 0
    acknowledged: int = 0
    given_up: int = 0
    stored: int = 0
    read: int = 0
    # what the rules allow, and happened: acknowledged records that were lost, by writer; records that are there again
    allowed_losses: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    allowed_changes: list[str] = field(default_factory=list)  # and what clients say of them
    repeated: int = 0
    elections: int = 0
    unclean_elections: int = 0
    gaps: list[Gap] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not any(self.violations.values())

    def count(self, violation: Violation) -> int:
        return len(self.violations.get(violation, ()))


def check(history: Iterable[Event], partitions: Mapping[int, Partition]) -> Verdict:
    """Hold what clients saw against what is stored."""
    check = _Check(list(history), partitions)
    check.run()
    return check.verdict


class _Check:
    def __init__(self, history: list[Event], partitions: Mapping[int, Partition]) -> None:
        self.verdict = Verdict()
        self.partitions = partitions
        self.by_kind: dict[type, list] = defaultdict(list)
        for event in history:
            self.by_kind[type(event)].append(event)
        self.sent: dict[tuple[str, int], Sent] = {(e.writer, e.number): e for e in self.by_kind[Sent]}
        # offset -> record, and who -> the places where it is
        self.at = {p: {record.offset: record for record in part.records} for p, part in partitions.items()}
        self.places: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        for p, part in partitions.items():
            for record in part.records:
                if record.who is not None:
                    self.places[record.who].append((p, record.offset))

    def run(self) -> None:
        verdict = self.verdict
        verdict.sent = len(self.sent)
        verdict.acknowledged = len(self.by_kind[Acked])
        verdict.given_up = len(self.by_kind[Failed])
        verdict.stored = sum(len(part.records) for part in self.partitions.values())
        verdict.read = len(self.by_kind[Read])
        elections = [election for part in self.partitions.values() for election in part.elections]
        verdict.elections = len(elections)
        verdict.unclean_elections = sum(election.unclean for election in elections)
        self.check_acknowledged()
        self.check_stored()
        self.check_order()
        self.check_reads()
        self.check_latest()
        self.check_group()
        for p, part in sorted(self.partitions.items()):
            self.found(Violation.DIVERGED, *(f"partition {p}: {line}" for line in part.differences))
        self.check_refused()
        verdict.gaps = gaps(self.by_kind[Fault], self.by_kind[Acked])

    def found(self, violation: Violation, *lines: str) -> None:
        self.verdict.violations[violation].extend(lines)

    def _excused(self, partition: int, offset: int, at: float, *, unclean: bool) -> Election | None:
        """The election by which a record that was at ``offset`` at the moment ``at`` may have been lost: its leader's
        log ended before, and it was not over long before. Only an unclean one where ``unclean`` says so."""
        if offset < 0:  # it is not known how far on it was
            offset = max((election.start for election in self.partitions[partition].elections), default=offset)
        for election in self.partitions[partition].elections:
            if (election.unclean or not unclean) and election.start <= offset and at <= election.at + LATE_S:
                return election
        return None

    def _unclean_between(self, partition: int, since: float, until: float) -> bool:
        """Whether records may have been lost in that time."""
        elections = self.partitions[partition].elections
        return any(election.unclean and since - LATE_S <= election.at <= until for election in elections)

    def check_refused(self) -> None:
        """A client that meets a log from which records were lost says so: that is what it should do then."""
        for e in self.by_kind[Refused]:
            line = f"{e.client}: {e.error}"
            if any(self._unclean_between(p, 0.0, e.at) for p in self.partitions):
                self.verdict.allowed_changes.append(line)
            else:
                self.found(Violation.REFUSED, line)

    # writers

    def check_acknowledged(self) -> None:
        for e in self.by_kind[Acked]:
            who = (e.writer, e.number)
            stored = self.at.get(e.partition, {}).get(e.offset)
            if stored is not None and stored.who == who:
                continue
            if e.offset < 0 and who in self.places:
                continue
            where = f"{e.writer} {e.number}, acknowledged at {e.partition}-{e.offset} at {e.at:.3f}"
            election = self._excused(e.partition, e.offset, e.at, unclean=WRITERS[e.writer].kept)
            if election is not None:
                kind = "unclean election" if election.unclean else "election"
                self.verdict.allowed_losses[e.writer].append(f"{where}: {kind} of epoch {election.epoch}")
            elif who in self.places:
                self.found(Violation.MOVED, f"{where}: it is at {self.places[who]}")
            else:
                self.found(Violation.LOST, f"{where}: there is {stored.who if stored else 'nothing'}")

    def check_stored(self) -> None:
        for p, part in sorted(self.partitions.items()):
            for record in part.records:
                where = f"{p}-{record.offset}"
                sent = self.sent.get(record.who) if record.who is not None else None
                if sent is None:
                    self.found(Violation.PHANTOM, f"{where}: {record.who} was sent by nobody")
                elif sent.partition not in (p, -1) or sent.key != record.key:
                    self.found(Violation.PHANTOM, f"{where}: {record.who} was sent to {sent.partition} {sent.key!r}")

    def check_order(self) -> None:
        keys: dict[tuple[str, str], set[int]] = defaultdict(set)
        for p, part in sorted(self.partitions.items()):
            seen: dict[tuple[str, int], int] = {}
            newest: dict[str, int] = {}
            for record in part.records:
                writer = _writer(record)
                if writer is None or record.who is None:
                    continue
                number = record.who[1]
                if record.who in seen:
                    where = f"{writer.name} {number} is at {p}-{seen[record.who]} and {p}-{record.offset}"
                    if writer.once:
                        self.found(Violation.DUPLICATED, where)
                    else:
                        self.verdict.repeated += 1
                    continue
                seen[record.who] = record.offset
                if writer.once and number < newest.get(writer.name, -1):
                    before = newest[writer.name]
                    self.found(Violation.REORDERED, f"{writer.name} {number} at {p}-{record.offset} is after {before}")
                newest[writer.name] = number
                if writer.keyed:
                    keys[writer.name, record.key].add(p)
        for (name, key), found in sorted(keys.items()):
            if len(found) > 1:
                self.found(Violation.REORDERED, f"{name}: key {key} is in partitions {sorted(found)}")

    # readers

    def check_reads(self) -> None:
        last: dict[tuple[str, int], int] = {}
        for e in self.by_kind[Read]:
            stored = self.at.get(e.partition, {}).get(e.offset)
            if stored is None or stored.who != (e.writer, e.number):
                line = f"{e.reader} read {e.writer} {e.number} at {e.partition}-{e.offset} at {e.at:.3f}: there is "
                line += str(stored.who if stored else None)
                if self._excused(e.partition, e.offset, e.at, unclean=True):
                    self.verdict.allowed_changes.append(line)
                else:
                    self.found(Violation.CHANGED, line)
            if not e.reader.startswith(GROUP):
                expected = last.get((e.reader, e.partition), -1) + 1
                if e.offset != expected and not self._unclean_between(e.partition, 0.0, e.at):
                    self.found(Violation.SKIPPED, f"{e.reader}: {e.partition}-{e.offset} came after {expected - 1}")
                last[e.reader, e.partition] = e.offset
        watchers = {reader for reader, _ in last}
        for reader in sorted(watchers):
            for p, part in sorted(self.partitions.items()):
                end = len(part.records)
                if last.get((reader, p), -1) + 1 < end:
                    self.found(
                        Violation.SKIPPED, f"{reader}: {p} was read to {last.get((reader, p), -1)}, not to {end}"
                    )

    def check_latest(self) -> None:
        before: dict[tuple[str, int], Latest] = {}
        for e in self.by_kind[Latest]:
            last = before.get((e.observer, e.partition), e)
            if e.offset < last.offset and not self._unclean_between(e.partition, last.at, e.at):
                line = f"{e.observer}: latest of {e.partition} was {last.offset}, then {e.offset} at {e.at:.3f}"
                self.found(Violation.WENT_BACK, line)
            before[e.observer, e.partition] = e

    def check_group(self) -> None:
        """Every record reached the group, and whoever got a partition went on at what had been committed."""
        reads = [e for e in self.by_kind[Read] if e.reader.startswith(GROUP)]
        if not reads:
            return
        got = defaultdict(set)
        for e in reads:
            got[e.partition].add(e.offset)
        for p, part in sorted(self.partitions.items()):
            left_out = sorted({record.offset for record in part.records} - got[p])
            if left_out:
                self.found(Violation.SKIPPED, f"group: {len(left_out)} offsets of {p}, the first is {left_out[0]}")
        commits: dict[int, list[Committed]] = defaultdict(list)
        for commit in sorted(self.by_kind[Committed], key=lambda e: e.at):
            commits[commit.partition].append(commit)
        begun: dict[tuple[str, int], Assigned] = {}
        events = sorted([*self.by_kind[Assigned], *reads], key=lambda e: e.at)
        for event in events:
            if isinstance(event, Assigned):
                begun[event.reader, event.partition] = event
            elif (assigned := begun.pop((event.reader, event.partition), None)) is not None:
                before = [c.offset for c in commits[event.partition] if c.at < assigned.at]
                if before and event.offset < max(before) and not self._unclean_between(event.partition, 0.0, event.at):
                    line = (
                        f"{event.reader} was given {event.partition} at {assigned.at:.3f} and began at {event.offset}"
                    )
                    self.found(Violation.WENT_BACK, f"{line}, {max(before)} was committed")


def _writer(record: StoredRecord) -> Writer | None:
    return WRITERS.get(record.who[0]) if record.who is not None else None


def gaps(faults: Sequence[Fault], acknowledged: Sequence[Acked]) -> list[Gap]:
    """For each fault the longest stand-still of acknowledgements in its time: until the next one begins."""
    times: dict[int, list[float]] = defaultdict(list)
    for e in acknowledged:
        if WRITERS[e.writer].kept:
            times[e.partition].append(e.at)
    for moments in times.values():
        moments.sort()
    faults = sorted(faults, key=lambda fault: fault.began)
    found: list[Gap] = []
    ends = [*(fault.began for fault in faults), float("inf")][1:]
    for fault, end in zip(faults, ends, strict=True):
        begin = fault.began - BEFORE_S
        longest = Gap(fault, 0.0, -1)
        for partition, moments in sorted(times.items()):
            first, last = bisect_left(moments, begin), bisect_left(moments, end)
            # a silence that reaches into the next fault's time ends there, with the first acknowledgement after it
            within = moments[first : last + 1]
            for earlier, later in pairwise([begin, *within]):
                if later - earlier > longest.seconds:
                    longest = Gap(fault, later - earlier, partition)
        found.append(longest)
    return found
