"""The partitions of one broker, as the cluster image assigns them: opened, told of changes, closed, deleted.

A directory on disk belongs to a topic id (rule 19). One whose topic is gone, or whose name now belongs to another
topic, is renamed out of the way at the first image and never read again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from raykafka.broker.configs import Configs
from raykafka.broker.neighbourhood.broker_calls import BrokerCalls
from raykafka.broker.neighbourhood.controller_calls import ControllerCalls
from raykafka.broker.partitions.checkpoints import HIGH_WATERMARKS, LOG_STARTS, RECOVERY_POINTS
from raykafka.broker.partitions.joining import Joining
from raykafka.broker.partitions.partition_host import (
    Checkpoint,
    Life,
    PartitionHost,
    ReplicaSource,
    Surroundings,
    directory_name,
)
from raykafka.cluster.image import ClusterImage, PartitionState, Topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError, RaykafkaError
from raykafka.front.fetch_sessions import FetchSessions
from raykafka.link import Link
from raykafka.log import read_seal
from raykafka.log.files import LOG, METADATA_FILE, offset_of_name, read_topic_id
from raykafka.process.durable import sync_directory
from raykafka.replica.leaving import Left
from raykafka.telemetry.traffic import Traffic
from raykafka.types import TopicPartition

DELETE = "-delete"
STRAY = "-stray"
# broker configs that replicas go by
REPLICA_CONFIGS = ("replica.lag.time.max.ms", "replica.idle.ms")
THROTTLED_RATES = ("leader.replication.throttled.rate", "follower.replication.throttled.rate")
# how often idle partitions are looked for
SWEEP_S = 0.5
DOZING_AT_ONCE = 8
CATCH_UPS_AT_ONCE = 4
# a replica that hangs must not keep its broker from what else the controller decides
TELL_WITHIN_S = 0.25
ROUSE = "rouse"
ROUSED_WITHIN_S = 2.0
_MAX_NAME_BYTES = 255

logger = logging.getLogger(__name__)


class _Found(NamedTuple):
    """A partition directory that was there at start. ``holds_log``: a log was begun in it. ``left``: what its seal
    says."""

    path: Path
    topic_id: uuid.UUID | None
    holds_log: bool
    left: Left | None


class PartitionsServer(Protocol):
    """What the partitions need of their broker."""

    broker_id: int
    configs: Configs

    @property
    def children(self) -> ReplicaSource: ...
    @property
    def controller_calls(self) -> ControllerCalls: ...
    @property
    def broker_calls(self) -> BrokerCalls: ...


class Partitions:
    """The local partitions of ``server``. ``fetch_sessions`` are the clients' sessions over them.

    ``checkpointed`` is what the checkpoint files said at start, by file name. All methods run on the broker's event
    loop; calls of ``apply`` must not overlap.
    """

    def __init__(
        self,
        server: PartitionsServer,
        log_dir: Path,
        checkpointed: Mapping[str, Mapping[TopicPartition, int]],
    ) -> None:
        configs = server.configs
        self.fetch_sessions = FetchSessions(configs.number("max.incremental.fetch.session.cache.slots"))
        self._server = server
        self._around = Surroundings(
            server.broker_id, log_dir, server.children, self._report_failed, self._propose, self._rouse
        )
        self._checkpointed = checkpointed
        self._hosts: dict[tuple[str, int], PartitionHost] = {}
        self._found: dict[str, _Found] = {}
        self._closing: dict[tuple[str, int], asyncio.Task[None]] = {}
        self.traffic = Traffic()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._image: ClusterImage | None = None
        self._joining = Joining(server.broker_calls, server.controller_calls, self.get, lambda: self._image is not None)
        server.broker_calls.answers[ROUSE] = self._answer_rouse

    async def _report_failed(self, tp: TopicPartition, state: PartitionState, reason: str) -> None:
        await self._server.controller_calls.report_failed_partition(tp, state, reason)

    async def _propose(self, tp: TopicPartition, topic_id: uuid.UUID, proposal: dict[str, Any]) -> None:
        await self._server.controller_calls.alter_partition(tp, topic_id, proposal)

    def _rouse(self, tp: TopicPartition, topic_id: uuid.UUID, state: PartitionState) -> None:
        """Have the followers' replicas wake beside their leader's."""
        args = {"topic": tp.topic, "topic_id": str(topic_id), "partition": tp.partition, "epoch": state.leader_epoch}
        for broker in state.replicas:
            if broker != self._around.broker_id and broker in self._around.brokers:
                self._run(self._rouse_at(broker, args))

    async def _rouse_at(self, broker: int, args: dict[str, Any]) -> None:
        # nobody has to hear of it: the leader's stream wakes a replica as well, a little later
        with suppress(OSError, KafkaError, LinkError, TimeoutError):
            await self._server.broker_calls.call(broker, ROUSE, args, ROUSED_WITHIN_S)

    async def _answer_rouse(self, args: dict[str, Any]) -> None:
        host = self._hosts.get((args["topic"], args["partition"]))
        if host is not None and str(host.topic_id) == args["topic_id"]:
            host.rouse(args["epoch"])

    # looking

    def get(self, tp: tuple[str, int]) -> PartitionHost | None:
        """The local partition, or None."""
        return self._hosts.get(tp)

    def __iter__(self) -> Iterator[PartitionHost]:
        return iter(self._hosts.values())

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def replica_restarts(self) -> int:
        """How many replica processes of partitions here have failed."""
        return self._around.replica_failures

    def missing_error(self, tp: tuple[str, int]) -> ErrorCode:
        """What a client gets that asks for a partition which is not here."""
        known = self._image is not None and self._image.partition(TopicPartition(*tp)) is not None
        return ErrorCode.NOT_LEADER_OR_FOLLOWER if known else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def checkpoints(self) -> dict[str, dict[TopicPartition, int]]:
        """What each checkpoint file should hold now: an entry for every partition that has files."""
        if self._image is None:
            return {name: dict(offsets) for name, offsets in self._checkpointed.items()}
        kept = [(host.tp, host.checkpoint) for host in self._hosts.values() if host.has_files]
        return {
            RECOVERY_POINTS: {tp: c.recovery_point for tp, c in kept if c.recovery_point is not None},
            HIGH_WATERMARKS: {tp: c.high_watermark for tp, c in kept if c.high_watermark is not None},
            LOG_STARTS: {tp: c.log_start_offset for tp, c in kept if c.log_start_offset},
        }

    # changing

    async def apply(self, image: ClusterImage) -> None:
        """Become what ``image`` says of this broker's partitions. Returns when awake replicas go by it; those that have
        to open or recover their log first, or are silent for TELL_WITHIN_S, do so behind it."""
        before, self._image = self._image, image
        if before is None:
            self._found, doomed = await asyncio.to_thread(_scan, self._around.log_dir)
            for path in doomed:
                self._run(self._remove_later(path, 0))
            self._run(self._sweep())
            self._run(self._gather())
            await self._set_strays_aside(image)
        self._around.throttle.configure(*map(self._server.configs.number, THROTTLED_RATES))
        others_changed = before is not None and before.broker_configs != image.broker_configs
        # leaders want nothing of a broker that is about to stop: what it still acknowledges nobody may wait for
        own = self._around.broker_id
        brokers = {b: info for b, info in image.brokers.items() if b == own or not info.stopping}
        if self._around.brokers != brokers:
            self._around.brokers = brokers
            others_changed = True
        waits: list[asyncio.Task[None]] = []
        known = before.topics if before is not None else {}
        for name, topic in known.items():
            if image.topics.get(name) is not topic:
                self._close_missing(topic, image)
        for name, topic in image.topics.items():
            if known.get(name) is not topic or others_changed:
                waits += self._apply_topic(topic, None if others_changed else known.get(name))
        if waits:
            await asyncio.wait(waits, timeout=TELL_WITHIN_S)

    def _close_missing(self, before: Topic, image: ClusterImage) -> None:
        """Close the partitions of ``before`` that this broker holds no longer."""
        now = image.topics.get(before.name)
        gone = now is None or now.id != before.id
        for partition in before.partitions:
            host = self._hosts.get((before.name, partition))
            if host is not None and self._local_state(image, (before.name, partition), host.topic_id) is None:
                self._close_and_delete(host, gone=gone)

    def _local_state(self, image: ClusterImage, key: tuple[str, int], topic_id: uuid.UUID) -> PartitionState | None:
        topic = image.topics.get(key[0])
        if topic is None or topic.id != topic_id:
            return None
        state = topic.partitions.get(key[1])
        return state if state is not None and self._around.broker_id in state.replicas else None

    def _apply_topic(self, topic: Topic, before: Topic | None) -> list[asyncio.Task[None]]:
        """Tell the partitions of ``topic`` what is new since ``before``, None for everything."""
        configs = self._server.configs
        config = {**configs.of_topic(topic.config), **{key: configs.texts[key] for key in REPLICA_CONFIGS}}
        known = before.partitions if before is not None and before.config is topic.config else {}
        waits = []
        for partition, state in topic.partitions.items():
            if known.get(partition) is state or self._around.broker_id not in state.replicas:
                continue
            host = self._hosts.get((topic.name, partition))
            if host is None:
                self._open(topic, partition, state, config)
                continue
            wait = host.apply(state, config)
            if wait is not None:
                waits.append(wait)
        return waits

    def _open(self, topic: Topic, partition: int, state: PartitionState, config: Mapping[str, str]) -> None:
        tp = TopicPartition(topic.name, partition)
        found = self._found.pop(directory_name(tp), None)
        self._hosts[tp] = PartitionHost(
            self._around,
            tp,
            topic.id,
            state,
            config,
            checkpoint=self._checkpoint(tp) if found is not None else Checkpoint(),
            on_disk=found is not None and found.holds_log,
            left=found.left if found is not None else None,
            after=self._closing.get(tp),
        )

    def _checkpoint(self, tp: TopicPartition) -> Checkpoint:
        return Checkpoint(*(self._checkpointed[n].get(tp) for n in (RECOVERY_POINTS, HIGH_WATERMARKS, LOG_STARTS)))

    def take_stream(self, link: Link) -> None:
        """A leader has connected to a replica of this broker. Closed if there is none: the leader comes again, and by
        then this broker may have been told of it."""
        peer = link.peer
        host = self._hosts.get((peer["topic"], int(peer["partition"])))
        if host is None or str(host.topic_id) != peer["topic_id"]:
            link.close()
            return
        host.take_stream(link, int(peer["stream"][0]))

    # asleep

    async def _sweep(self) -> None:
        """Have idle partitions fall asleep, a few at a time."""
        while True:
            await asyncio.sleep(SWEEP_S)
            room = DOZING_AT_ONCE - sum(host.life is Life.DOZING for host in self._hosts.values())
            for host in self._hosts.values():
                if room > 0 and host.life is Life.AWAKE:
                    host.doze_if_idle()
                    room -= host.life is Life.DOZING

    async def _gather(self) -> None:
        """Get replicas that are back into the ISRs of sleeping leaders: asleep, as many as can be. The leaders of the
        others wake for it, a few at a time, and sleep again soon."""
        while True:
            await asyncio.sleep(SWEEP_S)
            behind = [host for host in self._hosts.values() if host.behind()]
            if behind:
                needed = await self._joining.round(behind)
                up = sum(host.is_up_briefly for host in self._hosts.values())
                for host in needed[: max(0, CATCH_UPS_AT_ONCE - up)]:
                    host.wake_for_others()

    # closing and deleting

    def _close_and_delete(self, host: PartitionHost, *, gone: bool) -> None:
        del self._hosts[host.tp]
        reason = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if gone else ErrorCode.NOT_LEADER_OR_FOLLOWER
        task = self._run(self._delete(host, reason))
        self._closing[host.tp] = task

        def closed(_: object) -> None:
            if self._closing.get(host.tp) is task:
                del self._closing[host.tp]

        task.add_done_callback(closed)

    async def _delete(self, host: PartitionHost, reason: ErrorCode) -> None:
        """Close the log and rename its directory; the files go after ``file.delete.delay.ms``, so that reads under way
        can end."""
        await host.close(reason, frees_directory=True)
        if not host.has_files:
            return
        path = await asyncio.to_thread(_rename_away, host.directory, DELETE)
        if path is not None:
            self._run(self._remove_later(path, int(host.config.get("file.delete.delay.ms", 60_000))))

    async def _remove_later(self, path: Path, delay_ms: int) -> None:
        await asyncio.sleep(delay_ms / 1000)
        # cut short by a stop, this goes on at the next start
        await asyncio.to_thread(shutil.rmtree, path)
        logger.info("deleted %s", path)

    async def _set_strays_aside(self, image: ClusterImage) -> None:
        """Rename directories that are no partition of ours in ``image`` (rule 19)."""
        for name, found in list(self._found.items()):
            topic_name, _, partition = name.rpartition("-")
            key = (topic_name, int(partition))
            topic = image.topics.get(topic_name)
            # a directory without an id is one whose creation was cut short: the log writes the id first of all
            topic_id = found.topic_id or (topic.id if topic and not found.holds_log else None)
            if topic_id is not None and self._local_state(image, key, topic_id) is not None:
                continue
            del self._found[name]
            path = await asyncio.to_thread(_rename_away, found.path, STRAY)
            logger.warning("%s holds no partition of this broker any more and is set aside as %s", found.path, path)

    async def close(self) -> bool:
        """Flush and close all logs. True when every one of them was closed cleanly."""
        hosts = list(self._hosts.values())
        results = await asyncio.gather(*(host.close() for host in hosts))
        closing = list(self._closing.values())
        if closing:
            await asyncio.wait(closing)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._around.cold_reads.shutdown(wait=False)
        return all(results)

    def status(self) -> list[dict[str, Any]]:
        """Figures for people, of every local partition."""
        return [host.describe() for host in self._hosts.values()]

    def _run(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task over partitions failed", exc_info=task.exception())


def _scan(log_dir: Path) -> tuple[dict[str, _Found], list[Path]]:
    """The partition directories in ``log_dir`` by name, and those whose deletion was begun."""
    found: dict[str, _Found] = {}
    doomed: list[Path] = []
    for entry in os.scandir(log_dir):
        if not entry.is_dir(follow_symlinks=False):
            continue
        path = Path(entry.path)
        topic, dash, partition = entry.name.rpartition("-")
        if entry.name.endswith(DELETE):
            doomed.append(path)
        elif dash and topic and partition.isdecimal():
            holds_log = any(
                name == METADATA_FILE or (name.endswith(LOG) and offset_of_name(name) is not None)
                for name in os.listdir(path)
            )
            topic_id = read_topic_id(path)
            found[entry.name] = _Found(path, topic_id, holds_log, _left_in(path, topic_id) if holds_log else None)
    return found, doomed


def _left_in(path: Path, topic_id: uuid.UUID | None) -> Left | None:
    """What the seal in a directory says, if it is intact and of that topic."""
    try:
        seal = read_seal(path)
    except (OSError, ValueError) as error:
        logger.warning("%s: its seal can't be read: %s", path, error)
        return None
    return Left.of_note(seal.note) if seal is not None and seal.topic_id == topic_id and "seal" in seal.note else None


def _rename_away(directory: Path, suffix: str) -> Path | None:
    """Rename ``<topic>-<p>`` to ``<topic>-<p>.<32 hex><suffix>`` as Kafka does, durably; None when it is not there."""
    ending = f".{uuid.uuid4().hex}{suffix}"
    topic, _, partition = directory.name.rpartition("-")
    room = _MAX_NAME_BYTES - len(ending) - len(partition) - 1
    target = directory.with_name(f"{topic[:room]}-{partition}{ending}")
    try:
        os.rename(directory, target)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RaykafkaError(f"{directory} could not be renamed to {target}: {error}") from error
    sync_directory(directory.parent)
    return target
