"""The records of ``__consumer_offsets``, byte for byte as Kafka 3.9 writes them.

A key begins with a version that says what the record is: 0 or 1 a committed offset, 2 a group's metadata; others
(3 and up) belong to newer kinds of groups. A null value is a tombstone. Kafka 3.9 writes offset values as version 3, or
1 where an expire timestamp is set, and group values as version 3; the flexible versions 4 are read too. Schemas:
``OffsetCommitKey``, ``OffsetCommitValue``, ``GroupMetadataKey`` and ``GroupMetadataValue``.
"""

from __future__ import annotations

import struct

from raykafka.coordinator.classic.events import GroupEntry, GroupSnapshot, MemberSnapshot
from raykafka.coordinator.group.events import Entry
from raykafka.coordinator.offsets.events import CommittedOffset, OffsetEntry
from raykafka.coordinator.step import UnreadableRecord
from raykafka.types import NO_EPOCH, TopicPartition

GROUP_KEY_VERSION = 2
_OFFSET_KEY_WRITTEN = 1
_OFFSET_VALUE_WRITTEN = 3
_OFFSET_VALUE_WITH_EXPIRY = 1
_GROUP_VALUE_WRITTEN = 3
_FIRST_FLEXIBLE = 4
_NONE_TIMESTAMP = -1


class UnreadableOffsetsRecord(UnreadableRecord):
    """A record of the offsets topic is not in a format that Kafka 3.9 knows."""


def encode(entry: Entry) -> tuple[bytes, bytes | None]:
    """The key and value of the record that says ``entry``."""
    if isinstance(entry, OffsetEntry):
        key = _Writer(_OFFSET_KEY_WRITTEN)
        key.string(entry.group_id)
        key.string(entry.partition.topic)
        key.pack(">i", entry.partition.partition)
        return key.bytes(), None if entry.value is None else _offset_value(entry.value)
    key = _Writer(GROUP_KEY_VERSION)
    key.string(entry.group_id)
    return key.bytes(), None if entry.value is None else _group_value(entry.value)


def decode(key: bytes, value: bytes | None) -> Entry | None:
    """What a record says; None for records of kinds of groups that came after the classic one. Raises
    UnreadableOffsetsRecord."""
    try:
        reader = _Reader(key)
        if reader.version > GROUP_KEY_VERSION:
            return None
        group_id = reader.string()
        if reader.version == GROUP_KEY_VERSION:
            return GroupEntry(group_id, None if value is None else _read_group_value(group_id, value))
        topic, (partition,) = reader.string(), reader.unpack(">i")
        return OffsetEntry(
            group_id, TopicPartition(topic, partition), None if value is None else _read_offset_value(value)
        )
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise UnreadableOffsetsRecord(f"a record of the offsets topic ends early or is not text: {error}") from error


def _offset_value(value: CommittedOffset) -> bytes:
    expires = value.expire_timestamp_ms
    out = _Writer(_OFFSET_VALUE_WRITTEN if expires is None else _OFFSET_VALUE_WITH_EXPIRY)
    out.pack(">q", value.offset)
    if expires is None:
        out.pack(">i", value.leader_epoch)
    out.string(value.metadata)
    out.pack(">q", value.commit_timestamp_ms)
    if expires is not None:
        out.pack(">q", expires)
    return out.bytes()


def _read_offset_value(data: bytes) -> CommittedOffset:
    reader = _Reader(data, first_flexible=_FIRST_FLEXIBLE)
    reader.check_version(4)
    (offset,) = reader.unpack(">q")
    (leader_epoch,) = reader.unpack(">i") if reader.version >= 3 else (NO_EPOCH,)
    metadata = reader.string()
    (commit_timestamp,) = reader.unpack(">q")
    (expires,) = reader.unpack(">q") if reader.version == 1 else (_NONE_TIMESTAMP,)
    return CommittedOffset(
        offset, leader_epoch, metadata, commit_timestamp, None if expires == _NONE_TIMESTAMP else expires
    )


