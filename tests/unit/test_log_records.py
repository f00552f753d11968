"""The walk over a client's records: exactly what a reader that takes one field after the other finds, and in bounds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raykafka.log.batch import Record, build_batch, read_header
from raykafka.log.batch_layout import HEADER_BYTES, NO_TIMESTAMP
from raykafka.log.compression import UnreadableRecords
from raykafka.log.records import Walked, walk
from tests.lab.log_parts import NOW_MS, unhurried

BASE_MS = 1_000_000


def one_by_one(data: bytes, count: int, base: int) -> Walked:
    """The same, by the letter of the format. Raises ValueError or IndexError."""
    position = 0
    stamps, keyless = [], []

    def varint(most: int = 5) -> int:
        nonlocal position
        value = shift = 0
        while True:
            if shift >= 7 * most:
                raise ValueError("too long")
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)

    def field(least: int) -> bool:
        nonlocal position
        length = varint()
        if length < least:
            raise ValueError("a length")
        position += max(length, 0)
        return length < 0

    for number in range(count):
        size = varint()
        end = position + size
        if size < 0 or end > len(data):
            raise ValueError("a size")
        position += 1
        stamps.append(base + varint(10))
        if varint() != number:
            raise ValueError("an offset delta")
        if field(-1):
            keyless.append(number)
        field(-1)
        headers = varint()
        if not 0 <= headers <= end - position:
            raise ValueError("a count of headers")
        for _ in range(headers):
            field(0)
            field(-1)
        if position != end:
            raise ValueError("an end")
    if position != len(data):
        raise ValueError("a rest")
    told = [stamp for stamp in stamps if stamp != NO_TIMESTAMP]
    if any(abs(stamp) >= 2**63 for stamp in told):
        raise ValueError("a timestamp")
    return Walked(min(told, default=-1), max([*told, -1]), keyless)


def body(records: list[Record]) -> bytes:
    return bytes(build_batch(records))[HEADER_BYTES:]


def verdict(data: bytes, count: int, base: int) -> Walked | None:
    try:
        return walk(data, count, base, keys=True)
    except UnreadableRecords:
        return None


def expected(data: bytes, count: int, base: int) -> Walked | None:
    try:
        return one_by_one(data, count, base)
    except (ValueError, IndexError):
        return None


def some_records(chance: random.Random) -> list[Record]:
    """Runs of records that are laid out alike, of all lengths, between others."""
    records: list[Record] = []
    while not records or chance.random() < 0.7:
        key = chance.choice([None, b"", b"k" * chance.randrange(200)])
        value = chance.choice([None, b"", b"v" * chance.randrange(300)])
        headers = chance.choice([(), (), (), [("name", b"h"), ("", None)]])
        step = chance.choice([0, 0, 1, 7, 100, 70_000])
        for number in range(chance.choice([1, 2, 3, 40, 300, 3000])):
            stamp = BASE_MS + step * number * chance.choice([1, 1, 1, -1])
            records.append(Record(key, value, chance.choice([stamp, stamp, NO_TIMESTAMP]), headers))
    return records


@unhurried
@given(seed=st.integers(0, 2**32))
def test_sound_records_are_found_and_damaged_ones_judged_as_one_by_one(seed):
    chance = random.Random(seed)
    records = some_records(chance)
    data = bytearray(body(records))
    base = records[0].timestamp
    sound = expected(bytes(data), len(records), base)
    assert sound is not None and verdict(bytes(data), len(records), base) == sound
    for _ in range(8):
        hurt = bytearray(data)
        for _ in range(chance.choice([1, 1, 2])):
            hurt[chance.randrange(len(hurt))] = chance.choice([0, 1, 2, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        assert verdict(bytes(hurt), len(records), base) == expected(bytes(hurt), len(records), base)
    assert verdict(bytes(data), len(records) + 1, base) is None
    assert verdict(bytes(data), len(records) - 1, base) is None
    assert verdict(bytes(data[:-1]), len(records), base) is None
    assert verdict(bytes(data) + b"\x00", len(records), base) is None


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 66, 8191, 8192, 8193, 20_000])
def test_many_alike(count):
    records = [Record(None, b"x" * 100, NOW_MS + number // 100) for number in range(count)]
    data = body(records)
    assert walk(data, count, NOW_MS, keys=True) == Walked(NOW_MS, NOW_MS + (count - 1) // 100, list(range(count)))
    swapped = bytearray(data)
    swapped[-101], swapped[-102] = swapped[-102], swapped[-101]
    assert verdict(bytes(swapped), count, NOW_MS) == expected(bytes(swapped), count, NOW_MS)


def test_each_byte_that_says_where_something_stands_counts_amid_records_that_are_alike():
    records = [Record(b"k", b"x" * 5, NOW_MS) for _ in range(200)]
    data = body(records)
    for at in range(150 * len(data) // 200, 152 * len(data) // 200):
        for byte in (0, 1, 0x80, data[at] ^ 2):
            hurt = data[:at] + bytes([byte]) + data[at + 1 :]
            assert verdict(hurt, 200, NOW_MS) == expected(hurt, 200, NOW_MS)


def test_a_claim_of_more_records_than_there_can_be_costs_nothing():
    with pytest.raises(UnreadableRecords, match="2147483647 records"):
        walk(b"\x00" * 100, 2**31 - 1, 0)


def test_a_batch_without_timestamps():
    records = [Record(None, b"x")] * 3
    header = read_header(build_batch(records))
    assert walk(body(records), 3, header.base_timestamp)[:2] == (NO_TIMESTAMP, NO_TIMESTAMP)


def one_record(*fields: bytes) -> bytes:
    content = b"".join(fields)
    return bytes([2 * len(content)]) + content


@pytest.mark.parametrize("key", [b"\x01", b"\x81\x00", b"\x81\x80\x00"])
@pytest.mark.parametrize("count", [1, 100])
def test_a_key_is_null_however_its_length_is_spelt(key, count):
    data = b"".join(
        one_record(b"\0\0", bytes([2 * n]) if n < 64 else bytes([2 * n & 0x7F | 0x80, n >> 6]), key, b"\x02v\0")
        for n in range(count)
    )
    assert walk(data, count, 0, keys=True).keyless == list(range(count)) == one_by_one(data, count, 0).keyless


def test_only_a_timestamp_may_take_more_than_five_bytes():
    assert walk(one_record(b"\0", b"\x80\x80\x80\x80\x80\x00", b"\0\x01\x01\0"), 1, 0).max_timestamp == 0
    for at, long in ((1, b"\x80\x80\x80\x80\x80\x00"), (2, b"\x81\x80\x80\x80\x80\x00")):
        fields = [b"\0\0", b"\0", b"\x01", b"\x01\0"]
        fields[at] = long
        with pytest.raises(UnreadableRecords, match="longer than 5 bytes"):
            walk(one_record(*fields), 1, 0)
