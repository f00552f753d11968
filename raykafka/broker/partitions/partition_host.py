"""One local partition in its broker: the life of its replica process.

A partition sleeps until it is written, and again when it has long been idle: it has no process, and is read by the seal
that its last process left, or as the empty log it is (rule 17). A write, a leader's stream, or a log without a seal
wakes it: a spare replica process opens the log. From then on the broker appends through the replica's link, and reads
the segment files itself, as far as the replica's views allow (rules 20, 21).
"""

from __future__ import annotations

import asyncio
import enum
import logging
import uuid
from collections.abc import Awaitable, Mapping
from typing import Any

from raykafka.broker.partitions.broker_parts import BrokerParts
from raykafka.broker.partitions.idleness import Idleness
from raykafka.broker.partitions.pending_appends import PendingAppends
from raykafka.broker.partitions.replica_process import (
    CLOSE_WITHIN_S,
    LEAVE_WITHIN_S,
    LOCK_POLL_S,
    Orders,
    ReplicaProcess,
)
from raykafka.broker.partitions.sleeping import Checkpoint, SleepingLog
from raykafka.broker.partitions.waiting_streams import WaitingStreams
from raykafka.cluster.image import PartitionState
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link
from raykafka.partition.appends import ANY_EPOCH, APPENDED, Appended, Done
from raykafka.partition.log_view import LogView
from raykafka.partition.view import VIEW, View
from raykafka.process.backoff import Backoff
from raykafka.process.clock import boot_clock
from raykafka.process.tasks import TaskSet
from raykafka.replica.rules.events import Propose
from raykafka.replica.rules.sealed import SealedEnd, behind
from raykafka.replica.seal_note import SealNote
from raykafka.types import TopicPartition

logger = logging.getLogger(__name__)


class Life(enum.StrEnum):
    ASLEEP = "asleep"
    WAKING = "waking"
    AWAKE = "awake"
    DOZING = "dozing"
    FAILED = "failed"
    CLOSED = "closed"


def directory_name(tp: TopicPartition) -> str:
    return f"{tp.topic}-{tp.partition}"


