"""One local partition in its broker: the life of its replica process, what may be read, and the appends on their way.

A partition sleeps until it is written, and again when it has long been idle: it has no process, and is read by the seal
that its last process left, or as the empty log it is (rule 17). A write, a leader's stream, or a log without a seal
wakes it: a spare replica process opens the log. From then on the broker appends through the replica's link, and reads
the segment files itself, as far as the replica's views allow (rules 20, 21).
"""

from __future__ import annotations

import asyncio
import enum
import logging
import socket
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from raykafka.broker.partitions.replication_throttle import ReplicationThrottle
from raykafka.broker.partitions.sleeping import SleepingLog, never_written
from raykafka.cluster.image import BrokerInfo, PartitionState, partition_to_json
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link
from raykafka.link.messages import ANY_EPOCH, APPEND, APPENDED, VIEW, Appended, View, pack_append
from raykafka.log import lock_holder
from raykafka.process.backoff import Backoff
from raykafka.process.clock import boot_clock
from raykafka.replica.leaving import Left
from raykafka.replica.rules.events import Propose
from raykafka.replica.rules.sealed import SealedEnd, behind
from raykafka.types import NO_EPOCH, TopicPartition

ACQUIRE_WITHIN_S = 30.0
CLOSE_WITHIN_S = 30.0
LEAVE_WITHIN_S = 3.0
LOCK_POLL_S = 0.01
MAX_QUEUED_BYTES = 64 * 1024 * 1024
# how long one stays awake that was only woken for others to catch up
BRIEFLY_S = 1.0
# how soon one is asked again that could not fall asleep
DOZE_AGAIN_S = 1.0

logger = logging.getLogger(__name__)

Peers = Mapping[int, tuple[str, int, int]]
Done = Callable[[Appended], None]


class Life(enum.StrEnum):
    ASLEEP = "asleep"
    WAKING = "waking"
    AWAKE = "awake"
    DOZING = "dozing"
    FAILED = "failed"
    CLOSED = "closed"


class ReplicaChild(Protocol):
    """A replica process of this broker, connected and nobody's yet."""

    note: str

    @property
    def link(self) -> Link: ...
    @property
    def actor_id(self) -> str: ...
    @property
    def pid(self) -> int: ...
    def hand_over(self, connection: socket.socket, peer: dict[str, Any]) -> None: ...
    def kill(self) -> None: ...


class ReplicaSource(Protocol):
    async def acquire_replica(self) -> ReplicaChild: ...


class Checkpoint(NamedTuple):
    """What the checkpoint files hold of a partition; None where there is no entry."""

    recovery_point: int | None = None
    high_watermark: int | None = None
    log_start_offset: int | None = None


@dataclass(slots=True)
class Surroundings:
    """What all partitions of a broker share. ``report_failed(tp, state, reason)`` returns once the controller knows
    that the leadership ``state`` has ended; ``propose(tp, topic id, proposal)`` asks the controller for an ISR (rule
    7); ``rouse(tp, topic id, state)`` tells the followers' brokers that the leader wakes. ``brokers`` are those that
    are alive; ``replica_failures`` counts replica processes that ended before they were let go."""

    broker_id: int
    log_dir: Path
    children: ReplicaSource
    report_failed: Callable[[TopicPartition, PartitionState, str], Awaitable[None]]
    propose: Callable[[TopicPartition, uuid.UUID, dict[str, Any]], Awaitable[None]]
    rouse: Callable[[TopicPartition, uuid.UUID, PartitionState], None]
    throttle: ReplicationThrottle = field(default_factory=ReplicationThrottle)
    brokers: Mapping[int, BrokerInfo] = field(default_factory=dict)
    replica_failures: int = 0
    cold_reads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=4, thread_name_prefix="cold-read")
    )


class _Queued(NamedTuple):
    records: memoryview
    acks: int
    timeout_ms: int
    leader_epoch: int
    done: Done


def directory_name(tp: TopicPartition) -> str:
    return f"{tp.topic}-{tp.partition}"


