"""Where each field of a record batch stands: the header of format 2 (magic 2), all integers big-endian.

A batch is ``base_offset:8 length:4 leader_epoch:4 magic:1 crc:4`` and, covered by the CRC-32C, ``attributes:2
last_offset_delta:4 base_timestamp:8 max_timestamp:8 producer_id:8 producer_epoch:2 base_sequence:4 record_count:4``,
then the records. ``length`` counts the bytes behind itself. So offset and leader epoch can be written in place without
a new CRC. Source: "Record Batch" in Kafka's documentation of its message format.

Whoever looks at one field of a batch without reading the whole header takes its ``struct`` and position from here.
"""

from __future__ import annotations

import struct

_FORMATS = {
    "base_offset": "q",
    "length": "i",
    "leader_epoch": "i",
    "magic": "b",
    "crc": "I",
    "attributes": "h",
    "last_offset_delta": "i",
    "base_timestamp": "q",
    "max_timestamp": "q",
    "producer_id": "q",
    "producer_epoch": "h",
    "base_sequence": "i",
    "record_count": "i",
}
FIELDS = tuple(_FORMATS)
HEADER = struct.Struct(">" + "".join(_FORMATS.values()))
HEADER_BYTES = HEADER.size  # 61


def _field(name: str) -> tuple[struct.Struct, int]:
    """How a field is packed, and how many bytes come before it."""
    before = "".join(_FORMATS[earlier] for earlier in FIELDS[: FIELDS.index(name)])
    return struct.Struct(">" + _FORMATS[name]), struct.calcsize(">" + before)


BASE_OFFSET, BASE_OFFSET_POSITION = _field("base_offset")
LENGTH, LENGTH_POSITION = _field("length")
LEADER_EPOCH, LEADER_EPOCH_POSITION = _field("leader_epoch")
MAGIC_BYTE, MAGIC_POSITION = _field("magic")
CRC, CRC_POSITION = _field("crc")
ATTRIBUTES, ATTRIBUTES_POSITION = _field("attributes")
MAX_TIMESTAMP, MAX_TIMESTAMP_POSITION = _field("max_timestamp")
RECORD_COUNT, RECORD_COUNT_POSITION = _field("record_count")

PRODUCER, PRODUCER_POSITION = struct.Struct(">qhi"), _field("producer_id")[1]  # its id, epoch and the base sequence

PREFIX_BYTES = LENGTH_POSITION + LENGTH.size  # base offset and length, which ``length`` does not count
CRC_START = ATTRIBUTES_POSITION  # the first byte that the CRC covers

MAGIC = 2
NO_TIMESTAMP = -1
NO_PRODUCER_ID = -1
NO_PRODUCER_EPOCH = -1
NO_SEQUENCE = -1
MAX_INT32 = 2**31 - 1

# bits of the attributes; all of them are in its second byte
FLAGS_POSITION = ATTRIBUTES_POSITION + 1
CODEC_MASK = 0x07
LOG_APPEND_TIME_BIT = 0x08
TRANSACTIONAL_BIT = 0x10
CONTROL_BIT = 0x20
