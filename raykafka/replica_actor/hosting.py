"""The replicas that are open in this actor: opened, told of every image, closed, given up for another actor."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from raykafka.broker.configs import Configs
from raykafka.cluster.image import ClusterImage, PartitionState
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log import DirectoryLocked, Log, LogConfig
from raykafka.partition.view import View
from raykafka.process.clock import wall_clock_ms
from raykafka.process.tasks import TaskSet
from raykafka.replica.host import Left
from raykafka.replica.hub import StreamHub
from raykafka.replica.receiving import Receiver
from raykafka.replica.replica import Replica
from raykafka.replica.rules.events import Propose
from raykafka.replica.rules.log_state import Settings
from raykafka.replica.rules.partition import Partition
from raykafka.replica.seal_note import seal_of
from raykafka.replica.sending import Holder
from raykafka.replica_actor.partition import ServedPartition
from raykafka.replica_actor.partitions import ServedPartitions
from raykafka.replica_actor.siblings import Watchers
from raykafka.types import NOWHERE, PartitionKey

# broker configs that replicas go by, beside their topic's
REPLICA_CONFIGS = ("replica.lag.time.max.ms",)
_OPENING_THREADS = 4
_CLOSE_FAILED_WITHIN_S = 1.0
_LEAVE_WITHIN_S = 2.0
_LEAVE_AGAIN_S = 0.005

logger = logging.getLogger(__name__)


class BrokerTold(Protocol):
    """What the broker is told of replicas here."""

    def tell(self, method: str, key: PartitionKey, args: dict[str, Any]) -> None: ...
    async def allowance(self, side: str, owed: int) -> int: ...
    def spent(self, side: str, size: int) -> None: ...


class Hosted:
    """One open replica (``replica.host.ReplicaHost``), served as ``served``."""

    replica: Replica

    def __init__(self, key: PartitionKey, served: ServedPartition, hosting: Hosting) -> None:
        self.key = key
        self.served = served
        self.view: View | None = None
        self.told: tuple[PartitionState, Mapping[int, Holder]] | None = None
        self.config: Mapping[str, str] = {}
        self._hosting = hosting
        self._segments: tuple[int, ...] = ()

    @property
    def writer(self) -> Replica:
        return self.replica

    @property
    def whole_view(self) -> View | None:
        """What may be read now, with all segments."""
        return dataclasses.replace(self.view, segments=self._segments) if self.view is not None else None

    def show(self, view: View) -> None:
        self.view = view
        if view.segments is not None:
            self._segments = view.segments
        self._hosting.changed(self)
        if self.served.goes_by(self):
            self.served.log.show(view)
        if self._hosting.is_watched:
            self._hosting.watchers.show(self.key, view)

    def show_nothing(self) -> None:
        self.view = None
        if self.served.goes_by(self):
            self.served.log.show_nothing()

    def propose(self, proposal: Propose) -> None:
        self._hosting.broker.tell("propose", self.key, proposal._asdict())

    def refused(self, leader_epoch: int, reason: str) -> None:
        self._hosting.broker.tell("refused", self.key, {"leader_epoch": leader_epoch, "reason": reason})

    def failed(self, reason: str, diverged: bool) -> None:
        self._hosting.failed(self, reason, diverged)

    async def allowance(self, side: str, owed: int) -> int:
        return await self._hosting.broker.allowance(side, owed)

    def spent(self, side: str, size: int) -> None:
        self._hosting.broker.spent(side, size)


class Hosting:
    """``configs`` are those in force on the broker, ``hub`` carries the streams. All methods run on the event loop;
    logs are opened and closed in threads."""

    def __init__(
        self,
        broker_id: int,
        served: ServedPartitions,
        configs: Configs,
        make_hub: Callable[[Callable[[PartitionKey], Receiver | int | None]], StreamHub],
        broker: BrokerTold,
        placed: Mapping[PartitionKey, int],
        number: int,
    ) -> None:
        """``placed`` says which actor of the broker has a replica, and is kept up to date by its owner."""
        self.broker = broker
        self._broker_id = broker_id
        self._served = served
        self._configs = configs
        self._placed = placed
        self._number = number
        self._open: dict[PartitionKey, Hosted] = {}
        self._opening: dict[PartitionKey, asyncio.Task[Hosted]] = {}
        self._failing: dict[PartitionKey, asyncio.Task[Any]] = {}
        self.watchers = Watchers(self.get)
        self.hub = make_hub(self._find)
        self._image: ClusterImage | None = None
        self._brokers: Mapping[int, Holder] = {}
        self._topic_configs: dict[str, tuple[Mapping[str, str], Mapping[str, str], dict[str, str]]] = {}
        self._threads = ThreadPoolExecutor(_OPENING_THREADS, thread_name_prefix="opening")
        self._tasks = TaskSet("replicas")
        self._closed = False
        self._changed: set[Hosted] = set()

    def changed(self, hosted: Hosted) -> None:
        """There is news of a replica, for the next report."""
        self._changed.add(hosted)

    def take_changed(self) -> set[Hosted]:
        """The replicas that there is news of since this was asked last."""
        taken, self._changed = self._changed, set()
        return taken

    @property
    def is_watched(self) -> bool:
        """Whether any sibling watches a replica here."""
        return self.watchers.any

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: PartitionKey) -> Hosted | None:
        return self._open.get(key)

    def has(self, key: PartitionKey) -> bool:
        """Whether it is open here, or being opened."""
        return key in self._open or key in self._opening

    def _find(self, key: PartitionKey) -> Receiver | int | None:
        """For the hub: the replica that a leader's stream is for, or the sibling that has it."""
        hosted = self._open.get(key)
        if hosted is not None:
            return hosted.replica.receiver
        number = self._placed.get(key)
        return number if number is not None and number not in (NOWHERE, self._number) else None

    # the image

    def apply(self, image: ClusterImage, changed: Iterable[ServedPartition]) -> list[asyncio.Task[None]]:
        """Have every open replica that ``image`` concerns go by it: what is returned ends when they do. ``changed`` are
        those whose own state or topic's config is another."""
        own = self._broker_id
        # leaders want nothing of a broker that is about to stop: what it still acknowledges nobody may wait for
        brokers = {
            b: Holder(info.link_host, info.link_port, info.epoch)
            for b, info in image.brokers.items()
            if b == own or not info.stopping
        }
        others = brokers != self._brokers
        configs = self._image is None or self._image.broker_configs != image.broker_configs
        self._image, self._brokers = image, brokers
        if configs:
            self._topic_configs.clear()
        elif len(self._topic_configs) > len(image.topics):
            self._topic_configs = {name: known for name, known in self._topic_configs.items() if name in image.topics}
        waits = []
        if configs:
            # a log whose topic is gone is about to be closed
            concerned: Iterable[Hosted] = [h for h in self._open.values() if self._served.of(*h.key) is h.served]
        else:
            told = {served.key for served in changed}
            if others:
                told |= {key for key, hosted in self._open.items() if hosted.served.is_leader}
            concerned = [hosted for key in told if (hosted := self._open.get(key)) is not None]
        for hosted in concerned:
            self._configure(hosted)
            task = self._tell(hosted)
            if task is not None:
                waits.append(task)
        return waits

    def _tell(self, hosted: Hosted) -> asyncio.Task[None] | None:
        state = hosted.served.state
        holders = self._holders(state)
        if hosted.told == (state, holders):
            return None
        hosted.told = (state, holders)
        return self._tasks.run(hosted.replica.told(state, holders))

    def _holders(self, state: PartitionState) -> dict[int, Holder]:
        brokers = self._brokers
        return {b: brokers[b] for b in (*state.replicas, *state.isr) if b in brokers}

    def _configure(self, hosted: Hosted) -> None:
        config = self._config_of(hosted.key.topic)
        if config is not hosted.config:
            hosted.config = config
            hosted.replica.configure(config)

    def _config_of(self, topic: str) -> dict[str, str]:
        """All configs that replicas of a topic go by. The same object as long as they are the same."""
        assert self._image is not None
        own = self._image.topics[topic].config
        texts = self._configs.texts
        known = self._topic_configs.get(topic)
        if known is not None and known[0] == own and known[1] is texts:
            return known[2]
        config = {**self._configs.of_topic(own), **{key: texts[key] for key in REPLICA_CONFIGS}}
        self._topic_configs[topic] = (own, texts, config)
        return config

    # opening

    async def open(self, key: PartitionKey, args: Mapping[str, Any]) -> dict[str, Any]:
        """Open the log and go by the state that the image has. ``args``: ``recovery_point``, ``high_watermark``,
        ``log_start_offset``, ``seal``. Raises KafkaError."""
        if self.has(key):
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"{key.topic}-{key.partition} is open here")
        opening = self._opening[key] = asyncio.ensure_future(self._opened(key, args))
        try:
            hosted = await asyncio.shield(opening)
        finally:
            if self._opening.get(key) is opening:
                del self._opening[key]
        log = hosted.replica.log
        return {
            "log_start_offset": log.log_start_offset,
            "log_end_offset": log.log_end_offset,
            "recovered_bytes_cut": log.recovered_bytes_cut,
        }

    async def _opened(self, key: PartitionKey, args: Mapping[str, Any]) -> Hosted:
        served = self._served.of(key.topic, key.topic_id, key.partition)
        if served is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "the image has no such replica on this broker")
        config = self._config_of(key.topic)
        log = await self._open_log(served, key, config, args)
        hosted = Hosted(key, served, self)
        served.go_by(hosted)
        try:
            hosted.replica = self._replica_of(hosted, log, args)
        except Exception:
            await asyncio.to_thread(log.close, None)
            raise
        self._open[key] = hosted
        try:
            if self._closed:
                raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "the replica actor ends")
            hosted.config = config
            hosted.replica.configure(config)
            if self._served.of(*key) is served:
                self._configure(hosted)
                hosted.told = (served.state, self._holders(served.state))
                await hosted.replica.told(*hosted.told)
        except Exception:
            if self._open.get(key) is hosted:
                self._let_go(hosted, moves=False)
            await hosted.replica.close(flush=not self._closed)
            raise
        if self._open.get(key) is hosted:
            served.attach(hosted.replica)
            self.hub.look_again(key)
        return hosted

    def _replica_of(self, hosted: Hosted, log: Log, args: Mapping[str, Any]) -> Replica:
        rules = Partition(
            self._broker_id,
            Settings(),
            log_start=log.log_start_offset,
            log_end=log.log_end_offset,
            history=log.epochs.history,
            checkpoint=args["high_watermark"],
            seal=seal_of(log.note, args["seal"]),
        )
        own = self._brokers.get(self._broker_id)
        return Replica(log, rules, hosted.key, own.broker_epoch if own else -1, self.hub, hosted)

    async def _open_log(
        self, served: ServedPartition, key: PartitionKey, config: Mapping[str, str], args: Mapping[str, Any]
    ) -> Log:
        def opened() -> Log:
            if self._closed:
                raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "the replica actor ends")
            return Log.open(
                served.log.directory,
                LogConfig.from_topic_config(config),
                topic_id=key.topic_id,
                recovery_point=args["recovery_point"],
                now_ms=wall_clock_ms(),
                log_start_offset=args["log_start_offset"],
                in_first_epoch=served.state.leader_epoch == 0,
            )

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, opened)
        except DirectoryLocked as error:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(error)) from error

    # closing

    def failed(self, hosted: Hosted, reason: str, diverged: bool) -> None:
        """A replica can't go on with its log: close it, and tell the broker, so that nobody leads this epoch with it
        (rule 1)."""
        if self._open.get(hosted.key) is not hosted:
            return
        self._let_go(hosted, moves=False)
        hosted.served.nowhere(reason)
        closing = self._failing[hosted.key] = self._tasks.run(hosted.replica.close())
        closing.add_done_callback(lambda _: self._failing.pop(hosted.key, None))
        self._tasks.run(self._tell_failed(hosted, closing, reason, diverged))

    async def _tell_failed(self, hosted: Hosted, closing: asyncio.Task[Any], reason: str, diverged: bool) -> None:
        # a disk that hangs must not keep the leadership from ending
        await asyncio.wait([closing], timeout=_CLOSE_FAILED_WITHIN_S)
        self.broker.tell("failed", hosted.key, {"reason": reason, "diverged": diverged})

    async def close(self, key: PartitionKey) -> Left:
        """Close a replica, also one that is being opened. Raises KafkaError: nothing of it is open here any more."""
        hosted = await self._settled(key)
        self._let_go(hosted, moves=False)
        hosted.served.detach()
        return await hosted.replica.close()

    async def leave(self, key: PartitionKey) -> Left | None:
        """Give a replica up for another actor of this broker, to go on there in the same epoch; None where that could
        not be done cleanly in time: it goes on here. Raises KafkaError."""
        hosted = await self._settled(key)
        hosted.served.detach()
        left = None
        try:
            if await self.watchers.hold(key):
                left = await self._left(hosted)
        except KafkaError as error:
            if self._open.get(key) is hosted:
                self._let_go(hosted, moves=False)
                hosted.served.nowhere(error.message)
            raise
        if self._open.get(key) is not hosted:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, "it ended while it was to move")
        if left is None:
            hosted.served.attach(hosted.replica)
            self.watchers.go_on(key)
            return None
        self._let_go(hosted, moves=True)
        return left

    async def _left(self, hosted: Hosted) -> Left | None:
        """What a replica leaves, once that goes cleanly; None where it does not in time. Raises KafkaError."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _LEAVE_WITHIN_S
        left = await hosted.replica.leave()
        while left is None and loop.time() < until_s and self._open.get(hosted.key) is hosted:
            await asyncio.sleep(_LEAVE_AGAIN_S)
            left = await hosted.replica.leave()
        return left

    async def _settled(self, key: PartitionKey) -> Hosted:
        opening = self._opening.get(key)
        if opening is not None:
            await asyncio.wait([opening])
        failing = self._failing.get(key)
        if failing is not None:
            await asyncio.wait([failing])  # its directory is still touched
        hosted = self._open.get(key)
        if hosted is None:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, f"{key.topic}-{key.partition} is not open here")
        return hosted

    def _let_go(self, hosted: Hosted, *, moves: bool) -> None:
        del self._open[hosted.key]
        self.watchers.gone(hosted.key, moves=moves)
        self.hub.look_again(hosted.key)

    async def end(self) -> None:
        """The broker is gone: close everything at once, so that its next life finds whole logs. Nothing is synced: the
        machine lives."""
        self._closed = True
        hosted = tuple(self._open.values())
        self._open.clear()
        closings = [asyncio.ensure_future(one.replica.close(flush=False)) for one in hosted]
        if self._opening:
            await asyncio.wait(self._opening.values())  # each closes itself
        if closings:
            for closing in (await asyncio.wait(closings))[0]:
                if closing.exception() is not None:
                    logger.error("closing a log: %s", closing.exception())
        self.hub.close()
        self._threads.shutdown(wait=False)
