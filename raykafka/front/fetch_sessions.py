"""Incremental fetch sessions (KIP-227): a client names its partitions once, then only what changes.

The broker remembers the partitions of a session in order, what it last told of each, and the epoch that the next
request must carry. At most ``max_sessions`` are kept (``max.incremental.fetch.session.cache.slots``); a new one takes
the place of one that was not used for ``eviction_ms`` (``min.incremental.fetch.session.eviction.ms``), or of an old
smaller one.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.process.clock import boot_clock_ms

NO_SESSION = 0
INITIAL_EPOCH = 0
FINAL_EPOCH = -1
DEFAULT_MAX_SESSIONS = 1000
DEFAULT_EVICTION_MS = 120_000


@dataclass(eq=False, slots=True)
class FetchPartition:
    """One partition as a client fetches it, and what the session's last response said of it.

    ``topic`` is None where the topic id is not known here. Epochs are -1 where the client gave none.
    """

    topic: str | None
    topic_id: uuid.UUID | None
    partition: int
    offset: int
    max_bytes: int
    current_leader_epoch: int = -1
    last_fetched_epoch: int = -1
    log_start_offset: int = -1
    told_high_watermark: int = -1
    told_log_start: int = -1

    @property
    def key(self) -> tuple[uuid.UUID | str | None, int]:
        return (self.topic_id or self.topic, self.partition)

    def take(self, newer: FetchPartition) -> None:
        """Fetch from now on as ``newer`` asks."""
        self.topic = newer.topic
        self.offset = newer.offset
        self.max_bytes = newer.max_bytes
        self.current_leader_epoch = newer.current_leader_epoch
        self.last_fetched_epoch = newer.last_fetched_epoch
        self.log_start_offset = newer.log_start_offset


Key = tuple[uuid.UUID | str | None, int]


@dataclass(eq=False, slots=True)
class FetchSession:
    """``partitions`` in the order in which they are served: one that gave records moves to the end."""

    id: int
    uses_topic_ids: bool
    partitions: dict[Key, FetchPartition]
    created_ms: int
    used_ms: int
    epoch: int = 1

    def move_to_end(self, key: Key) -> None:
        partition = self.partitions.pop(key, None)
        if partition is not None:
            self.partitions[key] = partition


@dataclass(slots=True)
class FetchPlan:
    """What one request fetches. ``incremental``: the response leaves out what did not change."""

    partitions: list[FetchPartition]
    session: FetchSession | None = None
    incremental: bool = False


@dataclass(slots=True)
class FetchSessions:
    """The sessions of the clients of one broker. Calls that take ``now_ms`` take boot-clock milliseconds."""

    max_sessions: int = DEFAULT_MAX_SESSIONS
    eviction_ms: int = DEFAULT_EVICTION_MS
    evicted: int = 0
    _sessions: dict[int, FetchSession] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._sessions)

    def plan(
        self,
        session_id: int,
        epoch: int,
        named: list[FetchPartition],
        forgotten: Iterable[Key],
        *,
        uses_topic_ids: bool,
        now_ms: int | None = None,
    ) -> FetchPlan:
        """What a request fetches that names ``named`` and drops ``forgotten``. Raises KafkaError when the session is
        not known, its epoch is another, or it began without topic ids and now has them (or the other way round)."""
        now_ms = boot_clock_ms() if now_ms is None else now_ms
        if epoch in (INITIAL_EPOCH, FINAL_EPOCH):
            if session_id != NO_SESSION:
                self._sessions.pop(session_id, None)
            if epoch == FINAL_EPOCH or not named:
                return FetchPlan(named)
            return FetchPlan(named, self._create(named, uses_topic_ids, now_ms))
        session = self._sessions.get(session_id)
        if session is None:
            raise KafkaError(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        if session.epoch != epoch:
            raise KafkaError(ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        if session.uses_topic_ids != uses_topic_ids:
            raise KafkaError(ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR)
        for partition in named:
            known = session.partitions.get(partition.key)
            if known is None:
                session.partitions[partition.key] = partition
            else:
                known.take(partition)
        for key in forgotten:
            session.partitions.pop(key, None)
        session.used_ms = now_ms
        if not session.partitions:
            del self._sessions[session.id]
            return FetchPlan([])
        session.epoch = 1 if session.epoch == 2**31 - 1 else session.epoch + 1
        return FetchPlan(list(session.partitions.values()), session, incremental=True)

    def _create(self, named: list[FetchPartition], uses_topic_ids: bool, now_ms: int) -> FetchSession | None:
        partitions = {partition.key: partition for partition in named}
        if len(self._sessions) >= self.max_sessions and not self._evict_one(len(partitions), now_ms):
            return None
        session_id = NO_SESSION
        while session_id == NO_SESSION or session_id in self._sessions:
            session_id = secrets.randbelow(2**31)
        session = FetchSession(session_id, uses_topic_ids, partitions, now_ms, now_ms)
        self._sessions[session_id] = session
        return session

    def _evict_one(self, size: int, now_ms: int) -> bool:
        """Make room for a session of ``size`` partitions, if one may go."""
        if not self._sessions:
            return False
        idle = min(self._sessions.values(), key=lambda s: s.used_ms)
        if now_ms - idle.used_ms <= self.eviction_ms:
            old = [s for s in self._sessions.values() if now_ms - s.created_ms > self.eviction_ms]
            smallest = min(old, key=lambda s: len(s.partitions), default=None)
            if smallest is None or len(smallest.partitions) >= size:
                return False
            idle = smallest
        del self._sessions[idle.id]
        self.evicted += 1
        return True
