"""What a replica leaves behind when its log is closed: the note in the seal on the log (rule 17). It is JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raykafka.replica.rules.events import Seal


def note_of(seal: Seal) -> dict[str, Any]:
    """The seal of the rules as plain data."""
    return {"seal": list(seal)}


def seal_of(note: Mapping[str, Any]) -> Seal:
    """What ``note_of`` made plain data of."""
    return Seal(*note["seal"])
