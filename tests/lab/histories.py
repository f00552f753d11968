"""A small run in which everything went well, to plant faults in."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.lab.chaos.checker import Partition, Verdict, Violation, check
from tests.lab.chaos.history import Acked, Assigned, Committed, Event, Latest, Read, Sent
from tests.lab.chaos.stored import StoredRecord

PARTITIONS = 2
PER_PARTITION = 8
WRITERS = ("idempotent", "plain", "keyed", "leader")


@dataclass
class Run:
    """Each partition holds two records of each writer; one watcher and one member of the group read them all."""

    events: list[Event] = field(default_factory=list)
    partitions: dict[int, Partition] = field(default_factory=dict)

    def verdict(self) -> Verdict:
        return check(self.events, self.partitions)

    def violations(self) -> dict[str, int]:
        """How many of each kind were found, of those that were."""
        return {str(kind): len(found) for kind, found in self.verdict().violations.items() if found}

    def stored(self, partition: int) -> list[StoredRecord]:
        records = self.partitions[partition].records
        assert isinstance(records, list)
        return records

    def remove(self, *wanted: Event) -> None:
        self.events = [event for event in self.events if event not in wanted]

    def of(self, kind: type, **values: object) -> list:
        """The events of a kind with these values."""
        mine = [event for event in self.events if type(event) is kind]
        return [event for event in mine if all(getattr(event, name) == value for name, value in values.items())]


def good_run() -> Run:
    run, at = Run(), 1000.0
    numbers = dict.fromkeys(WRITERS, 0)
    for p in range(PARTITIONS):
        records = []
        for offset in range(PER_PARTITION):
            writer, at = WRITERS[offset % len(WRITERS)], at + 1.0
            number = numbers[writer]
            numbers[writer] += 1
            key = f"k{p}" if writer == "keyed" else ""
            records.append(StoredRecord(offset, (writer, number), key))
            run.events.append(Sent(writer, number, -1 if key else p, key, at))
            run.events.append(Acked(writer, number, p, offset, at + 0.1))
            run.events.append(Latest("observer", p, offset + 1, at + 0.2))
            run.events.append(Read("watcher", p, offset, writer, number, at + 0.3))
        run.partitions[p] = Partition(records)
        run.events.append(Assigned("group-0", p, at))
        for record in records:
            assert record.who is not None
            run.events.append(Read("group-0", p, record.offset, *record.who, at + 0.4))
        run.events.append(Committed("group-0", p, PER_PARTITION, at + 0.5))
    assert run.violations() == {}
    return run


__all__ = ["PARTITIONS", "PER_PARTITION", "Run", "Violation", "good_run"]
