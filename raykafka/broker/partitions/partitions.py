"""The partitions of one broker, as the cluster image assigns them: opened by its replica actors, closed, deleted.

A directory on disk belongs to a topic id (rule 19). One whose topic is gone, or whose name now belongs to another
topic, is renamed out of the way at the first image and never read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from raykafka.broker.configs import Configs
from raykafka.broker.partitions import life_events as events
from raykafka.broker.partitions.actors import Actor, ActorPool
from raykafka.broker.partitions.calls import Controller
from raykafka.broker.partitions.checkpoints import HIGH_WATERMARKS, LOG_STARTS, RECOVERY_POINTS
from raykafka.broker.partitions.deletions import Deletions
from raykafka.broker.partitions.directories import STRAY, FoundDirectory, rename_away, scan
from raykafka.broker.partitions.ends import Checkpoint, Ends
from raykafka.broker.partitions.failed_reports import FailedReports
from raykafka.broker.partitions.isr_proposals import IsrProposals
from raykafka.broker.partitions.log_locks import LogLocks
from raykafka.broker.partitions.partition_host import CLOSE_WITHIN_S, PartitionHost, directory_name
from raykafka.broker.partitions.placement import Balance, Relocation, share_out
from raykafka.broker.partitions.replication_throttle import ReplicationThrottle
from raykafka.broker.partitions.seats import Seats
from raykafka.broker.partitions.surroundings import Placements, Surroundings
from raykafka.cluster.image import ClusterImage, PartitionState, Topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.process.clock import boot_clock
from raykafka.process.tasks import TaskSet
from raykafka.replica.rules.events import Propose
from raykafka.types import TopicPartition

THROTTLED_RATES = ("leader.replication.throttled.rate", "follower.replication.throttled.rate")
DELETE_DELAY = "file.delete.delay.ms"
# how many partitions are begun, or let go, in one turn of the event loop
IN_A_TURN = 500

logger = logging.getLogger(__name__)


class PartitionsServer(Protocol):
    """What the partitions need of their broker."""

    broker_id: int
    configs: Configs

    @property
    def controller_calls(self) -> Controller: ...


class Partitions:
    """The local partitions of ``server``, on the actors of ``pool``. ``throttle`` bounds what throttled replicas send
    and take.

    ``checkpointed`` is what the checkpoint files said at start, by file name. All methods run on the broker's event
    loop; calls of ``apply`` must not overlap.
    """

    def __init__(
        self,
        server: PartitionsServer,
        log_dir: Path,
        checkpointed: Mapping[str, Mapping[TopicPartition, int]],
        pool: ActorPool,
    ) -> None:
        self.throttle = ReplicationThrottle()
        self._server = server
        self._checkpointed = checkpointed
        self._tasks = TaskSet("partitions")
        self._proposals = IsrProposals(server.controller_calls)
        self._reports = FailedReports(server.controller_calls)
        self._locks = LogLocks(self._tasks)
        self._seats = Seats(pool)
        self._surroundings = Surroundings(
            server.broker_id, log_dir, self._seats, Placements(pool), self._reports, self._locks, self._tasks
        )
        self._hosts: dict[tuple[str, int], PartitionHost] = {}
        self._found: dict[str, FoundDirectory] = {}
        self._deletions = Deletions(self._tasks)
        self._balance = Balance()
        self._newcomers: set[int] = set()
        self._activity: dict[int, dict[TopicPartition, float]] = {}
        self._image: ClusterImage | None = None
        for actor in pool.living().values():
            self.actor_came(actor)

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
        """How often replicas of partitions here have failed."""
        return self._surroundings.failed

    def checkpoints(self) -> dict[str, dict[TopicPartition, int]]:
        """What each checkpoint file should hold now: an entry for every partition that has files."""
        if self._image is None:
            return {name: dict(offsets) for name, offsets in self._checkpointed.items()}
        hosts = [host for host in self._hosts.values() if host.has_files]
        kept = [(host.tp, host.ends.checkpoint if host.ends is not None else host.checkpoint) for host in hosts]
        return {
            RECOVERY_POINTS: {tp: c.recovery_point for tp, c in kept if c.recovery_point is not None},
            HIGH_WATERMARKS: {tp: c.high_watermark for tp, c in kept if c.high_watermark is not None},
            LOG_STARTS: {tp: c.log_start_offset for tp, c in kept if c.log_start_offset},
        }

    def status(self) -> list[dict[str, Any]]:
        """Every local partition, as plain data for people."""
        return [host.describe() for host in self._hosts.values()]

    # what the controller decides

    async def apply(self, image: ClusterImage) -> None:
        """Become what ``image``, which the actors go by, says of this broker's partitions. Logs are opened and closed
        behind it."""
        before = self._image
        if before is None:
            # only once all of it is known: a partition whose directory is not is opened as if it had never been written
            self._found, doomed = await asyncio.to_thread(scan, self._surroundings.log_dir)
            for path in doomed:
                self._deletions.remove(path)
            await self._set_strays_aside(image)
        self._image = image
        self.throttle.configure(*map(self._server.configs.number, THROTTLED_RATES))
        known = before.topics if before is not None else {}
        if known is image.topics:
            return
        for name, topic in known.items():
            if image.topics.get(name) is not topic:
                self._close_missing(topic, image)
        begun = 0
        for name, topic in image.topics.items():
            if (old := known.get(name)) is not topic:
                begun += self._apply_topic(topic, old)
                if begun >= IN_A_TURN:
                    begun = 0
                    await asyncio.sleep(0)

    def _close_missing(self, before: Topic, image: ClusterImage) -> None:
        """Close the partitions of ``before`` that this broker holds no longer."""
        broker, gone = self._surroundings.broker_id, []
        for partition in before.partitions:
            host = self._hosts.get((before.name, partition))
            if host is not None and image.replica_on(broker, before.name, host.topic_id, partition) is None:
                gone.append(host)
        if not gone:
            return
        delay_ms = int(self._server.configs.of_topic(before.config)[DELETE_DELAY])
        for host in gone:
            del self._hosts[host.tp]
            self._deletions.begin(host, delay_ms)

    def _apply_topic(self, topic: Topic, before: Topic | None) -> int:
        """Tell the partitions of ``topic`` what is new since ``before``, None for everything; how many were begun."""
        known = before.partitions if before is not None else {}
        begun = 0
        for partition, state in topic.partitions.items():
            if known.get(partition) is state or self._surroundings.broker_id not in state.replicas:
                continue
            host = self._hosts.get((topic.name, partition))
            if host is not None:
                host.apply(state)
            else:
                self._begin(topic, partition, state)
                begun += 1
        return begun

    def _begin(self, topic: Topic, partition: int, state: PartitionState) -> None:
        tp = TopicPartition(topic.name, partition)
        found = self._found.pop(directory_name(tp), None)
        self._hosts[tp] = PartitionHost(
            self._surroundings,
            tp,
            topic.id,
            state,
            checkpoint=self._checkpoint(tp) if found is not None else Checkpoint(),
            has_files=found is not None and found.holds_log,
            after=self._deletions.closing(tp),
        )

    def _checkpoint(self, tp: TopicPartition) -> Checkpoint:
        return Checkpoint(*(self._checkpointed[n].get(tp) for n in (RECOVERY_POINTS, HIGH_WATERMARKS, LOG_STARTS)))

    async def _set_strays_aside(self, image: ClusterImage) -> None:
        """Rename directories that are no partition of ours in ``image`` (rule 19)."""
        for name, found in list(self._found.items()):
            if found.unreadable is not None:
                logger.error("%s is left as it is, and its partition can't be opened: %s", found.path, found.unreadable)
                continue
            topic_name, _, partition = name.rpartition("-")
            topic = image.topics.get(topic_name)
            # a directory without an id is one whose creation was cut short: the log writes the id first of all
            topic_id = found.topic_id or (topic.id if topic and not found.holds_log else None)
            broker = self._surroundings.broker_id
            if topic_id is not None and image.replica_on(broker, topic_name, topic_id, int(partition)) is not None:
                continue
            del self._found[name]
            path = await asyncio.to_thread(rename_away, found.path, STRAY)
            logger.warning("%s holds no partition of this broker any more and is set aside as %s", found.path, path)

    # what the actors do

    def actor_came(self, actor: Actor) -> None:
        """An actor of the pool is connected."""
        self._newcomers.add(actor.number)
        self._seats.came(actor)

    def actor_gone(self, number: int) -> None:
        """The link to an actor has ended: all its leaderships are over (rule 1), and others open its replicas once
        their logs are free (rule 4)."""
        self._activity.pop(number, None)
        self._newcomers.discard(number)
        found = self._seats.gone(number)
        if found is None:
            return
        actor, hosts = found
        if hosts:
            logger.error("replica actor %d ended with %d replicas", number, len(hosts))
        self._locks.gone(actor)
        for host in hosts:
            host.step(events.ActorGone(number))

    def said(self, number: int, method: str, args: Mapping[str, Any]) -> None:
        """Take what an actor tells of one of its replicas: ``failed``, ``refused`` or ``propose``. Raises KafkaError
        for anything else."""
        host = self._hosts.get((args["topic"], args["partition"]))
        if host is None or host.actor != number or str(host.topic_id) != args["topic_id"]:
            return
        match method:
            case "failed":
                host.step(events.Failed(number, args["reason"], args["diverged"]))
            case "refused":
                logger.warning("%s can't lead epoch %d: %s", host.tp, args["leader_epoch"], args["reason"])
                host.step(events.Refused(args["leader_epoch"], args["reason"]))
            case "propose":
                isr, epochs = tuple(args["isr"]), tuple(args["broker_epochs"])
                proposal = Propose(isr, epochs, args["leader_epoch"], args["version"])
                self._proposals.propose(host.tp, host.topic_id, proposal)
            case _:
                raise KafkaError(ErrorCode.INVALID_REQUEST, f"a broker does not answer {method!r}")

    def take_report(self, number: int, rows: Iterable[Sequence[Any]]) -> None:
        """Take an actor's report, each second: [topic, partition, leader epoch, log start, high watermark, log end,
        recovery point, followers or None] of those whose values have changed."""
        self._seats.measured(number)
        activity = {tp: half for tp, n in self._activity.get(number, {}).items() if (half := n / 2) >= 1}
        for topic, partition, *ends, followers in rows:
            host = self._hosts.get((topic, partition))
            if host is None or host.actor != number:
                continue
            grown = host.report(Ends(*ends), followers)
            if grown:
                activity[host.tp] = activity.get(host.tp, 0.0) + grown
        self._activity[number] = activity

    def rebalance(self, busy: Mapping[int, float]) -> None:
        """To be called each second with the share of a core that each actor uses: moves replicas to actors that have
        come since, when one is busy while another idles, and off actors that take none."""
        self._seats.look_again()
        if self._seats.each:
            self._newcomers.clear()
            return
        takers = {number: share for number, share in busy.items() if self._seats.takes(number)}
        self._move(self._balance.round(takers, self._activity), "is busy")
        if self._newcomers and not self._seats.under_way:
            self._move(share_out(self._newcomers, self._by_actor(takers)), "has more than its share")
            self._newcomers.clear()

    def _by_actor(self, numbers: Iterable[int]) -> dict[int, list[TopicPartition]]:
        """The replicas of each of these actors, the most active first."""
        replicas: dict[int, list[TopicPartition]] = {number: [] for number in numbers}
        for host in self._hosts.values():
            if host.actor in replicas:
                replicas[host.actor].append(host.tp)
        for number, has in replicas.items():
            activity = self._activity.get(number, {})
            has.sort(key=lambda tp, activity=activity: -activity.get(tp, 0.0))  # type: ignore[misc]
        return replicas

    def _move(self, relocations: Iterable[Relocation], why: str) -> None:
        for tp, to in relocations:
            host = self._hosts.get(tp)
            if host is not None:
                logger.info("%s moves from replica actor %s, which %s, to %d", tp, host.actor, why, to)
                self._seats.move(host, to)

    def use_actors(self) -> None:
        """``replica.actors`` has changed: the pool's ``each``, or which of its actors take replicas. Moves those whose
        actors take none any more."""
        self._seats.reconsider()

    # the end

    async def close(self) -> bool:
        """Flush and close all logs. True when every one of them was closed cleanly."""
        ended = []
        for count, host in enumerate(list(self._hosts.values()), 1):
            ended.append(host.release())
            if count % IN_A_TURN == 0:
                await asyncio.sleep(0)
        # an actor that hangs is killed after CLOSE_WITHIN_S; a log that is being recovered is not waited for longer
        begun_s = boot_clock()
        pending: set[asyncio.Future[bool]] = set()
        if ended:
            _, pending = await asyncio.wait(ended, timeout=CLOSE_WITHIN_S + 1)
        await self._deletions.all_closed(max(0.0, begun_s + CLOSE_WITHIN_S + 1 - boot_clock()))
        await self._tasks.close()
        await self._proposals.close()
        await self._reports.close()
        return not pending and all(future.result() for future in ended)
