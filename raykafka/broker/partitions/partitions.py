"""The partitions of one broker, as the cluster image assigns them: opened, told of changes, closed, deleted.

A directory on disk belongs to a topic id (rule 19). One whose topic is gone, or whose name now belongs to another
topic, is renamed out of the way at the first image and never read again.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from raykafka.broker.configs import Configs
from raykafka.broker.partitions.broker_parts import BrokerParts
from raykafka.broker.partitions.calls import Controller, OtherBrokers
from raykafka.broker.partitions.checkpoints import HIGH_WATERMARKS, LOG_STARTS, RECOVERY_POINTS
from raykafka.broker.partitions.deletions import Deletions
from raykafka.broker.partitions.directories import STRAY, FoundDirectory, rename_away, scan
from raykafka.broker.partitions.follower_waking import FollowerWaking
from raykafka.broker.partitions.joining import Joining
from raykafka.broker.partitions.partition_host import Life, PartitionHost, directory_name
from raykafka.broker.partitions.replica_process import ReplicaSource
from raykafka.broker.partitions.sleeping import Checkpoint
from raykafka.cluster.image import ClusterImage, PartitionState, Topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link
from raykafka.process.tasks import TaskSet
from raykafka.telemetry.traffic import Traffic
from raykafka.types import TopicPartition

# broker configs that replicas go by
REPLICA_CONFIGS = ("replica.lag.time.max.ms",)
THROTTLED_RATES = ("leader.replication.throttled.rate", "follower.replication.throttled.rate")
# how often idle partitions are looked for
SWEEP_S = 0.5
DOZING_AT_ONCE = 8
CATCH_UPS_AT_ONCE = 4
# a replica that hangs must not keep its broker from what else the controller decides
TELL_WITHIN_S = 0.25

logger = logging.getLogger(__name__)


class PartitionsServer(Protocol):
    """What the partitions need of their broker."""

    broker_id: int
    configs: Configs

    @property
    def children(self) -> ReplicaSource: ...
    @property
    def controller_calls(self) -> Controller: ...
    @property
    def broker_calls(self) -> OtherBrokers: ...


class Partitions:
    """The local partitions of ``server``. ``traffic`` counts what goes in and out of them, by topic.

    ``checkpointed`` is what the checkpoint files said at start, by file name. All methods run on the broker's event
    loop; calls of ``apply`` must not overlap.
    """

    def __init__(
        self,
        server: PartitionsServer,
        log_dir: Path,
        checkpointed: Mapping[str, Mapping[TopicPartition, int]],
    ) -> None:
        self.traffic = Traffic()
        self._server = server
        self._parts = BrokerParts(
            server.broker_id, log_dir, server.children, self._report_failed, self._propose, self._wake_followers
        )
        self._checkpointed = checkpointed
        self._hosts: dict[tuple[str, int], PartitionHost] = {}
        self._found: dict[str, FoundDirectory] = {}
        self._tasks = TaskSet("partitions")
        self._deletions = Deletions(self._tasks)
        self._image: ClusterImage | None = None
        self._joining = Joining(server.broker_calls, server.controller_calls, self.get, lambda: self._image is not None)
        self._follower_waking = FollowerWaking(server.broker_calls, self.get, self._tasks)

    async def _report_failed(self, tp: TopicPartition, state: PartitionState, reason: str) -> None:
        await self._server.controller_calls.report_failed_partition(tp, state, reason)

    async def _propose(self, tp: TopicPartition, topic_id: uuid.UUID, proposal: dict[str, Any]) -> None:
        try:
            await self._server.controller_calls.alter_partition(tp, topic_id, proposal)
        except (KafkaError, LinkError, TimeoutError) as error:
            # the leader proposes again until the state shows an answer
            logger.warning("%s: no answer to the ISR %s that was proposed: %s", tp, proposal["isr"], error)

    def _wake_followers(self, tp: TopicPartition, topic_id: uuid.UUID, state: PartitionState) -> None:
        alive = self._parts.brokers
        followers = [b for b in state.replicas if b != self._parts.broker_id and b in alive]
        self._follower_waking.wake(tp, topic_id, state.leader_epoch, followers)

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
        return self._parts.replica_failures

    def missing_error(self, tp: tuple[str, int]) -> ErrorCode:
        """What a client gets that asks for a partition which is not here."""
        known = self._image is not None and self._image.partition(TopicPartition(*tp)) is not None
        return ErrorCode.NOT_LEADER_OR_FOLLOWER if known else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def checkpoints(self) -> dict[str, dict[TopicPartition, int]]:
        """What each checkpoint file should hold now: an entry for every partition that has files."""
        if self._image is None:
            return {name: dict(offsets) for name, offsets in self._checkpointed.items()}
        kept = [(h.tp, h.sleeping.checkpoint_now()) for h in self._hosts.values() if h.sleeping.has_files]
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
            self._found, doomed = await asyncio.to_thread(scan, self._parts.log_dir)
            for path in doomed:
                self._deletions.remove(path)
            self._tasks.run(self._sweep())
            self._tasks.run(self._gather())
            await self._set_strays_aside(image)
        self._parts.throttle.configure(*map(self._server.configs.number, THROTTLED_RATES))
        others_changed = before is not None and before.broker_configs != image.broker_configs
        # leaders want nothing of a broker that is about to stop: what it still acknowledges nobody may wait for
        own = self._parts.broker_id
        brokers = {b: info for b, info in image.brokers.items() if b == own or not info.stopping}
        if self._parts.brokers != brokers:
            self._parts.brokers = brokers
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
                del self._hosts[host.tp]
                reason = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if gone else ErrorCode.NOT_LEADER_OR_FOLLOWER
                self._deletions.begin(host, reason)

    def _local_state(self, image: ClusterImage, key: tuple[str, int], topic_id: uuid.UUID) -> PartitionState | None:
        topic = image.topics.get(key[0])
        if topic is None or topic.id != topic_id:
            return None
        state = topic.partitions.get(key[1])
        return state if state is not None and self._parts.broker_id in state.replicas else None

    def _apply_topic(self, topic: Topic, before: Topic | None) -> list[asyncio.Task[None]]:
        """Tell the partitions of ``topic`` what is new since ``before``, None for everything."""
        configs = self._server.configs
        config = {**configs.of_topic(topic.config), **{key: configs.texts[key] for key in REPLICA_CONFIGS}}
        known = before.partitions if before is not None and before.config is topic.config else {}
        waits = []
        for partition, state in topic.partitions.items():
            if known.get(partition) is state or self._parts.broker_id not in state.replicas:
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
            self._parts,
            tp,
            topic.id,
            state,
            config,
            checkpoint=self._checkpoint(tp) if found is not None else Checkpoint(),
            on_disk=found is not None and found.holds_log,
            left=found.left if found is not None else None,
            after=self._deletions.closing(tp),
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
                    host.wake_briefly()

    # closing and deleting

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
            path = await asyncio.to_thread(rename_away, found.path, STRAY)
            logger.warning("%s holds no partition of this broker any more and is set aside as %s", found.path, path)

    async def close(self) -> bool:
        """Flush and close all logs. True when every one of them was closed cleanly."""
        hosts = list(self._hosts.values())
        results = await asyncio.gather(*(host.close() for host in hosts))
        await self._deletions.all_closed()
        await self._tasks.close()
        self._parts.cold_reads.shutdown(wait=False)
        return all(results)

    def status(self) -> list[dict[str, Any]]:
        """Every local partition, as plain data for people."""
        return [host.describe() for host in self._hosts.values()]