class PartitionHost(SleepingLog):
    """A partition of this broker, and what may be read of it. All methods run on the broker's event loop."""

    def __init__(
        self,
        surroundings: Surroundings,
        tp: TopicPartition,
        topic_id: uuid.UUID,
        state: PartitionState,
        config: Mapping[str, str],
        *,
        checkpoint: Checkpoint,
        on_disk: bool,
        left: Left | None = None,
        known_epoch: int = NO_EPOCH,
        after: Awaitable[None] | None = None,
    ) -> None:
        """``on_disk``: the directory holds a log, and ``left`` is what its seal says, None without one. ``known_epoch``
        is what an earlier life of the broker obeyed asleep. ``after``: what must end before the directory is
        touched."""
        super().__init__(surroundings.log_dir / directory_name(tp), surroundings.cold_reads)
        self.tp = tp
        self.topic_id = topic_id
        self.state = state
        self.config = config
        self.left = left if on_disk else never_written()
        self.known_epoch = known_epoch
        self.life = Life.ASLEEP
        self.child: ReplicaChild | None = None
        self._leaving: ReplicaChild | None = None
        self.restarts = 0
        self._last_end = 0.0
        self.figures: dict[str, Any] = {}
        self.failure = ""
        self._diverged = False
        self._around = surroundings
        self._after = after
        self._checkpoint = checkpoint
        self._on_disk = on_disk
        self._told: tuple[PartitionState, Mapping[str, str], Peers] | None = None
        self._streams: dict[Link, int] = {}
        self._telling: asyncio.Task[None] | None = None
        self._failed_epoch = -1
        self._pending: dict[int, Done] = {}
        self._outgoing: list[tuple[bytes, memoryview]] = []
        self._correlation = 0
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff()
        self._tasks: set[asyncio.Task[None]] = set()
        self._used_at = self._loop.time()
        self._briefly = False
        if self.left is None or self.obey_asleep(surroundings.broker_id, state):
            self._wake()

    # who leads

    @property
    def is_leader(self) -> bool:
        return self.state.leader == self._around.broker_id and self.life is not Life.CLOSED

    def leader_error(self, leader_epoch: int = ANY_EPOCH) -> ErrorCode:
        """NONE when this broker leads the partition, in that epoch if one is given (KIP-320's fencing)."""
        if leader_epoch >= 0 and leader_epoch != self.state.leader_epoch:
            newer = leader_epoch > self.state.leader_epoch
            return ErrorCode.UNKNOWN_LEADER_EPOCH if newer else ErrorCode.FENCED_LEADER_EPOCH
        return ErrorCode.NONE if self.is_leader else ErrorCode.NOT_LEADER_OR_FOLLOWER

    def apply(self, state: PartitionState, config: Mapping[str, str]) -> asyncio.Task[None] | None:
        """Take a state and config, unless the state is older than one seen before (rule 16). What is returned, if
        anything, ends when the replica goes by them."""
        if (state.leader_epoch, state.version) < (self.state.leader_epoch, self.state.version):
            logger.error("%s: refused %s after %s", self.tp, state, self.state)
            return None
        if state.version > self.state.version:
            self.asked.clear()
        self.state, self.config = state, config
        if self.life is Life.CLOSED:
            return None
        needed = self.life is Life.ASLEEP and self.obey_asleep(self._around.broker_id, state)
        if not self.is_leader:
            self._fail_queue(ErrorCode.NOT_LEADER_OR_FOLLOWER, "this broker leads the partition no longer")
        self.changed()
        if self.life is Life.FAILED and self._may_try_again():
            self._wake()
        if needed:
            self._wake()
        if self.life is Life.AWAKE and self._told != self._wanted():
            heard = self._told is not None and self._told[:2] == (state, config)
            if self._telling is None or self._telling.done():
                self._telling = self._run(self._tell())
            # who else is alive is news that nobody waits for
            return None if heard else self._telling
        return None

    def _may_try_again(self) -> bool:
        """An epoch whose leader failed is led no more (rule 1), and from a leader whose log is another one there is
        nothing to follow (rule 10)."""
        return self.state.leader_epoch != self._failed_epoch or not (self.is_leader or self._diverged)

    def behind(self) -> tuple[int, ...]:
        """The live replicas that this broker has to get back into the ISR; none unless it leads and sleeps."""
        return behind(self._around.broker_id, self.state, self._around.brokers) if self.life is Life.ASLEEP else ()

    def ask_asleep(self, found: Mapping[int, SealedEnd]) -> Propose | None:
        """The ISR to ask the controller for, while this leader sleeps, with those of ``found`` that sleep on the same
        log."""
        if self.life is not Life.ASLEEP:
            return None
        around = self._around
        epochs = {broker: info.epoch for broker, info in around.brokers.items()}
        return self.ask_for_isr(around.broker_id, self.state, epochs, found)

    def _wanted(self) -> tuple[PartitionState, Mapping[str, str], Peers]:
        """What the replica has to go by: where the brokers live that hold this partition is part of it."""
        state, brokers = self.state, self._around.brokers
        holders = {b: brokers[b] for b in (*state.replicas, *state.isr) if b in brokers}
        return state, self.config, {b: (i.link_host, i.link_port, i.epoch) for b, i in holders.items()}

    # appends

    def submit(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        """Have the replica append ``records``; ``done`` is called once with what became of them, perhaps before this
        returns. Appends reach the log in the order of the calls. ``records`` must not change afterwards."""
        if self.life is Life.AWAKE and self.child is not None:
            self._send(records, acks, timeout_ms, leader_epoch, done)
            return
        error = self.leader_error()
        if error is ErrorCode.NONE and self.life is Life.FAILED:
            error = ErrorCode.NOT_LEADER_OR_FOLLOWER
        if error is ErrorCode.NONE and self._queued_bytes + len(records) > MAX_QUEUED_BYTES:
            error = ErrorCode.REQUEST_TIMED_OUT
        if error is not ErrorCode.NONE:
            done(Appended(-1, error))
            return
        self._queue.append(_Queued(records, acks, timeout_ms, leader_epoch, done))
        self._queued_bytes += len(records)
        if self.life is Life.ASLEEP:
            self._wake()

    def append(
        self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int = ANY_EPOCH
    ) -> asyncio.Future[Appended]:
        """``submit`` for who wants to await the outcome."""
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()

        def done(appended: Appended) -> None:
            if not future.done():
                future.set_result(appended)

        self.submit(records, acks, timeout_ms, leader_epoch, done)
        return future

    def _send(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        """Appends of one turn of the event loop go to the replica in one write."""
        self._briefly = False
        self._correlation = correlation = self._correlation + 1
        self._pending[correlation] = done
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append((pack_append(correlation, acks, leader_epoch, timeout_ms), records))

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if outgoing and self.child is not None:
            self.child.link.send_batches(APPEND, outgoing)

    def _fail_queue(self, error: ErrorCode, message: str) -> None:
        queue, self._queue, self._queued_bytes = self._queue, deque(), 0
        for queued in queue:
            queued.done(Appended(-1, error, message=message))

    # the replica process

    def wake_for_others(self) -> None:
        """Have a sleeping leader get others back into the ISR, and fall asleep soon after."""
        if self.life is Life.ASLEEP:
            self._briefly = True
            self._wake()

    @property
    def is_up_briefly(self) -> bool:
        """Whether it is awake only for others to catch up."""
        return self._briefly and self.life in (Life.WAKING, Life.AWAKE, Life.DOZING)

    def rouse(self, leader_epoch: int) -> None:
        """The leader of that epoch wakes, and its stream will come: open the log meanwhile."""
        if self.life is Life.ASLEEP and not self.is_leader and leader_epoch == self.state.leader_epoch:
            self._wake()

    def _wake(self) -> None:
        if self.is_leader:
            self._around.rouse(self.tp, self.topic_id, self.state)
        self.life = Life.WAKING
        self._diverged = False
        self._run(self._wake_replica())

    async def _wake_replica(self) -> None:
        if self._after is not None:
            await asyncio.wait([asyncio.ensure_future(self._after)])  # where it failed, opening the log tells why
            self._after = None
        await asyncio.sleep(self._backoff.delay_s)
        await self._wait_for_lock()
        child = await self._acquire()
        link = child.link
        if self.life is not Life.WAKING:
            link.close()
            return
        self.child = child
        child.note = str(self.tp)
        link.start(
            on_frame=self._frame,
            on_call=self._called,
            on_close=lambda error: self._ended(link, "its process ended"),
        )
        try:
            await self._open(link)
        except (KafkaError, LinkError) as error:
            self._ended(link, f"it could not be opened: {error}")

    async def _wait_for_lock(self) -> None:
        """Until the last process has let the log go (rule 4); it is killed if that takes long."""
        leaving = self._leaving
        if leaving is None:
            return
        deadline = self._loop.time() + LEAVE_WITHIN_S
        while _is_locked(self.directory):
            if self._loop.time() > deadline:
                logger.error("%s: process %d holds the log and is killed", self.tp, leaving.pid)
                leaving.kill()
                deadline += LEAVE_WITHIN_S
            await asyncio.sleep(LOCK_POLL_S)
        self._leaving = None

    async def _acquire(self) -> ReplicaChild:
        """A replica process. Appends do not wait for it forever; who opens a log that is on disk does."""
        acquiring = asyncio.ensure_future(self._around.children.acquire_replica())
        try:
            while not (await asyncio.wait([acquiring], timeout=ACQUIRE_WITHIN_S))[0]:
                logger.warning("%s has waited %.0f s for a replica process", self.tp, ACQUIRE_WITHIN_S)
                self._fail_queue(ErrorCode.REQUEST_TIMED_OUT, "no replica process could be started in time")
        except asyncio.CancelledError:
            acquiring.cancel()
            raise
        return acquiring.result()

    async def _open(self, link: Link) -> None:
        state, config, peers = wanted = self._wanted()
        checkpoint = self._checkpoint
        left, asked = self.left, self.asked
        self.left, self.asked = None, []  # from here on only a close leaves something behind
        self._on_disk = True
        own = self._around.broker_id
        answer = await link.call(
            "open",
            {
                "topic": self.tp.topic,
                "topic_id": str(self.topic_id),
                "partition": self.tp.partition,
                "directory": str(self.directory),
                "broker_id": own,
                "broker_epoch": peers[own][-1] if own in peers else -1,
                "state": partition_to_json(state),
                "peers": peers,
                "config": dict(config),
                "recovery_point": checkpoint.recovery_point or 0,
                "high_watermark": checkpoint.high_watermark,
                "log_start_offset": checkpoint.log_start_offset or 0,
                "seal": list(left.seal) if left is not None else None,
                "known_epoch": self.known_epoch,
                "undecided": [sorted(isr) for isr in asked],
            },
        )
        if self.child is None or self.child.link is not link or self.life is not Life.WAKING:
            return
        if answer["recovered_bytes_cut"]:
            logger.warning("%s: recovery cut a torn tail of %d bytes", self.tp, answer["recovered_bytes_cut"])
        self._check_refused(answer)
        self._told = wanted
        self.failure = ""
        self._backoff.succeeded()
        self._go_on_awake()
        self.changed()

    def _go_on_awake(self) -> None:
        """Do what has waited while the replica could not take it."""
        self.life = Life.AWAKE
        self._used_at = self._loop.time()
        if self._told != self._wanted():
            self._telling = self._run(self._tell())
        queue, self._queue, self._queued_bytes = self._queue, deque(), 0
        for queued in queue:
            self._send(*queued)
        self._hand_over_streams()

    async def _tell(self) -> None:
        """Bring the replica to the newest state and config."""
        while self.life is Life.AWAKE and self.child is not None and self._told != self._wanted():
            child, wanted = self.child, self._wanted()
            link = child.link
            state, config, peers = wanted
            told_state, told_config, told_peers = self._told or (None, None, None)
            try:
                if config != told_config:
                    await link.call("config", {"config": dict(config)})
                if state != told_state or peers != told_peers:
                    args = {"state": partition_to_json(state), "peers": peers}
                    self._check_refused(await link.call("state", args))
            except KafkaError as error:
                self._ended(link, f"it could not take a new state: {error}")
                return
            except LinkError:
                return  # the link's end is handled where it is noticed
            self._told = wanted
            self._hand_over_streams()

    # what the replica says and gets beside frames

    async def _called(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        match method:
            case "failed":
                if self.child is not None:
                    self._diverged = bool(args.get("diverged"))
                    self._ended(self.child.link, args["reason"])
            case "propose":
                await self._propose(args)
            case "allowance":
                return await self._around.throttle.take(args)
            case "spent":
                self._around.throttle.spent(args)
            case "dozing":
                if self.life is Life.AWAKE:
                    self.life = Life.DOZING
            case "asleep":
                self._fell_asleep(args)
            case "figures":
                followers = args.get("followers", {})
                self.figures = {**args, "followers": {int(b): figures for b, figures in followers.items()}}
            case _:
                raise KafkaError(ErrorCode.INVALID_REQUEST, f"a broker does not answer {method!r}")
        return {}

    async def _propose(self, proposal: dict[str, Any]) -> None:
        try:
            await self._around.propose(self.tp, self.topic_id, proposal)
        except (KafkaError, LinkError, TimeoutError) as error:
            # the leader asks again until the state shows an answer
            logger.warning("%s: no answer to the ISR %s that was asked for: %s", self.tp, proposal["isr"], error)

    def take_stream(self, link: Link, leader_epoch: int) -> None:
        """A leader has connected: hand its connection to the replica once that knows of this leader epoch, which wakes
        one that sleeps (rules 3, 11). Closes one of an older epoch."""
        if leader_epoch < self.state.leader_epoch or self.life is Life.CLOSED or self._diverged:
            link.close()
            return
        self._streams[link] = leader_epoch
        link.ended.add_done_callback(lambda _: self._streams.pop(link, None))
        if self.life is Life.ASLEEP:
            self._wake()
        self._hand_over_streams()

    def _hand_over_streams(self) -> None:
        if self._told is None or self.life is not Life.AWAKE or self.child is None:
            return
        for link, leader_epoch in list(self._streams.items()):
            if leader_epoch <= self._told[0].leader_epoch:
                del self._streams[link]
                self._run(self._hand_over(link, self.child))

    async def _hand_over(self, link: Link, child: ReplicaChild) -> None:
        try:
            with await link.detach() as connection:
                child.hand_over(connection, link.peer)
        except (LinkError, OSError) as error:
            logger.warning("%s: a leader's connection could not be handed over: %s", self.tp, error)

    # falling asleep

    def doze_if_idle(self) -> None:
        """Have the replica fall asleep, if nothing was written for ``replica.idle.ms`` (0: never)."""
        idle_s = int(self.config.get("replica.idle.ms", 0)) / 1000
        if self.life is not Life.AWAKE or not idle_s or self.child is None:
            return
        if self._pending or self._outgoing or self._streams or (self._telling and not self._telling.done()):
            return
        idle_s = min(idle_s, BRIEFLY_S) if self._briefly else idle_s
        if self._loop.time() - self._used_at >= idle_s:
            self._used_at = self._loop.time() - idle_s + min(idle_s, DOZE_AGAIN_S)
            self.life = Life.DOZING
            self._run(self._doze(self.child.link))

    async def _doze(self, link: Link) -> None:
        """What is appended meanwhile waits, as in a sleeping partition."""
        used_at = self._used_at
        try:
            answer = await link.call("sleep", {}, CLOSE_WITHIN_S)
        except LinkError:
            return  # it has fallen asleep and told so, or its end is handled where it is noticed
        except (KafkaError, TimeoutError) as error:
            self._ended(link, f"it could not fall asleep: {error or type(error).__name__}")
            return
        if not answer["sleeps"] and self.life is Life.DOZING:
            self._go_on_awake()
            self._used_at = used_at

    def _fell_asleep(self, args: Mapping[str, Any]) -> None:
        child = self.child
        if child is None or self.life is Life.CLOSED:
            return
        if args["note"] is None:
            self._ended(child.link, "its log could not be sealed")
            return
        self.child = self._told = None
        self._leaving = child
        self.figures = {}
        self._outgoing.clear()
        self._take_note(args)
        self.life = Life.ASLEEP
        needed = self.obey_asleep(self._around.broker_id, self.state)
        if needed or self._queue or self._streams:
            self._wake()

    def _take_note(self, closed: Mapping[str, Any]) -> None:
        """Remember what a replica left when it closed its log."""
        log_start = self.view.log_start_offset if self.view else self._checkpoint.log_start_offset
        self.left = Left.of_note(closed["note"]) if closed["note"] is not None else None
        self._checkpoint = Checkpoint(closed["recovery_point"], closed["high_watermark"], log_start)

    def _check_refused(self, answer: dict[str, Any]) -> None:
        """A replica that can't lead the epoch it was told to says so; the controller has to decide again (rule 1)."""
        if answer["refused"]:
            logger.warning("%s can't lead epoch %d: %s", self.tp, self.state.leader_epoch, answer["refused"])
            self._report(answer["refused"])

    def _report(self, reason: str) -> None:
        if self.is_leader:
            self._run(self._around.report_failed(self.tp, self.state, reason))

    def _ended(self, link: Link, reason: str) -> None:
        """The replica process is gone, or no use any more: what it had promised is void (rules 1, 20)."""
        child = self.child
        if child is None or child.link is not link:
            return
        self.child = self._told = None
        self.figures = {}
        self._checkpoint = self.checkpoint
        self._outgoing.clear()
        link.close()
        self.show_nothing()
        pending, self._pending = self._pending, {}
        for done in pending.values():
            done(Appended(-1, ErrorCode.NOT_LEADER_OR_FOLLOWER, message=f"{self.tp}: {reason}"))
        if self.life is Life.CLOSED:
            return
        logger.error("%s (leader epoch %d): %s", self.tp, self.state.leader_epoch, reason)
        self._leaving = child
        self.life = Life.FAILED
        self.restarts += 1
        self._last_end = boot_clock()
        self.failure = reason
        self._around.replica_failures += 1
        self._failed_epoch = self.state.leader_epoch
        self._backoff.failed()
        self._fail_queue(ErrorCode.NOT_LEADER_OR_FOLLOWER, reason)
        self.changed()
        if self.is_leader:
            self._report(reason)
        elif self._may_try_again():
            self._wake()

    # frames of the replica

    def _frame(self, kind: int, payload: memoryview) -> None:
        if kind == APPENDED:
            appended = Appended.unpack(payload)
            done = self._pending.pop(appended.correlation, None)
            if done is not None:
                done(appended)
        elif kind == VIEW:
            view, before = View.unpack(payload), self.view
            if before is None or view.log_end_offset != before.log_end_offset:
                self._used_at = self._loop.time()
            self.show(view)

    # the end, and figures

    async def close(
        self, reason: ErrorCode = ErrorCode.NOT_LEADER_OR_FOLLOWER, *, frees_directory: bool = False
    ) -> bool:
        """Flush and close the log and let the process go. Appends that wait are answered ``reason``. True when the log
        was closed cleanly: it is whole up to its recovery point. ``frees_directory``: no process of this partition
        touches the directory any more when this returns."""
        deadline = self._loop.time() + CLOSE_WITHIN_S
        while self.life is Life.DOZING and self._loop.time() < deadline:
            await asyncio.sleep(LOCK_POLL_S)
        was_asleep = self.life is Life.ASLEEP
        was_awake = self.life is Life.AWAKE
        self.life = Life.CLOSED
        self._fail_queue(reason, "the partition was closed")
        self.changed()
        clean = was_asleep
        for stream in list(self._streams):
            stream.close()
        child = self.child
        if was_awake and child is not None:
            try:
                answer = await child.link.call("close", {}, CLOSE_WITHIN_S)
                self._take_note(answer)
                self.show_nothing()
                clean = answer["note"] is not None
            except (KafkaError, LinkError, TimeoutError) as error:
                logger.error("%s was not closed cleanly: %s", self.tp, error)
        if child is not None:
            if frees_directory and not clean:
                child.kill()  # it may be about to open the log, and has no lock yet that could be waited for
                await asyncio.wait([child.link.ended], timeout=LEAVE_WITHIN_S)
            child.link.close()
            await asyncio.wait([child.link.ended])
            self._ended(child.link, "the partition was closed")
        if frees_directory:
            await self._wait_for_lock()
        for task in list(self._tasks):
            task.cancel()
        return clean

    @property
    def checkpoint(self) -> Checkpoint:
        """What the checkpoint files should hold of this partition now."""
        view = self.view
        if view is None or self.reader is None:
            return self._checkpoint
        return Checkpoint(view.recovery_point, view.high_watermark, view.log_start_offset)

    @property
    def has_files(self) -> bool:
        """Whether a log was ever begun for it on this disk."""
        return self._on_disk

    def describe(self) -> dict[str, Any]:
        """Figures for status."""
        view, child = self.view, self.child
        return {
            "topic": self.tp.topic,
            "partition": self.tp.partition,
            "life": str(self.life),
            "leader": self.state.leader,
            "leader_epoch": self.state.leader_epoch,
            "pid": child.pid if child else None,
            "actor_id": child.actor_id if child else None,
            "restarts": self.restarts,
            "since_restart_s": round(boot_clock() - self._last_end, 1) if self.restarts else None,
            "failure": self.failure,
            "log_start_offset": view.log_start_offset if view else None,
            "high_watermark": view.high_watermark if view else None,
            "log_end_offset": view.log_end_offset if view else None,
            "followers": self.figures.get("followers", {}),
        }

    def _run(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("%s: a task failed", self.tp, exc_info=task.exception())


def _is_locked(directory: Path) -> bool:
    try:
        return lock_holder(directory) is not None
    except OSError:
        return False  # whoever opens the log finds out what is wrong with it
