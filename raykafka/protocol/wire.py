"""Kafka's primitive types, read from a memoryview and written by hand, for the APIs whose codec is our own.

Reading goes through a ``Cursor`` that keeps its place. Everything raises MalformedError on bytes that end too early or
lengths that can't be.
"""

from __future__ import annotations

import struct
import uuid

from raykafka.errors import RaykafkaError

# how many elements all arrays of one message may have: each takes time on the event loop
MOST_ELEMENTS = 100_000

_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")


class MalformedError(RaykafkaError):
    """Bytes that are no Kafka message."""


class Cursor:
    """A place in a message. ``flexible`` messages have compact lengths and tagged fields."""

    __slots__ = ("at", "elements", "flexible", "view")

    def __init__(self, view: memoryview, *, flexible: bool, at: int = 0) -> None:
        self.view = view
        self.at = at
        self.elements = 0
        self.flexible = flexible

    def i8(self) -> int:
        try:
            value = self.view[self.at]
        except IndexError:
            raise MalformedError("a message ends within a number") from None
        self.at += 1
        return value - 256 if value > 127 else value

    def _number(self, kind: struct.Struct) -> int:
        try:
            (value,) = kind.unpack_from(self.view, self.at)
        except struct.error:
            raise MalformedError("a message ends within a number") from None
        self.at += kind.size
        return int(value)

    def i16(self) -> int:
        return self._number(_I16)

    def i32(self) -> int:
        return self._number(_I32)

    def structure(self, kind: struct.Struct) -> tuple[int, ...]:
        """Several fixed-size fields at once."""
        try:
            values = kind.unpack_from(self.view, self.at)
        except struct.error:
            raise MalformedError("a message ends within a number") from None
        self.at += kind.size
        return values

    def uvarint(self) -> int:
        value, self.at = read_uvarint(self.view, self.at)
        return value

    def _take(self, length: int) -> memoryview:
        start, end = self.at, self.at + length
        if end > len(self.view):
            raise MalformedError(f"a field of {length} bytes is cut off")
        self.at = end
        return self.view[start:end]

    def nullable_string(self) -> str | None:
        length = self.uvarint() - 1 if self.flexible else self.i16()
        if length < 0:
            return None
        try:
            return str(self._take(length), "utf-8")
        except UnicodeDecodeError as error:
            raise MalformedError(f"a string is not UTF-8: {error}") from None

    def string(self) -> str:
        value = self.nullable_string()
        if value is None:
            raise MalformedError("a string that can't be null is null")
        return value

    def uuid(self) -> uuid.UUID:
        return uuid.UUID(bytes=bytes(self._take(16)))

    def nullable_bytes(self) -> memoryview | None:
        """A length and that many bytes, not copied."""
        length = self.uvarint() - 1 if self.flexible else self.i32()
        return None if length < 0 else self._take(length)

    def array_length(self) -> int:
        """The number of elements; -1 for a null array. More elements than bytes are left is malformed, and so is a
        message with more than MOST_ELEMENTS."""
        length = self.uvarint() - 1 if self.flexible else self.i32()
        if length > len(self.view) - self.at:
            raise MalformedError(f"an array of {length} elements is cut off")
        self.elements += max(length, 0)
        check_elements(self.elements)
        return length

    def skip_tags(self) -> None:
        if self.flexible:
            self.at = skip_tags(self.view, self.at)


def check_elements(count: int) -> None:
    """Raises MalformedError where a message has too many."""
    if count > MOST_ELEMENTS:
        raise MalformedError(f"a message has more than {MOST_ELEMENTS} elements")


def read_uvarint(view: memoryview, at: int) -> tuple[int, int]:
    """The unsigned varint at ``at``, and where it ends."""
    value = shift = 0
    try:
        byte = view[at]
        if byte < 0x80:
            return byte, at + 1
        while True:
            byte = view[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 28:
                raise MalformedError("a varint is longer than 5 bytes")
    except IndexError:
        raise MalformedError("a message ends within a varint") from None
    return value, at


def skip_tags(view: memoryview, at: int) -> int:
    """Where the tagged fields that begin at ``at`` end."""
    if at < len(view) and view[at] == 0:
        return at + 1
    count, at = read_uvarint(view, at)
    for _ in range(count):
        _, at = read_uvarint(view, at)
        size, at = read_uvarint(view, at)
        at += size
        if at > len(view):
            raise MalformedError("a tagged field is cut off")
    return at


def uvarint(value: int) -> bytes:
    """The unsigned varint of ``value`` (not negative)."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def length_prefix(length: int, *, flexible: bool) -> bytes:
    """The length of an array or of bytes."""
    return uvarint(length + 1) if flexible else _I32.pack(length)


def nullable_string(text: str | None, *, flexible: bool) -> bytes:
    if text is None:
        return b"\0" if flexible else b"\xff\xff"
    data = text.encode()
    return (uvarint(len(data) + 1) if flexible else _I16.pack(len(data))) + data
