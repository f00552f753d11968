"""What ZooKeeper was ever told, read from its own transaction log: nothing is missed, however fast it came.

The format is that of ZooKeeper's FileTxnLog and its jute records: after a header, for each transaction a checksum, its
length, ``TxnHeader``, the transaction, and a ``B``.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_FILE_HEADER = struct.Struct(">4siq")
_ENTRY = struct.Struct(">qi")
_TXN_HEADER = struct.Struct(">qiqqi")
_INT = struct.Struct(">i")
_CREATES = (1, 15, 19, 21)
_DELETES = (2, 20)
_SET_DATA = 5
_MULTI = 14


class Change(NamedTuple):
    """A node was created or written (``data``), or deleted (None). ``at``: when, in seconds since the epoch, by the
    clock of the server that led."""

    zxid: int
    path: str
    data: bytes | None
    at: float


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def int(self) -> int:
        (value,) = _INT.unpack_from(self._data, self._at)
        self._at += _INT.size
        return value

    def buffer(self) -> bytes:
        length = max(self.int(), 0)
        self._at += length
        return bytes(self._data[self._at - length : self._at])

    def text(self) -> str:
        return self.buffer().decode()


def changes(data_dirs: Iterable[Path]) -> list[Change]:
    """Everything in the transaction logs of the servers at ``data_dirs``, in order. One that was away may have been
    sent a snapshot of what it missed: another one's log has it."""
    found: dict[int, list[Change]] = {}
    for data_dir in data_dirs:
        for zxid, group in itertools.groupby(_changes(data_dir), key=lambda change: change.zxid):
            found.setdefault(zxid, list(group))
    return [change for zxid in sorted(found) for change in found[zxid]]


def _changes(data_dir: Path) -> Iterator[Change]:
    logs = sorted((data_dir / "version-2").glob("log.*"), key=lambda path: int(path.suffix[1:], 16))
    for path in logs:
        data = memoryview(path.read_bytes())
        assert _FILE_HEADER.unpack_from(data)[:2] == (b"ZKLG", 2), path
        at = _FILE_HEADER.size
        while at + _ENTRY.size <= len(data):
            _, length = _ENTRY.unpack_from(data, at)
            at += _ENTRY.size
            if not length or at + length >= len(data) or data[at + length] != ord("B"):
                break  # what was allocated ahead, or is being written
            _, _, zxid, time_ms, kind = _TXN_HEADER.unpack_from(data, at)
            yield from _changes_of(zxid, kind, data[at + _TXN_HEADER.size : at + length], time_ms / 1000)
            at += length + 1


def _changes_of(zxid: int, kind: int, record: memoryview, time_s: float) -> Iterator[Change]:
    reader = _Reader(record)
    if kind in _CREATES or kind == _SET_DATA:
        yield Change(zxid, reader.text(), reader.buffer(), time_s)
    elif kind in _DELETES:
        yield Change(zxid, reader.text(), None, time_s)
    elif kind == _MULTI:
        for _ in range(reader.int()):
            yield from _changes_of(zxid, reader.int(), memoryview(reader.buffer()), time_s)


class Counts(NamedTuple):
    elections: int
    unclean_elections: int
    isr_shrinks: int
    isr_expands: int
    writes: int


def counts_of(data_dirs: Iterable[Path], chroot: str) -> Counts:
    """How often leaders and in-sync replicas of the cluster below ``chroot`` changed, taken from the states alone."""
    states: dict[str, dict] = {}
    elections = unclean = shrinks = expands = writes = 0
    prefix = f"{chroot}/brokers/topics/"
    for change in changes(data_dirs):
        if not change.path.startswith(prefix) or not change.path.endswith("/state"):
            continue
        before = states.pop(change.path, None)
        if change.data is None:
            continue
        state = states[change.path] = json.loads(change.data)
        if before is None:
            continue
        writes += 1
        was, now = set(before["isr"]), set(state["isr"])
        elections += state["leader_epoch"] != before["leader_epoch"] and state["leader"] != -1
        unclean += state["raykafka"]["unclean_epoch"] != before["raykafka"]["unclean_epoch"]
        shrinks += bool(was - now)
        expands += bool(now - was)
    return Counts(elections, unclean, shrinks, expands, writes)
