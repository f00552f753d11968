"""The active controller: the only writer of partition state, for as long as its epoch lasts (rule 16).

It holds all of ZooKeeper's metadata, decides in one place and one at a time (``_turn``), writes each decision to
ZooKeeper under its epoch, and only then tells the brokers, in order, through their channels. Brokers ask things of it
up the same sockets: to create topics, to take a leadership whose replica failed, and clients' admin requests.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionClosedError, SessionExpiredError

from raykafka.cluster.changes import Changes
from raykafka.cluster.image import BrokerInfo, ClusterImage, ImageDelta, PartitionState, Topic
from raykafka.config.effective import effective_broker_config, effective_topic_config
from raykafka.controller.channel import BrokerChannel
from raykafka.controller.decisions import isr_changes as asked
from raykafka.controller.decisions import leadership
from raykafka.controller.decisions import reassignments as reassignment_admin
from raykafka.controller.decisions import topics as topic_admin
from raykafka.controller.rules.elections import BrokerLife, after_changes, first_state
from raykafka.controller.rules.topics import Defaults
from raykafka.controller.serving import gate
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import dispatch
from raykafka.protocol.answer import Buffer
from raykafka.protocol.context import unpack_forward
from raykafka.types import NO_LEADER, TopicPartition
from raykafka.zookeeper import controller_store as metadata_store
from raykafka.zookeeper.client import Conflict
from raykafka.zookeeper.controller_store import Claim, ControllerFenced, ControllerStore, TopicRecord
from raykafka.zookeeper.znodes import Registration, StateNode, TopicNode

Silences = Mapping[int, tuple[int, float]]
_T = TypeVar("_T")
_CLUSTER_DEFAULT = ""
_NAMED = 5
# How long a new controller waits for brokers to take its connection before it decides: those of dead ones are refused
# at once, and their partitions are settled with all others.
_MEET_WITHIN_S = 0.25

logger = logging.getLogger(__name__)


class Controller:
    """One won election. ``start`` it, then it works until ``resigned`` is done (its result is the reason) or ``stop``.

    ``config`` holds the static broker configs of this controller's broker; ``silent_after_s`` is the session timeout;
    ``silences`` says of brokers which life of them (epoch) has been silent for how many seconds.
    """

    def __init__(
        self,
        *,
        client: KazooClient,
        claim: Claim,
        cluster_id: str,
        broker_id: int,
        secret: bytes,
        config: Mapping[str, str],
        silent_after_s: float,
        silences: Silences | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self.store = ControllerStore(client, claim)
        self.epoch = claim.epoch
        self.broker_id = broker_id
        self.static_config = dict(config)
        self.rng = rng or random.Random()
        self._secret = secret
        self._silent_after_s = silent_after_s
        self._silences = silences or {}
        self.image = ClusterImage(cluster_id, broker_id, claim.epoch)
        self.records: dict[str, TopicRecord] = {}
        self.deleting: dict[str, TopicRecord] = {}
        self.deleted_changes = Changes()
        self._registrations: dict[int, Registration] = {}
        self._channels: dict[int, BrokerChannel] = {}
        self._channel_tasks: dict[int, asyncio.Task[None]] = {}
        self._loaded = asyncio.Event()
        self._dead: dict[int, Registration] = {}
        self._leaving: dict[int, int] = {}
        self._sequence = 0
        self._progress = asyncio.Condition()
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.resigned: asyncio.Future[str] = self._loop.create_future()

    # life

    async def start(self) -> None:
        """Connect to the brokers, read everything, settle what changed while nobody was active."""
        async with self._turn:
            loading = asyncio.ensure_future(self.in_store(self.store.load))
            try:
                self._registrations = await self._read_brokers()
                for registration in self._registrations.values():
                    self._open_channel(registration)
                metadata = await loading
            finally:
                loading.cancel()
            self.records, self.deleting = metadata.topics, metadata.deleting
            self.deleted_changes = metadata.deleted_changes
            if self._channels:
                await asyncio.wait([channel.met for channel in self._channels.values()], timeout=_MEET_WITHIN_S)
            dead = self._take_dead()
            await self._give_first_states(self.records.values())
            self.image = ClusterImage(self.image.cluster_id, self.broker_id, self.epoch).apply(
                ImageDelta(
                    brokers={b: r.info for b, r in self._registrations.items()},
                    topics={name: as_topic(record) for name, record in self.records.items()},
                    broker_configs=metadata.broker_configs,
                )
            )
            await self.elect(self.all_partitions(), dead=dead, news=ImageDelta())
            self._loaded.set()
        for name in list(self.deleting):
            self.run(self._finish_deleting(name))
        self.run(leadership.keep_balanced(self))
        logger.info("controller on broker %d is active with epoch %d", self.broker_id, self.epoch)

    async def stop(self) -> None:
        """Stop deciding. The session, and with it ``/controller``, belong to the caller."""
        self.resign("it was stopped")
        tasks = [*self._tasks, *self._channel_tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def resign(self, reason: str) -> None:
        if not self.resigned.done():
            self.resigned.set_result(reason)

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run ``work`` beside everything else; one that fails unexpectedly ends this controller, and another is
        elected."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._work_done)

    def _work_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if not self.resigned.done():
                logger.error("the active controller failed", exc_info=error)
            self.resign(f"{type(error).__name__}: {error}")

    async def in_store(self, call: Callable[..., _T], *args: Any) -> _T:
        """Run a blocking call of the store in a thread. What shows that this controller is over also ends it."""
        try:
            return await asyncio.to_thread(call, *args)
        except (ControllerFenced, Conflict, SessionExpiredError, ConnectionClosedError) as error:
            self.resign(str(error) or type(error).__name__)
            raise KafkaError(ErrorCode.NOT_CONTROLLER, "this controller was deposed") from error

    # telling the brokers

    @property
    def sequence(self) -> int:
        """The number of the newest image, for ``acknowledged``."""
        return self._sequence

    def publish(self, delta: ImageDelta) -> int:
        """Apply a decision that ZooKeeper has taken, and send it to every broker. The answer is for
        ``acknowledged``."""
        self.image = self.image.apply(delta)
        self._sequence += 1
        for channel in self._channels.values():
            channel.publish(delta, self._sequence)
        return self._sequence

    async def acknowledged(self, sequence: int, timeout_s: float) -> bool:
        """Wait until every live broker goes by the image with that number; False when that takes too long."""
        try:
            async with asyncio.timeout(max(timeout_s, 0)), self._progress:
                await self._progress.wait_for(
                    lambda: all(channel.acknowledged >= sequence for channel in self._channels.values())
                )
        except TimeoutError:
            return False
        return True

    def _open_channel(self, registration: Registration) -> None:
        broker = registration.info.id
        epoch, silent_s = self._silences.get(broker, (-1, 0.0))
        channel = BrokerChannel(
            registration,
            identity={"role": "controller", "broker_id": self.broker_id, "controller_epoch": self.epoch},
            secret=self._secret,
            silent_after_s=self._silent_after_s,
            current=lambda: (self.image, self._sequence),
            on_progress=self._channels_changed,
            on_call=lambda method, args: self._on_call(broker, method, args),
            on_forward=self._on_forward,
            ready=self._loaded,
            silent_s=silent_s if epoch == registration.info.epoch and not self._loaded.is_set() else 0.0,
        )
        self._channels[broker] = channel
        self._channel_tasks[broker] = self._loop.create_task(self._attend(channel))

    async def _attend(self, channel: BrokerChannel) -> None:
        info = channel.registration.info
        try:
            reason = await channel.run()
        except Exception as error:
            logger.exception("the channel to broker %d failed", info.id)
            self.resign(f"{type(error).__name__}: {error}")
            return
        if not reason:
            self.resign(f"broker {info.id} knows a newer controller")
            return
        logger.warning("broker %d of epoch %d is dead: %s", info.id, info.epoch, reason)
        self._dead[info.id] = channel.registration
        self.run(self._bury())

    def _close_channel(self, broker: int) -> None:
        self._channels.pop(broker, None)
        task = self._channel_tasks.pop(broker, None)
        if task is not None:
            task.cancel()
        self._channels_changed()

    def _channels_changed(self) -> None:
        async def notify() -> None:
            async with self._progress:
                self._progress.notify_all()

        self.run(notify())

    # brokers come and go

    async def _read_brokers(self) -> dict[int, Registration]:
        return await self.in_store(metadata_store.read_brokers, self._client, self._brokers_touched)

    def _brokers_touched(self, event: Any) -> None:
        # runs in a kazoo thread, also when the connection to ZooKeeper was lost and watches with it
        self._loop.call_soon_threadsafe(self._look_at_brokers)

    def _look_at_brokers(self) -> None:
        if not self.resigned.done():
            self.run(self._brokers_changed())

    def _take_dead(self) -> list[Registration]:
        """Forget the brokers that were found dead; the answer is for ``elect``."""
        found, self._dead = self._dead, {}
        dead = [r for b, r in found.items() if b in self._registrations and self._registrations[b].info == r.info]
        for registration in dead:
            del self._registrations[registration.info.id]
            self._close_channel(registration.info.id)
        return dead

    async def _bury(self) -> None:
        """Remove dead brokers' registrations and settle what they led and followed, as one batch (rules 13, 14)."""
        async with self._turn:
            dead = self._take_dead()
            if dead:
                await self.elect(self.all_partitions(), dead=dead)
                logger.info("brokers now: %s", sorted(self._registrations))

    async def _brokers_changed(self) -> None:
        async with self._turn:
            now, before = await self._read_brokers(), self._registrations
            gone = [b for b in before if b not in now]
            changed = {b: r for b, r in now.items() if b not in before or before[b].info.epoch != r.info.epoch}
            if not gone and not changed:
                return
            self._registrations = now
            for broker in (*gone, *changed):
                self._close_channel(broker)
            news = ImageDelta(brokers={b: r.info for b, r in changed.items()}, removed_brokers=tuple(gone))
            await self.elect(self.all_partitions(), news=news)
            for registration in changed.values():
                self._open_channel(registration)
            logger.info("brokers now: %s (gone %s, new %s)", sorted(now), gone, sorted(changed))

    # partitions

    def lives(self) -> dict[int, BrokerLife]:
        return {b: BrokerLife.of(r) for b, r in self._registrations.items()}

    def note_leaving(self, broker: int) -> BrokerInfo | None:
        """This life of a broker is about to stop: it gets into no ISR and leads nothing new any more. None if there is
        none."""
        registration = self._registrations.get(broker)
        if registration is None:
            return None
        self._leaving[broker] = registration.info.epoch
        return registration.info

    @property
    def leaving(self) -> set[int]:
        """The registered brokers that are about to stop."""
        return {b for b, r in self._registrations.items() if self._leaving.get(b) == r.info.epoch}

    def racks(self) -> dict[int, str | None]:
        """Where replicas can be put: the registered brokers and their racks."""
        return {b: r.info.rack for b, r in self._registrations.items()}

    def all_partitions(self) -> Iterable[TopicPartition]:
        return [TopicPartition(name, p) for name, record in self.records.items() for p in record.states]

    async def elect_again(self, topics: Iterable[str]) -> None:
        """Look again at partitions whose rules have changed. Call it within ``turn``."""
        await self.elect([TopicPartition(name, p) for name in topics for p in self.records[name].states])

    async def elect(
        self,
        partitions: Iterable[TopicPartition],
        failed: int | None = None,
        short: bool = False,
        dead: Sequence[Registration] = (),
        news: ImageDelta | None = None,
    ) -> None:
        """Settle ``partitions`` as the registered brokers ask for; ``failed`` and ``short`` as in
        ``elections.after_changes``. The registrations of ``dead`` brokers are removed with that; the brokers are told
        of it, and of ``news``, together with the outcome."""
        lives, changes, wanted = self.lives(), {}, list(partitions)
        offline: list[TopicPartition] = []
        for tp in wanted:
            record = self.records[tp.topic]
            state, replicas = record.states[tp.partition], record.node.replicas[tp.partition]
            after = after_changes(replicas, state, lives, self.epoch, failed=failed, short=short)
            if (after or state).leader == NO_LEADER and self._allows_unclean(tp.topic):
                after = after_changes(replicas, state, lives, self.epoch, failed=failed, short=short, unclean=True)
            if after is None:
                continue
            changes[tp] = after
            if after.unclean_epoch != state.unclean_epoch:
                logger.error("%s: unclean election of broker %d, records may be lost", tp, after.leader)
            elif after.leader == NO_LEADER:
                offline.append(tp)
        if offline:
            named = ", ".join(map(str, offline[:_NAMED])) + (", ..." if len(offline) > _NAMED else "")
            logger.error("offline, as no replica with every acknowledged record lives: %d, %s", len(offline), named)
        await self.write_states(changes, dead, news)
        await reassignment_admin.go_on(self, wanted)

    async def write_states(
        self,
        changes: Mapping[TopicPartition, StateNode],
        dead: Sequence[Registration] = (),
        news: ImageDelta | None = None,
    ) -> None:
        """Write and publish decisions about partitions, and the end of ``dead`` brokers with them; within ``turn``.

        ``news`` of another life are checked with ZooKeeper though nothing may follow from them: that life has not heard
        of a newer controller yet, and would believe a deposed one (rule 16)."""
        if changes or dead or news is not None:
            written = await self.in_store(self.store.write_states, changes, dead)
            for tp, state in written.items():
                self.records[tp.topic].states[tp.partition] = state
        if dead:
            self.publish(ImageDelta(removed_brokers=tuple(r.info.id for r in dead)))
        if news is not None:
            self.publish(news)
        if changes:
            self.publish_partitions(changes)

    def _allows_unclean(self, topic: str) -> bool:
        key = "unclean.leader.election.enable"
        return self.topic_config(self.records[topic].config)[key] == "true"

    async def _give_first_states(self, records: Iterable[TopicRecord]) -> None:
        """Partitions that were created but not yet begun when a controller died."""
        for record in records:
            missing = {p: r for p, r in record.node.replicas.items() if p not in record.states}
            if missing:
                states = {p: first_state(replicas, self.lives(), self.epoch) for p, replicas in missing.items()}
                record.states.update(await self.in_store(self.store.add_states, record.name, states))

    def publish_topics(self, names: Iterable[str]) -> int:
        return self.publish(ImageDelta(topics={name: as_topic(self.records[name]) for name in names}))

    def publish_partitions(self, partitions: Iterable[TopicPartition]) -> int:
        """Make new states of partitions known; everything else of their topics is as it was."""
        return self.publish(
            ImageDelta(partitions={tp: as_partition(self.records[tp.topic], tp.partition) for tp in partitions})
        )

    # topics

    @property
    def turn(self) -> asyncio.Lock:
        """Held while something is decided and written."""
        return self._turn

    def first_states(self, replicas: Mapping[int, tuple[int, ...]]) -> dict[int, StateNode]:
        lives = self.lives()
        return {p: first_state(brokers, lives, self.epoch) for p, brokers in replicas.items()}

    async def create_topic(self, name: str, node: TopicNode, config: Mapping[str, str]) -> int:
        """Write and publish a new topic; within ``turn``."""
        states = self.first_states(node.replicas)
        self.records[name] = await self.in_store(self.store.create_topic, name, node, config, states)
        return self.publish_topics([name])

    async def grow_topic(self, name: str, replicas: Mapping[int, tuple[int, ...]]) -> int:
        """Write and publish more partitions of a topic; within ``turn``."""
        record = self.records[name]
        node = replace(record.node, replicas={**record.node.replicas, **replicas})
        self.records[name] = await self.in_store(self.store.add_partitions, record, node, self.first_states(replicas))
        return self.publish_topics([name])

    async def delete_topics(self, names: Iterable[str]) -> int:
        """Mark topics deleted and publish that; their nodes go afterwards, whoever is controller then. Within
        ``turn``."""
        doomed = list(names)
        for name in doomed:
            await self.in_store(self.store.mark_deleting, name)
            self.deleting[name] = self.records.pop(name)
        sequence = self.publish(ImageDelta(deleted_topics=tuple(doomed)))
        for name in doomed:
            self.deleted_changes = await self.in_store(self.store.finish_deleting, name)
            del self.deleting[name]
        return sequence

    async def _finish_deleting(self, name: str) -> None:
        async with self._turn:
            self.deleted_changes = await self.in_store(self.store.finish_deleting, name)
            del self.deleting[name]

    # configs

    def broker_config(self) -> dict[str, str]:
        """The broker configs in force on this controller's broker, as texts."""
        return effective_broker_config(*self.config_places())

    def topic_config(self, config: Mapping[str, str]) -> dict[str, str]:
        """A topic's configs in force, as texts."""
        return effective_topic_config(config, *self.config_places())

    def config_places(self) -> tuple[Mapping[str, str], Mapping[str, str], Mapping[str, str]]:
        """This broker's dynamic configs, the cluster's dynamic defaults, this broker's static configs."""
        dynamic = self.image.broker_configs
        return dynamic.get(str(self.broker_id), {}), dynamic.get(_CLUSTER_DEFAULT, {}), self.static_config

    def topic_defaults(self) -> Defaults:
        config = self.broker_config()
        return Defaults(int(config["num.partitions"]), int(config["default.replication.factor"]))

    # what brokers ask

    async def _on_forward(self, payload: memoryview) -> list[Buffer]:
        return await dispatch.serve_forwarded(gate(), self, *unpack_forward(payload))

    async def _on_call(self, broker: int, method: str, args: dict[str, Any]) -> Any:
        match method:
            case "create_topics":
                return await topic_admin.create_automatically(self, args["topics"])
            case "alter_partition":
                await asked.alter_partition(self, args)
                return {}
            case "alter_partitions":
                return {"written": await asked.alter_partitions(self, args)}
            case "partition_failed":
                await asked.partition_failed(self, args)
                return {}
            case "controlled_shutdown":
                await asked.let_go(self, broker)
                return {}
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"a controller does not answer {method!r}")


def as_topic(record: TopicRecord) -> Topic:
    """A topic as the image holds it."""
    partitions = {p: as_partition(record, p) for p in sorted(record.states)}
    return Topic(record.name, record.node.id, partitions, record.config)


def as_partition(record: TopicRecord, partition: int) -> PartitionState:
    """A partition as the image holds it."""
    node = record.node
    adding, removing = node.adding.get(partition, ()), node.removing.get(partition, ())
    return record.states[partition].as_partition(node.replicas[partition], adding, removing)
