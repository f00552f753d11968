"""What a client's batch must hold: as many whole records as its header says, one right behind the other, numbered from
0 on, and nothing behind them. And what the header should say of them: the largest timestamp.

A record is ``length:varint attributes:1 timestamp_delta:varint offset_delta:varint key_length:varint key
value_length:varint value header_count:varint headers``; varints are zigzag. Source: "Record" in Kafka's documentation
of its message format.

Every field of every record is looked at. Records that are laid out alike, as many producers send them, are looked at
together: each byte that says where something stands is compared over all of them at once.
"""

from __future__ import annotations

from typing import NamedTuple

from raykafka.log.batch_layout import NO_TIMESTAMP
from raykafka.log.compression import UnreadableRecords

MIN_RECORD_BYTES = 7

_MORE = 0x80  # set in every byte of a varint but the last
_HIGH = bytes(range(_MORE, 256))
_EVEN = bytes(range(0, 256, 2))  # the first bytes of varints that are not negative
_NULL = 1  # the varint -1
_MAX_INT64 = 2**63 - 1
LONG_BYTES = 10  # of a timestamp's; all other varints are of 32 bits
_LEAST_REACH, _MOST_REACH = 32, 1 << 17
# the offset deltas whose varints have 1, 2, 3 bytes are those below
_DELTA_BOUNDS = (1 << 6, 1 << 13, 1 << 20)


class Walked(NamedTuple):
    """Of the records of one batch: the least and the largest timestamp, in ms since the epoch, of those that have one
    (else NO_TIMESTAMP); the numbers of those without a key, if they were asked for."""

    min_timestamp: int
    max_timestamp: int
    keyless: list[int]


def walk(data: bytes | bytearray, count: int, base_timestamp: int, *, keys: bool = False) -> Walked:
    """Look at the ``count`` records that ``data``, decompressed, must be. Raises UnreadableRecords."""
    if count * MIN_RECORD_BYTES > len(data):
        raise UnreadableRecords(f"there are {len(data)} bytes for {count} records")
    try:
        return _walk(data, count, base_timestamp, keys)
    except IndexError:
        raise UnreadableRecords("the records end in the middle of one") from None


def _walk(data: bytes | bytearray, count: int, base_timestamp: int, keys: bool) -> Walked:
    position, total, number = 0, len(data), 0
    deltas: set[int] = set()
    keyless: list[int] = []
    delta_before: int | None = None
    size_before, reach, rest, rests = 0, _LEAST_REACH, 0, 1
    while number < count:
        # varints of one byte, and lengths of two, are read here: what most records have
        begin = position
        byte = data[position]
        if byte < _MORE:
            size, position = (byte >> 1) ^ -(byte & 1), position + 1
        elif (second := data[position + 1]) < _MORE and not byte & 1:
            size, position = (byte & 0x7F | second << 7) >> 1, position + 2
        else:
            size, position = varint(data, position)
        end = position + size
        if size < 0 or end > total:
            raise UnreadableRecords(f"record {number} reaches past the end of its batch")
        position += 1
        timestamp_at = position
        byte = data[position]
        if byte < _MORE:
            delta, position = (byte >> 1) ^ -(byte & 1), position + 1
        else:
            delta, position = varint(data, position, LONG_BYTES)
        if delta != delta_before:
            deltas.add(delta)
            delta_before = delta
        offset_at = position
        byte = data[position]
        if byte < _MORE:
            offset_delta, position = (byte >> 1) ^ -(byte & 1), position + 1
        elif (second := data[position + 1]) < _MORE and not byte & 1:
            offset_delta, position = (byte & 0x7F | second << 7) >> 1, position + 2
        else:
            offset_delta, position = varint(data, position)
        if offset_delta != number:
            raise UnreadableRecords(f"record {number} has the offset delta {offset_delta}")
        key_length_at = position
        byte = data[position]
        if byte == _NULL:
            position += 1
            if keys:
                keyless.append(number)
        elif byte < _MORE and not byte & 1:
            position += 1 + (byte >> 1)
        else:
            position = _behind_bytes(data, position, number)
            if keys and byte & 1:
                keyless.append(number)
        value_length_at = position
        byte = data[position]
        if byte < _MORE and not byte & 1:
            position += 1 + (byte >> 1)
        elif byte >= _MORE and (second := data[position + 1]) < _MORE and not byte & 1:
            position += 2 + ((byte & 0x7F | second << 7) >> 1)
        else:
            position = _behind_bytes(data, position, number)
        headers_at = position
        if data[position] == 0:
            position += 1
        else:
            position = _behind_headers(data, position, number, end)
        if position != end:
            raise UnreadableRecords(f"record {number} has {size} bytes, which its fields do not fill or exceed")
        number += 1
        size, rest = end - begin, rest - 1
        if size == size_before and rest < 0 and headers_at == end - 1:
            layout = _Layout(
                size,
                timestamp_at - begin,
                offset_at - begin,
                key_length_at - begin,
                value_length_at - begin,
                data[begin:end],
            )
            most = min(count - number, reach)
            alike = _alike(data, end, layout, number, most, deltas)
            if alike:
                if keys and data[key_length_at] & 1:  # of a negative length, which is -1
                    keyless += range(number, number + alike)
                number += alike
                position += alike * size
            if alike == most:
                reach, rests = min(reach * 8, _MOST_REACH), 1
            elif alike < _LEAST_REACH:  # looking costs more than it saves: not so soon again
                reach, rest, rests = _LEAST_REACH, rests, min(rests * 2, _LEAST_REACH)
        size_before = size
    if position != total:
        raise UnreadableRecords(f"{total - position} bytes follow the last record")
    return Walked(*_timestamps(deltas, base_timestamp), keyless)


