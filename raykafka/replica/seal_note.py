"""What a replica leaves behind when its log is closed: the note in the seal on the log (rule 17). It is JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raykafka.replica.rules.events import Seal


def note_of(seal: Seal) -> dict[str, Any]:
    """The seal of the rules as plain data."""
    return {"seal": list(seal)}


def seal_of(note: Mapping[str, Any] | None, passed_on: Sequence[Any] | None = None) -> Seal | None:
    """With which seal to open a log that has ``note``: the one that the actor told which closed it, as plain data, else
    the one in the note, by which nobody leads on (rule 17). None for a log that has no note."""
    if note is None:
        return None
    return Seal(*passed_on) if passed_on else Seal(*note["seal"]).as_found_on_disk()
