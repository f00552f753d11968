"""The sparse indexes of a segment: offset to byte position (``.index``), timestamp to offset (``.timeindex``).

An entry of an offset index is (last offset of a batch, relative to the segment; position of that batch). An entry of
a time index is (largest timestamp so far, relative last offset of the batch that has it). Both grow in both columns.
The writer holds a few entries back, so a reader scans from the last one it finds.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

OFFSET_ENTRY = struct.Struct(">ii")
TIME_ENTRY = struct.Struct(">qi")

Entry = tuple[int, int]
Pread = Callable[[int, int, int], bytes]  # (fd, length, position), as os.pread

_HELD_BACK = 32


def floor_entry(
    fd: int, layout: struct.Struct, count: int, key: int, column: int = 0, pread: Pread = os.pread
) -> tuple[int, Entry] | None:
    """(number, entry) of the last of ``count`` entries whose ``column`` is <= ``key``."""
    low, high, found = 0, count, None
    while low < high:
        middle = (low + high) // 2
        data = pread(fd, layout.size, middle * layout.size)
        if len(data) < layout.size:  # cut short by the writer meanwhile
            high = middle
            continue
        entry = layout.unpack(data)
        if entry[column] <= key:
            low, found = middle + 1, (middle, entry)
        else:
            high = middle
    return found


class Index:
    """One index file, in the hands of its writer, who opens it before anything else. ``append`` must be called with
    growing keys. Not safe between threads.
    """

    def __init__(self, path: str, layout: struct.Struct) -> None:
        self.path = path
        self._layout = layout
        self._fd = -1
        self._written = -1  # not known before the file was opened once
        self._held = bytearray()
        self.last: Entry | None = None

    @property
    def fd(self) -> int:
        """The descriptor of the file. Only while it is open."""
        return self._fd

    @property
    def was_opened(self) -> bool:
        """Whether ``last`` and ``count`` are known."""
        return self._written >= 0

    @property
    def count(self) -> int:
        """Entries, those in memory included."""
        return self._written + len(self._held) // self._layout.size

    @property
    def size_bytes(self) -> int:
        """Bytes in the file once everything is written."""
        return self.count * self._layout.size

    @property
    def wants_writing(self) -> bool:
        """Whether enough entries are held in memory to be worth a write."""
        return len(self._held) >= _HELD_BACK * self._layout.size

    def append(self, key: int, value: int) -> None:
        """Add an entry, in memory until ``write_out``."""
        self.last = (key, value)
        self._held += self._layout.pack(key, value)

    def write_out(self) -> None:
        """Write the entries held back. OSError; they are then still held."""
        position, written = self._written * self._layout.size, 0
        try:
            while written < len(self._held):
                written += os.pwrite(self._fd, self._held[written:], position + written)
        finally:
            done = written // self._layout.size
            del self._held[: done * self._layout.size]
            self._written += done

    def floor(self, key: int, column: int = 0) -> Entry | None:
        """The last entry whose ``column`` is <= ``key``."""
        held = [entry for entry in self._layout.iter_unpack(self._held) if entry[column] <= key]
        if held:
            return held[-1]
        found = floor_entry(self._fd, self._layout, self._written, key, column)
        return found[1] if found else None

    def cut_after(self, key: int, column: int = 0) -> None:
        """Drop the entries whose ``column`` is over ``key``. OSError."""
        self.write_out()
        found = floor_entry(self._fd, self._layout, self._written, key, column)
        self._written = found[0] + 1 if found else 0
        self.last = found[1] if found else None
        os.ftruncate(self._fd, self._written * self._layout.size)

    def close(self) -> None:
        """Close the file. ``open`` opens it again."""
        os.close(self._fd)

    def open(self, flags: int = 0) -> None:
        """Open the file, with O_CREAT or O_TRUNC in ``flags`` where it is to be made. OSError."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | flags, 0o644)
        if self._written < 0:
            self._written = os.fstat(self._fd).st_size // self._layout.size
            self.last = self._entry(self._written - 1) if self._written else None

    def _entry(self, number: int) -> Entry:
        return self._layout.unpack(os.pread(self._fd, self._layout.size, number * self._layout.size))