class PartitionHost:
    """A partition of this broker (``access.PartitionAccess``). ``log`` is what may be read of it, ``sleeping`` what is
    known of it without a process, ``appends`` those on their way. ``follower_progress`` is what its leader replica last
    told of its followers. All methods run on the broker's event loop."""

    def __init__(
        self,
        parts: BrokerParts,
        tp: TopicPartition,
        topic_id: uuid.UUID,
        state: PartitionState,
        config: Mapping[str, str],
        *,
        checkpoint: Checkpoint,
        on_disk: bool,
        left: SealNote | None = None,
        after: Awaitable[None] | None = None,
    ) -> None:
        """``on_disk``: the directory holds a log, and ``left`` is what its seal says, None without one. ``after``: what
        must end before the directory is touched."""
        self.tp = tp
        self.topic_id = topic_id
        self.state = state
        self.config = config
        self.life = Life.ASLEEP
        self.log = LogView(parts.log_dir / directory_name(tp), parts.cold_reads)
        self.sleeping = SleepingLog(self.log, checkpoint, left, has_files=on_disk)
        self.appends = PendingAppends()
        self.restarts = 0
        self.failure = ""
        self.follower_progress: dict[str, Any] = {}
        self._parts = parts
        self._process = ReplicaProcess(tp, self.log.directory, parts.replicas)
        self._tasks = TaskSet(str(tp))
        self._streams = WaitingStreams(tp, self._tasks)
        self._after = after
        self._last_end = 0.0
        self._diverged = False
        self._telling: asyncio.Task[None] | None = None
        self._failed_epoch = -1
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff()
        self._idle = Idleness()
        if self.sleeping.left is None or self.sleeping.obey(parts.broker_id, state):
            self._wake()

    # who leads

    @property
    def is_leader(self) -> bool:
        return self.state.leader == self._parts.broker_id and self.life is not Life.CLOSED

    @property
    def is_opening(self) -> bool:
        return self.life is Life.WAKING

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
            self.sleeping.undecided.clear()
        self.state, self.config = state, config
        if self.life is Life.CLOSED:
            return None
        needed = self.life is Life.ASLEEP and self.sleeping.obey(self._parts.broker_id, state)
        if not self.is_leader:
            self.appends.fail_waiting(ErrorCode.NOT_LEADER_OR_FOLLOWER, "this broker leads the partition no longer")
        self.log.changed()
        if self.life is Life.FAILED and self._may_try_again():
            self._wake()
        if needed:
            self._wake()
        told = self._process.told
        if self.life is Life.AWAKE and told != self._orders():
            heard = told is not None and told[:2] == (state, config)
            if self._telling is None or self._telling.done():
                self._telling = self._tasks.run(self._tell())
            # who else is alive is news that nobody waits for
            return None if heard else self._telling
        return None

    def _may_try_again(self) -> bool:
        """An epoch whose leader failed is led no more (rule 1), and from a leader whose log is another one there is
        nothing to follow (rule 10)."""
        return self.state.leader_epoch != self._failed_epoch or not (self.is_leader or self._diverged)

    def behind(self) -> tuple[int, ...]:
        """The live replicas that this broker has to get back into the ISR; none unless it leads and sleeps."""
        return behind(self._parts.broker_id, self.state, self._parts.brokers) if self.life is Life.ASLEEP else ()

    def propose_asleep(self, found: Mapping[int, SealedEnd]) -> Propose | None:
        """The ISR to ask the controller for, while this leader sleeps, with those of ``found`` that sleep on the same
        log."""
        if self.life is not Life.ASLEEP:
            return None
        epochs = {broker: info.epoch for broker, info in self._parts.brokers.items()}
        return self.sleeping.propose(self._parts.broker_id, self.state, epochs, found)

    def _orders(self) -> Orders:
        state, brokers = self.state, self._parts.brokers
        holders = {b: brokers[b] for b in (*state.replicas, *state.isr) if b in brokers}
        return Orders(state, self.config, {b: (i.link_host, i.link_port, i.epoch) for b, i in holders.items()})

    # appends

    def submit(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        """Append ``records`` as leader; ``done`` is called once with the outcome, perhaps before this returns. Appends
        reach the log in the order of the calls. ``records`` must not change afterwards."""
        if self.life is Life.AWAKE:
            self._idle.briefly = False
            self.appends.send(records, acks, timeout_ms, leader_epoch, done)
            return
        error = self.leader_error()
        if error is ErrorCode.NONE and self.life is Life.FAILED:
            error = ErrorCode.NOT_LEADER_OR_FOLLOWER
        if error is ErrorCode.NONE and not self.appends.wait(records, acks, timeout_ms, leader_epoch, done):
            error = ErrorCode.REQUEST_TIMED_OUT
        if error is not ErrorCode.NONE:
            done(Appended(-1, error))
        elif self.life is Life.ASLEEP:
            self._wake()

    # the replica process

    def wake_for_others(self) -> None:
        """Have a sleeping leader get others back into the ISR, and fall asleep soon after."""
        if self.life is Life.ASLEEP:
            self._idle.briefly = True
            self._wake()

    @property
    def is_up_briefly(self) -> bool:
        """Whether it is awake only for others to catch up."""
        return self._idle.briefly and self.life in (Life.WAKING, Life.AWAKE, Life.DOZING)

    def wake_follower(self, leader_epoch: int) -> None:
        """The leader of that epoch wakes, and its stream will come: open the log meanwhile."""
        if self.life is Life.ASLEEP and not self.is_leader and leader_epoch == self.state.leader_epoch:
            self._wake()

    def _wake(self) -> None:
        if self.is_leader:
            self._parts.wake_followers(self.tp, self.topic_id, self.state)
        self.life = Life.WAKING
        self._diverged = False
        self._tasks.run(self._wake_replica())

    async def _wake_replica(self) -> None:
        if self._after is not None:
            await asyncio.wait([asyncio.ensure_future(self._after)])  # where it failed, opening the log tells why
            self._after = None
        await asyncio.sleep(self._backoff.delay_s)
        child = await self._process.acquire(
            lambda: self.appends.fail_waiting(
                ErrorCode.REQUEST_TIMED_OUT, "no replica process could be started in time"
            )
        )
        link = child.link
        if self.life is not Life.WAKING:
            link.close()
            return
        self._process.child = child
        self.appends.attach(link)
        child.note = str(self.tp)
        link.start(
            on_frame=self._frame,
            on_call=self._called,
            on_close=lambda error: self._ended(link, "its process ended"),
        )
        orders = self._orders()
        try:
            answer = await self._process.open(child, self.topic_id, self._parts.broker_id, orders, self.sleeping.open())
        except (KafkaError, LinkError) as error:
            self._ended(link, f"it could not be opened: {error}")
            return
        if self._process.child is child and self.life is Life.WAKING:
            self._opened(orders, answer)

    def _opened(self, orders: Orders, answer: Mapping[str, Any]) -> None:
        if answer["recovered_bytes_cut"]:
            logger.warning("%s: recovery cut a torn tail of %d bytes", self.tp, answer["recovered_bytes_cut"])
        self._check_refused(answer["refused"])
        self._process.told = orders
        self.failure = ""
        self._backoff.succeeded()
        self._go_on_awake()
        self.log.changed()

    def _go_on_awake(self) -> None:
        """Do what has waited while the replica could not take it."""
        self.life = Life.AWAKE
        self._idle.used()
        if self._process.told != self._orders():
            self._telling = self._tasks.run(self._tell())
        if self.appends.are_waiting:
            self._idle.briefly = False
            self.appends.send_waiting()
        self._hand_over_streams()

    async def _tell(self) -> None:
        """Bring the replica to the newest state and config."""
        process = self._process
        while self.life is Life.AWAKE and process.child is not None and process.told != (orders := self._orders()):
            link = process.child.link
            try:
                refused = await process.tell(orders)
            except KafkaError as error:
                self._ended(link, f"it could not take a new state: {error}")
                return
            except LinkError:
                return  # the link's end is handled where it is noticed
            self._check_refused(refused)
            self._hand_over_streams()

    # what the replica says and gets beside frames

    async def _called(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        match method:
            case "failed":
                if self._process.child is not None:
                    self._diverged = bool(args.get("diverged"))
                    self._ended(self._process.child.link, args["reason"])
            case "propose":
                await self._parts.propose(self.tp, self.topic_id, args)
            case "allowance":
                return await self._parts.throttle.take(args)
            case "spent":
                self._parts.throttle.spent(args)
            case "dozing":
                if self.life is Life.AWAKE:
                    self.life = Life.DOZING
            case "asleep":
                self._fell_asleep(args)
            case "follower_progress":
                followers = args.get("followers", {})
                self.follower_progress = {**args, "followers": {int(b): known for b, known in followers.items()}}
            case _:
                raise KafkaError(ErrorCode.INVALID_REQUEST, f"a broker does not answer {method!r}")
        return {}

    def take_stream(self, link: Link, leader_epoch: int) -> None:
        """A leader has connected: hand its connection to the replica once that knows of this leader epoch, which wakes
        one that sleeps (rules 3, 11). Closes one of an older epoch."""
        if leader_epoch < self.state.leader_epoch or self.life is Life.CLOSED or self._diverged:
            link.close()
            return
        self._streams.add(link, leader_epoch)
        if self.life is Life.ASLEEP:
            self._wake()
        self._hand_over_streams()

    def _hand_over_streams(self) -> None:
        process = self._process
        if self._streams and process.told is not None and self.life is Life.AWAKE and process.child is not None:
            self._streams.hand_over(process.child, process.told.state.leader_epoch)

    # falling asleep

    def doze_if_idle(self) -> None:
        """Have the replica fall asleep, if nothing was written for ``replica.idle.ms`` (0: never)."""
        idle_s = int(self.config.get("replica.idle.ms", 0)) / 1000
        child = self._process.child
        if self.life is not Life.AWAKE or not idle_s or child is None:
            return
        if self.appends.are_sent or self._streams or (self._telling and not self._telling.done()):
            return
        if self._idle.is_due(idle_s):
            self.life = Life.DOZING
            self._tasks.run(self._doze(child.link))

    async def _doze(self, link: Link) -> None:
        """What is appended meanwhile waits, as in a sleeping partition."""
        used_at_s = self._idle.used_at_s
        try:
            answer = await link.call("sleep", {}, CLOSE_WITHIN_S)
        except LinkError:
            return  # it has fallen asleep and told so, or its end is handled where it is noticed
        except (KafkaError, TimeoutError) as error:
            self._ended(link, f"it could not fall asleep: {error or type(error).__name__}")
            return
        if not answer["sleeps"] and self.life is Life.DOZING:
            self._go_on_awake()
            self._idle.used_at_s = used_at_s

    def _fell_asleep(self, answer: Mapping[str, Any]) -> None:
        child = self._process.child
        if child is None or self.life is Life.CLOSED:
            return
        if answer["note"] is None:
            self._ended(child.link, "its log could not be sealed")
            return
        self._process.gone(holds_log=True)
        self.appends.detach()
        self.follower_progress = {}
        self.sleeping.closed(answer)
        self.life = Life.ASLEEP
        needed = self.sleeping.obey(self._parts.broker_id, self.state)
        if needed or self.appends.are_waiting or self._streams:
            self._wake()

    def _check_refused(self, reason: str) -> None:
        """A replica that can't lead the epoch it was told to says so; the controller has to decide again (rule 1)."""
        if reason:
            logger.warning("%s can't lead epoch %d: %s", self.tp, self.state.leader_epoch, reason)
            self._report(reason)

    def _report(self, reason: str) -> None:
        if self.is_leader:
            self._tasks.run(self._parts.report_failed(self.tp, self.state, reason))

    def _ended(self, link: Link, reason: str) -> None:
        """The replica process is gone, or no use any more: what it had promised is void (rules 1, 20)."""
        child = self._process.child
        if child is None or child.link is not link:
            return
        closed = self.life is Life.CLOSED
        self._process.gone(holds_log=not closed)
        if not closed:
            self.life = Life.FAILED
        self.follower_progress = {}
        self.sleeping.checkpoint = self.sleeping.checkpoint_now()
        self.appends.detach()
        link.close()
        self.log.show_nothing()
        self.appends.fail_unanswered(ErrorCode.NOT_LEADER_OR_FOLLOWER, f"{self.tp}: {reason}")
        if closed:
            return
        logger.error("%s (leader epoch %d): %s", self.tp, self.state.leader_epoch, reason)
        self.restarts += 1
        self._last_end = boot_clock()
        self.failure = reason
        self._parts.replica_failures += 1
        self._failed_epoch = self.state.leader_epoch
        self._backoff.failed()
        self.appends.fail_waiting(ErrorCode.NOT_LEADER_OR_FOLLOWER, reason)
        self.log.changed()
        if self.is_leader:
            self._report(reason)
        elif self._may_try_again():
            self._wake()

    # frames of the replica

    def _frame(self, kind: int, payload: memoryview) -> None:
        if kind == APPENDED:
            appended = Appended.unpack(payload)
            done = self.appends.unanswered.pop(appended.correlation, None)
            if done is not None:
                done(appended)
        elif kind == VIEW:
            view, before = View.unpack(payload), self.log.view
            if before is None or view.log_end_offset != before.log_end_offset:
                self._idle.used()
            self.log.show(view)

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
        clean = was_asleep
        self.appends.fail_waiting(reason, "the partition was closed")
        self.log.changed()
        self._streams.close()
        child = self._process.child
        if was_awake and child is not None:
            try:
                answer = await child.link.call("close", {}, CLOSE_WITHIN_S)
                self.sleeping.closed(answer)
                self.log.show_nothing()
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
            await self._process.log_is_free()
        self._tasks.cancel()
        return clean

    def describe(self) -> dict[str, Any]:
        """Figures for status."""
        view, child = self.log.view, self._process.child
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
            "followers": self.follower_progress.get("followers", {}),
        }
