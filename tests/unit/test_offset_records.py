"""The records of ``__consumer_offsets`` are Kafka's, byte for byte.

``offset_records_of_kafka.segment`` holds what a Kafka 3.9.2 wrote while it played ``group_dialogues``, and the
``.json`` beside it what that Kafka then answered to ListGroups and OffsetFetch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raykafka.cluster.coordinator_partition import java_hash, partition_for
from raykafka.coordinator.classic.events import GroupEntry, GroupSnapshot, MemberSnapshot
from raykafka.coordinator.group.config import GroupConfig
from raykafka.coordinator.group.groups import Groups
from raykafka.coordinator.group.records import UnreadableOffsetsRecord, decode, encode
from raykafka.coordinator.offsets.events import CommittedOffset, OffsetEntry
from raykafka.coordinator.runtime.loading import replay_batch
from raykafka.coordinator.step import Now
from raykafka.log.batch import Record, build_batch, iter_batches, iter_records, read_header
from raykafka.types import OFFSETS_TOPIC, TopicPartition

HERE = Path(__file__).parent
SEGMENT = memoryview((HERE / "offset_records_of_kafka.segment").read_bytes())
NOW = Now(1_000, 1_800_000_000_000)


def kafkas_records() -> Iterator[Record]:
    for position, header in iter_batches(SEGMENT):
        yield from iter_records(SEGMENT[position : position + header.size])


def test_what_kafka_wrote_is_written_back_identically() -> None:
    kinds = set()
    for record in kafkas_records():
        assert record.key is not None
        entry = decode(record.key, record.value)
        assert entry is not None
        assert encode(entry) == (record.key, record.value)
        kinds.add((type(entry), None if record.value is None else record.value[:2]))
    assert kinds == {
        (OffsetEntry, b"\0\1"),
        (OffsetEntry, b"\0\3"),
        (OffsetEntry, None),
        (GroupEntry, b"\0\3"),
        (GroupEntry, None),
    }


def test_replaying_what_kafka_wrote_gives_what_kafka_answered() -> None:
    replayed = Groups(GroupConfig())
    for position, header in iter_batches(SEGMENT):
        replay_batch(replayed, OFFSETS_TOPIC, header, SEGMENT[position : position + header.size])
    replayed.loaded(NOW)
    answered = json.loads((HERE / "offset_records_of_kafka.json").read_text())
    assert {
        name: {
            "state": group.state.value,
            "protocol_type": group.protocol_type or "",
            "offsets": {
                str(p): [s.value.offset, s.value.leader_epoch, s.value.metadata]
                for p, s in group.offsets.committed.items()
            },
        }
        for name, group in replayed.groups.items()
    } == answered


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
numbers = st.integers(-(1 << 63), (1 << 63) - 1)
small_numbers = st.integers(-(1 << 31), (1 << 31) - 1)
offsets = st.builds(
    CommittedOffset, numbers, st.just(-1), names, numbers, numbers.filter(lambda n: n != -1)
) | st.builds(CommittedOffset, numbers, small_numbers, names, numbers, st.none())
members = st.builds(
    MemberSnapshot,
    names,
    st.none() | names,
    names,
    names,
    small_numbers,
    small_numbers,
    st.binary(max_size=50),
    st.binary(max_size=50),
)
snapshots = st.builds(
    GroupSnapshot,
    st.just("group"),
    small_numbers,
    st.none() | names.filter(bool),
    st.none() | names,
    st.none() | names,
    numbers,
    st.lists(members, max_size=4).map(tuple),
)
entries = st.builds(
    OffsetEntry, names, st.builds(TopicPartition, names, small_numbers), st.none() | offsets
) | st.builds(GroupEntry, st.just("group"), st.none() | snapshots)


@given(entries)
def test_every_entry_reads_back(entry: OffsetEntry | GroupEntry) -> None:
    assert decode(*encode(entry)) == entry


@given(entries, st.data())
def test_a_cut_record_is_refused_and_not_misread(entry: OffsetEntry | GroupEntry, data: st.DataObject) -> None:
    key, value = encode(entry)
    with pytest.raises(UnreadableOffsetsRecord):
        decode(key[: data.draw(st.integers(0, len(key) - 1))], value)
    if value is not None:
        with pytest.raises(UnreadableOffsetsRecord):
            decode(key, value[: data.draw(st.integers(0, len(value) - 1))])


def test_flexible_values_are_read() -> None:
    """Version 4 of both values: compact strings and arrays, tagged fields behind each struct."""
    key, _ = encode(OffsetEntry("g", TopicPartition("t", 1), None))
    value = struct.pack(">hqi", 4, 42, 7) + b"\x05note" + struct.pack(">q", 99) + b"\x00"
    assert decode(key, value) == OffsetEntry("g", TopicPartition("t", 1), CommittedOffset(42, 7, "note", 99))
    key, _ = encode(GroupEntry("g", None))
    member = b"\x02m\x00\x02c\x02h" + struct.pack(">ii", 10, 20) + b"\x02s\x03as" + b"\x01\x05\x02xy"
    value = struct.pack(">h", 4) + b"\x09consumer" + struct.pack(">i", 3) + b"\x06range\x02m"
    value += struct.pack(">q", 5) + b"\x03" + member + member + b"\x00"
    stored = MemberSnapshot("m", None, "c", "h", 10, 20, b"s", b"as")
    assert decode(key, value) == GroupEntry("g", GroupSnapshot("g", 3, "consumer", "range", "m", 5, (stored, stored)))


@pytest.mark.parametrize("version", [0, 1, 2])
def test_older_group_values_are_read(version: int) -> None:
    key, _ = encode(GroupEntry("g", None))
    value = struct.pack(">h", version) + b"\0\x08consumer" + struct.pack(">i", 3) + b"\0\x05range\0\1m"
    value += struct.pack(">q", 5) if version >= 2 else b""
    value += struct.pack(">i", 1) + b"\0\1m\0\1c\0\1h" + (struct.pack(">i", 10) if version >= 1 else b"")
    value += struct.pack(">i", 20) + b"\0\0\0\1s\0\0\0\2as"
    stored = MemberSnapshot("m", None, "c", "h", 10 if version else 20, 20, b"s", b"as")
    timestamp = 5 if version >= 2 else -1
    assert decode(key, value) == GroupEntry("g", GroupSnapshot("g", 3, "consumer", "range", "m", timestamp, (stored,)))


@pytest.mark.parametrize("version", [0, 2])
def test_older_offset_values_are_read(version: int) -> None:
    key, _ = encode(OffsetEntry("g", TopicPartition("t", 1), None))
    value = struct.pack(">hq", version, 42) + b"\0\4note" + struct.pack(">q", 99)
    assert decode(key, value) == OffsetEntry("g", TopicPartition("t", 1), CommittedOffset(42, -1, "note", 99))


def test_records_of_newer_kinds_of_groups_are_left_alone() -> None:
    for version in range(3, 20):
        assert decode(struct.pack(">hh", version, 1) + b"g", b"\0\0whatever") is None


def test_values_newer_than_known_are_refused() -> None:
    with pytest.raises(UnreadableOffsetsRecord, match="version 5"):
        decode(encode(GroupEntry("g", None))[0], b"\0\5")


def test_an_unreadable_record_does_not_hide_the_others(caplog: pytest.LogCaptureFixture) -> None:
    good = encode(OffsetEntry("g", TopicPartition("t", 0), CommittedOffset(5)))
    bad = encode(GroupEntry("g", None))[0]
    batch = memoryview(build_batch([Record(bad, b"\0\5", 1), Record(None, b"x", 1), Record(*good, 1)]))
    replayed = Groups(GroupConfig())
    replay_batch(replayed, OFFSETS_TOPIC, read_header(batch), batch)
    replayed.loaded(NOW)
    assert replayed.groups["g"].offsets.get(TopicPartition("t", 0)) == CommittedOffset(5)
    assert len(caplog.records) == 2


def test_groups_hash_as_java_strings_do() -> None:
    """Values of Java's String.hashCode; the last hashes to the least number, whose absolute value is not a number."""
    assert java_hash("") == 0
    assert java_hash("console-consumer-12345") == 158_455_506
    assert java_hash("\u00fcber-\U0001f600") == -1_078_194_339
    assert java_hash("polygenelubricants") == -(1 << 31)
    assert partition_for("polygenelubricants", 50) == 0
    assert {partition_for(f"group-{i}", 6) for i in range(100)} == set(range(6))
