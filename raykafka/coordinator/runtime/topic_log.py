"""An internal topic as its coordinator sees it: the replica actors of its broker append to and read from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from raykafka.coordinator.messages import (
    LOG_APPEND,
    LOG_APPENDED,
    LOG_READ,
    LOG_RECORDS,
    LogAppend,
    LogAppended,
    LogRead,
    LogRecords,
)
from raykafka.error_code import ErrorCode
from raykafka.link.link import Link
from raykafka.types import NOWHERE

AppendDone = Callable[[ErrorCode, int], None]


class TopicLog(Protocol):
    @property
    def topic(self) -> str: ...

    def append(
        self, partition: int, leader_epoch: int, records: bytes | bytearray, timeout_ms: int, done: AppendDone
    ) -> None:
        """Append with acks=all in ``leader_epoch`` only, in the order of the calls. ``done(error, base_offset)`` is
        called once, when the records are committed or refused."""

    async def read(
        self, partition: int, leader_epoch: int, offset: int, max_bytes: int
    ) -> tuple[LogRecords, memoryview]:
        """Whole committed batches from ``offset`` on, or from the log's start if that is higher, and the ends of the
        log, as the leader of ``leader_epoch`` knows them."""


class _Held(NamedTuple):
    """An append that is not sent yet."""

    leader_epoch: int
    records: bytes | bytearray
    timeout_ms: int
    done: AppendDone


@dataclass(eq=False, slots=True)
class _Way:
    """Over which actor's link the appends of one partition go, how many of them are undecided there, and those that
    wait for that."""

    partition: int
    actor: int = NOWHERE
    undecided: int = 0
    held: list[_Held] = field(default_factory=list)


class LinkedTopicLog:
    """TopicLog over the links to the replica actors, known by their numbers.

    Requests for a partition go to the actor that has its log, as far as the broker has said which (``placed``): what
    that one answers is as new as the log, and its appends end with it. A partition of which nothing was said goes over
    the link with the lowest number, and stays on that while it lives; actors reach the logs of one another. Where
    another link comes to be used, appends wait until those on the one before are decided, so that none overtakes
    another.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._links: dict[int, Link] = {}
        self._homes: dict[int, int] = {}
        self._ways: dict[int, _Way] = {}
        self._next_correlation = 0
        self._appends: dict[int, tuple[_Way, AppendDone]] = {}
        self._reads: dict[int, tuple[int, asyncio.Future[tuple[LogRecords, memoryview]]]] = {}

    # links

    def attach(self, actor: int, link: Link) -> None:
        """That actor can be reached: hand its link's frames to ``frame_received``, and ``detach`` it at its end."""
        self._links[actor] = link

    def detach(self, actor: int) -> None:
        """That actor's link ended: whether what was on its way got committed is not known here; all of it is
        refused."""
        self._links.pop(actor, None)
        for correlation in [number for number, (way, _) in self._appends.items() if way.actor == actor]:
            self._decided(correlation, ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)
        for reader, future in self._reads.values():
            if reader == actor and not future.done():
                future.set_result(_REFUSED)

    def placed(self, actors: Mapping[int, int]) -> None:
        """By partition, the number of the actor that has its log, NOWHERE while none has."""
        self._homes.update(actors)

    def _way(self, partition: int) -> _Way:
        return self._ways.setdefault(partition, _Way(partition))

    def _actor_for(self, way: _Way) -> int:
        """The actor that the next request for a partition goes to, or NOWHERE."""
        home = self._homes.get(way.partition)
        if home is not None and home in self._links:
            return home
        if way.actor in self._links:
            return way.actor
        return min(self._links, default=NOWHERE) if home is None else NOWHERE

    # requests

    def append(
        self, partition: int, leader_epoch: int, records: bytes | bytearray, timeout_ms: int, done: AppendDone
    ) -> None:
        way = self._way(partition)
        actor = self._actor_for(way)
        if way.held or (way.undecided and actor != way.actor):
            way.held.append(_Held(leader_epoch, records, timeout_ms, done))
            return
        if actor == NOWHERE:
            done(ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)
            return
        way.actor = actor
        way.undecided += 1
        self._next_correlation += 1
        self._appends[self._next_correlation] = way, done
        head = LogAppend(self._next_correlation, partition, leader_epoch, timeout_ms).pack()
        self._links[actor].send(LOG_APPEND, head, records)

    async def read(
        self, partition: int, leader_epoch: int, offset: int, max_bytes: int
    ) -> tuple[LogRecords, memoryview]:
        """Refused while no link leads there, and when the one that it was sent on ends."""
        actor = self._actor_for(self._way(partition))
        if actor == NOWHERE:
            return _REFUSED
        self._next_correlation += 1
        correlation = self._next_correlation
        future: asyncio.Future[tuple[LogRecords, memoryview]] = asyncio.get_running_loop().create_future()
        self._reads[correlation] = actor, future
        self._links[actor].send(LOG_READ, LogRead(correlation, partition, leader_epoch, offset, max_bytes).pack())
        try:
            return await future
        finally:
            self._reads.pop(correlation, None)

    # answers

    def frame_received(self, kind: int, payload: memoryview) -> None:
        if kind == LOG_APPENDED:
            answer = LogAppended.unpack(payload)
            self._decided(answer.correlation, answer.error, answer.base_offset)
        elif kind == LOG_RECORDS:
            head, records = LogRecords.unpack(payload)
            _, future = self._reads.get(head.correlation, (NOWHERE, None))
            if future is not None and not future.done():
                future.set_result((head, records))

    def _decided(self, correlation: int, error: ErrorCode, base_offset: int) -> None:
        found = self._appends.pop(correlation, None)
        if found is None:
            return
        way, done = found
        way.undecided -= 1
        done(error, base_offset)
        if not way.undecided and way.held:
            held, way.held = way.held, []
            for append in held:
                self.append(way.partition, *append)


_REFUSED = (LogRecords(0, ErrorCode.NOT_LEADER_OR_FOLLOWER), memoryview(b""))
