"""The appends of one partition on their way: to a replica process that there is not yet, or that has not answered."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from raykafka.error_code import ErrorCode
from raykafka.link import Link
from raykafka.partition.appends import APPEND, Appended, Done, pack_append

MAX_WAITING_BYTES = 64 * 1024 * 1024


class _Waiting(NamedTuple):
    records: memoryview
    acks: int
    timeout_ms: int
    leader_epoch: int
    done: Done


class PendingAppends:
    """Appends reach the log in the order of the calls. ``unanswered`` has what the process was sent, by correlation
    number: whoever takes its answers takes them out."""

    def __init__(self) -> None:
        self.unanswered: dict[int, Done] = {}
        self._link: Link | None = None
        self._outgoing: list[tuple[bytes, memoryview]] = []
        self._correlation = 0
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._loop = asyncio.get_running_loop()

    @property
    def are_sent(self) -> bool:
        """Whether any is on its way to the process, or back."""
        return bool(self.unanswered or self._outgoing)

    @property
    def are_waiting(self) -> bool:
        """Whether any waits for a process."""
        return bool(self._waiting)

    # with a process

    def attach(self, link: Link) -> None:
        """Send to this process from now on."""
        self._link = link

    def detach(self) -> None:
        """The process is gone. What was not sent yet is dropped; what it has not answered stays unanswered."""
        self._link = None
        self._outgoing.clear()

    def send(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        """Appends of one pass of the event loop go to the process in one write."""
        self._correlation = correlation = self._correlation + 1
        self.unanswered[correlation] = done
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append((pack_append(correlation, acks, leader_epoch, timeout_ms), records))

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if outgoing and self._link is not None:
            self._link.send_batches(APPEND, outgoing)

    def fail_unanswered(self, error: ErrorCode, message: str) -> None:
        """Answer ``error`` to all that the process had."""
        unanswered, self.unanswered = self.unanswered, {}
        for done in unanswered.values():
            done(Appended(-1, error, message=message))

    # without one

    def wait(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> bool:
        """Keep an append until there is a process. False when too much waits already: it is not kept."""
        if self._waiting_bytes + len(records) > MAX_WAITING_BYTES:
            return False
        self._waiting.append(_Waiting(records, acks, timeout_ms, leader_epoch, done))
        self._waiting_bytes += len(records)
        return True

    def send_waiting(self) -> None:
        """Send all that has waited, in order."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for append in waiting:
            self.send(*append)

    def fail_waiting(self, error: ErrorCode, message: str) -> None:
        """Answer ``error`` to all that waits."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for append in waiting:
            append.done(Appended(-1, error, message=message))