def _group_value(group: GroupSnapshot) -> bytes:
    out = _Writer(_GROUP_VALUE_WRITTEN)
    out.string(group.protocol_type or "")
    out.pack(">i", group.generation)
    out.nullable_string(group.protocol)
    out.nullable_string(group.leader)
    out.pack(">q", group.state_timestamp_ms)
    out.pack(">i", len(group.members))
    for member in group.members:
        out.string(member.member_id)
        out.nullable_string(member.instance_id)
        out.string(member.client_id)
        out.string(member.client_host)
        out.pack(">ii", member.rebalance_timeout_ms, member.session_timeout_ms)
        out.blob(member.subscription)
        out.blob(member.assignment)
    return out.bytes()


def _read_group_value(group_id: str, data: bytes) -> GroupSnapshot:
    reader = _Reader(data, first_flexible=_FIRST_FLEXIBLE)
    reader.check_version(4)
    protocol_type, (generation,) = reader.string(), reader.unpack(">i")
    protocol, leader = reader.nullable_string(), reader.nullable_string()
    (timestamp,) = reader.unpack(">q") if reader.version >= 2 else (_NONE_TIMESTAMP,)
    members = tuple(_read_member(reader) for _ in range(reader.array_length()))
    return GroupSnapshot(group_id, generation, protocol_type or None, protocol, leader, timestamp, members)


def _read_member(reader: _Reader) -> MemberSnapshot:
    version = reader.version
    member_id = reader.string()
    instance_id = reader.nullable_string() if version >= 3 else None
    client_id, client_host = reader.string(), reader.string()
    (rebalance_timeout,) = reader.unpack(">i") if version >= 1 else (None,)
    (session_timeout,) = reader.unpack(">i")
    subscription, assignment = reader.blob(), reader.blob()
    reader.skip_tags()
    return MemberSnapshot(
        member_id,
        instance_id,
        client_id,
        client_host,
        session_timeout if rebalance_timeout is None else rebalance_timeout,
        session_timeout,
        subscription,
        assignment,
    )


class _Writer:
    """Writes the non-flexible encoding behind a version."""

    def __init__(self, version: int) -> None:
        self._out = bytearray(struct.pack(">h", version))

    def pack(self, layout: str, *values: int) -> None:
        self._out += struct.pack(layout, *values)

    def string(self, text: str) -> None:
        data = text.encode()
        self._out += struct.pack(">h", len(data)) + data

    def nullable_string(self, text: str | None) -> None:
        if text is None:
            self.pack(">h", -1)
        else:
            self.string(text)

    def blob(self, data: bytes) -> None:
        self._out += struct.pack(">i", len(data)) + data

    def bytes(self) -> bytes:
        return bytes(self._out)


class _Reader:
    """Reads both encodings; ``version`` is the one in front, and versions from ``first_flexible`` on are flexible."""

    def __init__(self, data: bytes, first_flexible: int = 1 << 15) -> None:
        self._data = data
        self._position = 0
        (self.version,) = self.unpack(">h")
        self._flexible = self.version >= first_flexible

    def check_version(self, highest: int) -> None:
        if not 0 <= self.version <= highest:
            raise UnreadableOffsetsRecord(
                f"a record of the offsets topic has a value of version {self.version}; {highest} is the newest known"
            )

    def unpack(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from(layout, self._data, self._position)
        self._position += struct.calcsize(layout)
        return values

    def _take(self, size: int) -> bytes:
        data = self._data[self._position : self._position + size]
        if len(data) != size:
            raise IndexError(f"{size} bytes wanted, {len(data)} left")
        self._position += size
        return data

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._position]
            self._position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def _length(self, layout: str) -> int:
        return self._varint() - 1 if self._flexible else self.unpack(layout)[0]

    def nullable_string(self) -> str | None:
        size = self._length(">h")
        return None if size < 0 else self._take(size).decode()

    def string(self) -> str:
        return self.nullable_string() or ""

    def blob(self) -> bytes:
        return self._take(max(self._length(">i"), 0))

    def array_length(self) -> int:
        return max(self._length(">i"), 0)

    def skip_tags(self) -> None:
        if self._flexible:
            for _ in range(self._varint()):
                self._varint()
                self._take(self._varint())
