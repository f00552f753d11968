"""What happened in a run, as the clients saw it: events, and the file that holds them.

Each line of the file is a JSON list: the event's kind and its fields. Moments (``at``) are seconds since the epoch on
the wall clock of the one machine, whose processes share it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Sent(NamedTuple):
    """A writer handed a record to its client. ``partition`` is -1 where the client chooses it, by ``key``."""

    writer: str
    number: int
    partition: int
    key: str
    at: float


class Acked(NamedTuple):
    """The client said that a record is written, at that offset: -1 where it only learned that it is."""

    writer: str
    number: int
    partition: int
    offset: int
    at: float


class Failed(NamedTuple):
    """The client gave a record up: it may be in the log or not."""

    writer: str
    number: int
    error: str
    at: float


class Read(NamedTuple):
    """A reader got a record."""

    reader: str
    partition: int
    offset: int
    writer: str
    number: int
    at: float


class Assigned(NamedTuple):
    """A member of the group was given a partition: its next read of it is where the group's commit says."""

    reader: str
    partition: int
    at: float


class Committed(NamedTuple):
    """A commit of the group, once it was acknowledged. ``offset`` is the next to read."""

    reader: str
    partition: int
    offset: int
    at: float


class Latest(NamedTuple):
    """An observer was told a partition's latest offset."""

    observer: str
    partition: int
    offset: int
    at: float


class Refused(NamedTuple):
    """A client showed an error that its documentation does not call retriable."""

    client: str
    error: str
    at: float


class Fault(NamedTuple):
    """Something was done to the cluster, and undone at ``ended`` (the same moment for a kill)."""

    kind: str
    what: str
    began: float
    ended: float


Event = Sent | Acked | Failed | Read | Assigned | Committed | Latest | Refused | Fault
KINDS: dict[str, type[Event]] = {
    kind.__name__.lower(): kind for kind in (Sent, Acked, Failed, Read, Assigned, Committed, Latest, Refused, Fault)
}


class Writer(NamedTuple):
    """What a kind of writer is promised. ``once``: no record of it is there twice, and those of one partition are in
    the order of sending. ``kept``: what is acknowledged to it is lost by unclean elections only, never by others."""

    name: str
    once: bool
    kept: bool
    keyed: bool = False


WRITERS = {
    writer.name: writer
    for writer in (
        Writer("idempotent", once=True, kept=True),  # enable.idempotence, acks=all
        Writer("keyed", once=True, kept=True, keyed=True),  # the same, and the client chooses the partition by key
        Writer("plain", once=False, kept=True),  # acks=all without idempotence: a retry may write it again
        Writer("leader", once=False, kept=False),  # acks=1
    )
}


def write(events: Iterable[Event]) -> str:
    """The lines of ``events``."""
    return "".join(json.dumps([type(event).__name__.lower(), *event]) + "\n" for event in events)


def read(path: Path) -> Iterator[Event]:
    """The events of a file. A line that a killed process left half-written, the last one, is passed over."""
    with path.open() as lines:
        for line in lines:
            if not line.endswith("\n"):
                return
            kind, *fields = json.loads(line)
            yield KINDS[kind](*fields)


def pack_value(writer: str, number: int, padding: int) -> bytes:
    """A record's value: who sent it, its number, and a checksum over these and ``padding`` bytes behind them."""
    body = f"{writer}/{number}/".encode() + b"." * padding
    return b"%08x/%s" % (zlib.crc32(body), body)


def unpack_value(value: bytes | None) -> tuple[str, int] | None:
    """Writer and number of a value; None when nobody wrote it so."""
    try:
        checksum, _, body = (value or b"").partition(b"/")
        if int(checksum, 16) != zlib.crc32(body):
            return None
        writer, number, _ = body.split(b"/", 2)
        return writer.decode(), int(number)
    except ValueError:
        return None
