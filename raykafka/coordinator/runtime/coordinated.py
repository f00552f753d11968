"""What the runtime asks of the rules that are plugged into it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from raykafka.coordinator.step import Effect, Now


class Coordinated(Protocol):
    """All that one partition of an internal topic holds: pure rules over things that have a key each.

    A fresh one gets every record of the partition by ``replay`` and then one call of ``loaded``; from then on it is
    stepped. A key's state is kept until the appends it asked for are decided, after an Unload too.
    """

    @property
    def only_postpones(self) -> Collection[type]:
        """Frequent events that never bring a deadline forward: the timer is left as it is after them."""

    def replay(self, offset: int, key: bytes, value: bytes | None) -> None:
        """Take in the committed record at ``offset``; ``value`` None: a tombstone. Raises UnreadableRecord for one that
        is to be left out."""

    def loaded(self, now: Now) -> None:
        """Every record was replayed."""

    def keys(self) -> Collection[str]:
        """What there is."""

    def step(self, key: str, event: Any, now: Now) -> Sequence[Effect]:
        """Take in a request's event, Tick, Unload or Written of ``key``. A request event is replied to exactly once."""

    def next_deadline_ms(self, key: str) -> int | None:
        """When (boot-time clock) a Tick of ``key`` has something to do; None: never."""

    def encode(self, entry: Any) -> tuple[bytes, bytes | None]:
        """Key and value of the record that says an Append's ``entry``. Raises struct.error where a name is longer than
        its record can hold."""