def _timestamps(deltas: set[int], base: int) -> tuple[int, int]:
    deltas.discard(NO_TIMESTAMP - base)
    if not deltas:
        return NO_TIMESTAMP, NO_TIMESTAMP
    least, largest = base + min(deltas), base + max(deltas)
    if not -_MAX_INT64 <= least <= largest <= _MAX_INT64:
        raise UnreadableRecords("a timestamp is out of range")
    return least, max(largest, NO_TIMESTAMP)


class _Layout(NamedTuple):
    """A record of ``size`` bytes without headers, and how far into it each varint begins."""

    size: int
    timestamp_at: int
    offset_at: int
    key_length_at: int
    value_length_at: int
    record: bytes | bytearray


def _alike(data: bytes | bytearray, start: int, layout: _Layout, number: int, most: int, deltas: set[int]) -> int:
    """How many records from ``start`` on, ``most`` at most, have the layout, and the offset deltas from ``number`` on;
    0 where not even a few have. Adds their timestamp deltas."""
    size, record = layout.size, layout.record
    bound = next((bound for bound in _DELTA_BOUNDS if number <= bound), 0)
    most = min(most, (len(data) - start) // size, bound - number)
    if most < 2:
        return 0
    fixed = [*range(layout.timestamp_at - 1), *_varint_bytes(record, layout.key_length_at)]
    fixed += [*_varint_bytes(record, layout.value_length_at), size - 1]
    for at in fixed:
        column = data[start + at : start + most * size : size]
        most = len(column) - len(column.lstrip(record[at : at + 1]))
        if most < 2:
            return 0
    end = start + most * size
    if not _counts_on(data, start + layout.offset_at, end, size, number, layout.key_length_at - layout.offset_at):
        return 0
    columns = [data[start + at : end : size] for at in range(layout.timestamp_at, layout.offset_at)]
    if not columns[-1].isascii() or any(column.translate(None, _HIGH) for column in columns[:-1]):
        return 0  # their varints have other lengths
    if len(columns) == 1:
        deltas.update((byte >> 1) ^ -(byte & 1) for byte in set(columns[0]))
    else:
        columns.reverse()  # the order of these is the order of their numbers, where none is negative
        varints = set(zip(*columns, strict=True))
        if not columns[-1].translate(None, _EVEN):
            varints = {min(varints), max(varints)}
        deltas.update(varint(bytes(reversed(spelt)), 0, LONG_BYTES)[0] for spelt in varints)
    return most


def _varint_bytes(record: bytes | bytearray, at: int) -> range:
    """Where the bytes of the varint at ``at`` stand."""
    behind = at
    while record[behind] >= _MORE:
        behind += 1
    return range(at, behind + 1)


def _counts_on(data: bytes | bytearray, first: int, end: int, size: int, number: int, length: int) -> bool:
    """Whether the varints of ``length`` bytes at ``first`` and every ``size`` bytes behind it count on from
    ``number``."""
    for at in range(length):
        column = data[first + at : end : size]
        if column != _counted(number, len(column), at, is_last=at == length - 1):
            return False
    return True


# of the varints of 0, 1, 2, ...: the first bytes and the second ones, until they repeat
_FIRST_BYTES = bytes(value << 1 & 0x7F for value in range(1 << 6))
_SECOND_BYTES = bytes(value >> 6 & 0x7F for value in range(1 << 13))
_WITH_MORE = bytes(byte | _MORE for byte in range(256))


def _counted(number: int, count: int, at: int, *, is_last: bool) -> bytes:
    """The byte ``at`` of the varints of ``count`` numbers from ``number`` on."""
    if at > 1:
        period, low = b"", number >> 13
        for value in range(low, (number + count >> 13) + 1):
            period += bytes([value >> 7 * (at - 2) & 0x7F]) * (1 << 13)
        start = number - (low << 13)
    else:
        period = _FIRST_BYTES if at == 0 else _SECOND_BYTES
        start = number % len(period)
        period *= (start + count) // len(period) + 1
    column = period[start : start + count]
    return column if is_last else column.translate(_WITH_MORE)


def varint(data: bytes | bytearray, position: int, most_bytes: int = 5) -> tuple[int, int]:
    """(value, position behind it) of the zigzag varint at ``position``."""
    byte = data[position]
    position += 1
    value, shift = byte & 0x7F, 7
    while byte & _MORE:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 7 * most_bytes:
            raise UnreadableRecords(f"a varint is longer than {most_bytes} bytes")
    return (value >> 1) ^ -(value & 1), position


def _behind_bytes(data: bytes | bytearray, position: int, number: int) -> int:
    """The position behind the nullable bytes at ``position``."""
    length, position = varint(data, position)
    if length < -1:
        raise UnreadableRecords(f"record {number} has a field of {length} bytes")
    return position + length if length > 0 else position


def _behind_headers(data: bytes | bytearray, position: int, number: int, end: int) -> int:
    """The position behind the record headers whose count is at ``position``."""
    count, position = varint(data, position)
    if not 0 <= count <= end - position:
        raise UnreadableRecords(f"record {number} has {count} headers")
    for _ in range(count):
        if data[position] & 1:  # of a negative length
            raise UnreadableRecords(f"record {number} has a header without a key")
        position = _behind_bytes(data, position, number)
        position = _behind_bytes(data, position, number)
        if position > end:
            raise UnreadableRecords(f"record {number} has headers that reach past its end")
    return position
