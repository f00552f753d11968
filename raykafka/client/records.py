"""What goes in and comes out of the handles."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from raykafka.errors import ClientError


class RecordMetadata(NamedTuple):
    """Where an acknowledged record is."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Record:
    """A consumed record; ``value`` None is a tombstone. ``timestamp_ms`` is wall-clock time since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    allow_pickle: bool = field(default=False, repr=False)

    def text(self) -> str:
        """The value as UTF-8 text; empty for a tombstone."""
        return (self.value or b"").decode()

    def json(self) -> Any:
        """The value parsed as JSON; None for a tombstone."""
        return None if self.value is None else json.loads(self.value)

    def object(self) -> Any:
        """The Python object that ``send_object`` stored; None for a tombstone.

        Unpickling runs what the sender chose: raises ClientError unless the consumer has ``allow_pickle=True``.
        """
        if not self.allow_pickle:
            raise ClientError(
                "This consumer does not unpickle: make it with allow_pickle=True if you trust the senders."
            )
        return None if self.value is None else pickle.loads(self.value)


def payload(value: Any) -> bytes | None:
    """What is stored for ``value``: bytes as they are, text as UTF-8, None as nothing, other values as JSON."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    try:
        return json.dumps(value, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise ClientError(f"A {type(value).__name__} can't be sent as JSON ({error}): use send_object.") from None
