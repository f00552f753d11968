"""A partition of the broker, as one of its replica actors serves it: written in this process or in a sibling's."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple, Protocol

from raykafka.cluster.image import PartitionState
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.partition.appends import ALL, ANY_EPOCH, NO_LEASE, Appended, Done
from raykafka.partition.log_view import LogView
from raykafka.process.tasks import call_alone
from raykafka.replica.refused_producers import RefusedProducers
from raykafka.types import PartitionKey, TopicPartition

MAX_WAITING_BYTES = 64 * 1024 * 1024
_LONGEST_WAIT_S = 30.0
_LOOK_EVERY_S = 0.25


class Writer(Protocol):
    """Who writes the log: the replica in this process, or the way to the one in a sibling's."""

    def append(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        """As ``access.PartitionAccess.submit``."""

    async def delete_records(self, offset: int) -> int:
        """As ``access.PartitionAccess.delete_records``."""


class _Waiting(NamedTuple):
    records: memoryview
    acks: int
    timeout_ms: int
    leader_epoch: int
    done: Done
    until_s: float


class ServedPartition:
    """``access.PartitionAccess``. ``submit`` is what is to be done with an append now: handed to the writer, kept until
    there is one, or refused.

    It is *opening* until somebody tells where it is (``attach``, ``nowhere``), and while it moves. ``holds_lease()``
    says whether acks 0 and 1 may be answered; what was kept may outlast the lease with which it came (rule 15).

    What is refused here is remembered as long as this broker leads, so that no later batch of an idempotent producer
    gets into the log before one that it will send again.
    """

    def __init__(
        self,
        broker_id: int,
        tp: TopicPartition,
        topic_id: uuid.UUID,
        state: PartitionState,
        log: LogView,
        holds_lease: Callable[[], bool],
    ) -> None:
        self.tp = tp
        self.topic_id = topic_id
        self.key = PartitionKey(tp.topic, topic_id, tp.partition)
        self.state = state
        self.log = log
        self.submit = self._keep
        self.is_opening = True
        self._broker_id = broker_id
        self._holds_lease = holds_lease
        self._source: object = None
        self._refusal = ""
        self._refused = RefusedProducers()
        self._writer: Writer | None = None
        self._is_gone = False
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._look: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    # who leads

    @property
    def is_leader(self) -> bool:
        return self.state.leader == self._broker_id and not self._is_gone

    def leader_error(self, leader_epoch: int = ANY_EPOCH) -> ErrorCode:
        if leader_epoch >= 0 and leader_epoch != self.state.leader_epoch:
            newer = leader_epoch > self.state.leader_epoch
            return ErrorCode.UNKNOWN_LEADER_EPOCH if newer else ErrorCode.FENCED_LEADER_EPOCH
        return ErrorCode.NONE if self.is_leader else ErrorCode.NOT_LEADER_OR_FOLLOWER

    def told(self, state: PartitionState) -> None:
        """Take the state that the image has."""
        before, self.state = self.state, state
        if not self.is_leader or state.leader_epoch > before.leader_epoch + 1:
            self._refused = RefusedProducers()  # another leader may have taken what was refused
        if not self.is_leader:
            self._fail_waiting(ErrorCode.NOT_LEADER_OR_FOLLOWER, "this broker does not lead the partition any more")
        self.log.changed()

    # where the writer is

    def go_by(self, source: object) -> None:
        """``source`` is where the log is written from now on: what any other says of it, or has said, counts for
        nothing."""
        if self._source is not source:
            self._source = source
            self.log.show_nothing()

    def goes_by(self, source: object) -> bool:
        """Whether ``source`` is where the log is written, as far as is known here."""
        return self._source is source

    def attach(self, writer: Writer) -> None:
        """The replica is open: hand it what waits, and everything from now on."""
        self.is_opening = False
        self._writer = writer
        waiting = self._take_waiting()
        self.submit = self._look_behind if waiting or self._refused else writer.append
        for append in waiting:
            if append.acks != ALL and not self._holds_lease():
                self._answer(append, ErrorCode.NOT_LEADER_OR_FOLLOWER, NO_LEASE)
            else:
                call_alone(partial(self.submit, *append[:-1]))
        if self._refused:
            self.submit = self._look_behind
        self.log.changed()

    def detach(self) -> None:
        """There is no writer for the moment: keep appends until there is one."""
        self.is_opening = True
        self._writer = None
        self.submit = self._keep
        self.log.changed()

    async def delete_records(self, offset: int) -> int:
        """As ``access.PartitionAccess.delete_records``."""
        error = self.leader_error()
        if error is not ErrorCode.NONE or self._writer is None:
            raise KafkaError(error or ErrorCode.NOT_LEADER_OR_FOLLOWER)
        return await self._writer.delete_records(offset)

    def withdraw(self, appends: Collection[Done]) -> None:
        """As ``access.PartitionAccess.withdraw``."""
        kept = [append for append in self._take_waiting() if append.done not in appends]
        for append in kept:
            self._wait(append)

    def nowhere(self, reason: str) -> None:
        """The replica is open nowhere, and nobody knows for how long."""
        self.is_opening = False
        self._writer = None
        self._refusal = reason
        self.submit = self._refuse
        self._fail_waiting(ErrorCode.NOT_LEADER_OR_FOLLOWER, reason)
        self.log.changed()

    def gone(self, error: ErrorCode) -> None:
        """This broker holds the partition no longer."""
        self._is_gone = True
        self.is_opening = False
        self._writer = None
        self._refusal = "this broker holds the partition no longer"
        self.submit = self._refuse
        self._fail_waiting(error, self._refusal)
        self.log.changed()

    # appends without a writer, or behind one that was refused

    def _refuse(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        if self.is_leader:
            self._refused.refused(records, ErrorCode.NOT_LEADER_OR_FOLLOWER)
        done(Appended(-1, ErrorCode.NOT_LEADER_OR_FOLLOWER, message=self._refusal))

    def _look_behind(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        """Hand it to the writer, unless one before it was refused here and has not come again."""
        assert self._writer is not None
        error = self._refused.behind(records)
        if error is not ErrorCode.NONE:
            done(Appended(-1, error, message="a batch before it was refused, and has not come again"))
            return
        self._refused.taken(records)
        if not self._refused:
            self.submit = self._writer.append
        self._writer.append(records, acks, timeout_ms, leader_epoch, done)

    def _keep(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        until_s = self._loop.time() + min(timeout_ms / 1000, _LONGEST_WAIT_S)
        append = _Waiting(records, acks, timeout_ms, leader_epoch, done, until_s)
        error = self.leader_error()
        if error is ErrorCode.NONE and self._waiting_bytes + len(records) > MAX_WAITING_BYTES:
            error = ErrorCode.REQUEST_TIMED_OUT
        if error is ErrorCode.NONE:
            error = self._refused.behind(records)
        if error is ErrorCode.NONE:
            self._refused.taken(records)
            self._wait(append)
        else:
            self._answer(append, error)

    def _wait(self, append: _Waiting) -> None:
        self._waiting.append(append)
        self._waiting_bytes += len(append.records)
        if self._look is None:
            self._look = self._loop.call_later(_LOOK_EVERY_S, self._time_out)

    def _time_out(self) -> None:
        """Answer what has waited for its time-out; nothing that came later is kept longer than what came before it."""
        self._look = None
        now_s, late = self._loop.time(), 0
        for number, append in enumerate(self._waiting):
            if append.until_s <= now_s:
                late = number + 1
        gone, self._waiting = self._waiting[:late], self._waiting[late:]
        self._waiting_bytes -= sum(len(append.records) for append in gone)
        if self._waiting:
            self._look = self._loop.call_later(_LOOK_EVERY_S, self._time_out)
        for append in gone:
            self._answer(append, ErrorCode.REQUEST_TIMED_OUT, "the log could not be opened in time")

    def _take_waiting(self) -> list[_Waiting]:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if self._look is not None:
            self._look.cancel()
            self._look = None
        return waiting

    def _fail_waiting(self, error: ErrorCode, message: str) -> None:
        for append in self._take_waiting():
            self._answer(append, error, message)

    def _answer(self, append: _Waiting, error: ErrorCode, message: str = "") -> None:
        """It is not written."""
        if self.is_leader:
            self._refused.refused(append.records, error)
        append.done(Appended(-1, error, message=message))
