"""The partitions of the broker, as one of its replica actors serves them (``access.Partitions``)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from raykafka.cluster.image import ClusterImage, Topic
from raykafka.error_code import ErrorCode
from raykafka.partition.log_view import LogView
from raykafka.replica_actor.partition import ServedPartition
from raykafka.telemetry.traffic import Traffic
from raykafka.types import TopicPartition

_COLD_READS = 4


class ServedPartitions:
    """Every partition that ``image`` gives a replica on this broker, whichever of its actors has it open. ``traffic``
    counts what clients of this actor wrote and read."""

    def __init__(self, broker_id: int, log_dir: Path, holds_lease: Callable[[], bool]) -> None:
        self.traffic = Traffic()
        self.image: ClusterImage | None = None
        self._broker_id = broker_id
        self._holds_lease = holds_lease
        self._log_dir = log_dir
        self._partitions: dict[tuple[str, int], ServedPartition] = {}
        self._cold_reads = ThreadPoolExecutor(_COLD_READS, thread_name_prefix="cold-read")
        self.get = self._partitions.get

    def __iter__(self) -> Iterator[ServedPartition]:
        return iter(self._partitions.values())

    def of(self, topic: str, topic_id: uuid.UUID, partition: int) -> ServedPartition | None:
        """The partition of that very topic, or None."""
        found = self._partitions.get((topic, partition))
        return found if found is not None and found.topic_id == topic_id else None

    def missing_error(self, tp: tuple[str, int]) -> ErrorCode:
        known = self.image is not None and self.image.partition(TopicPartition(*tp)) is not None
        return ErrorCode.NOT_LEADER_OR_FOLLOWER if known else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def apply(self, image: ClusterImage) -> tuple[list[ServedPartition], list[ServedPartition]]:
        """Take a new image: the partitions whose topic's config or own state is another (new ones among them), and
        those that are gone."""
        before, self.image = self.image, image
        known = before.topics if before is not None else {}
        changed: list[ServedPartition] = []
        gone: list[ServedPartition] = []
        for name, topic in known.items():
            if image.topics.get(name) is not topic:
                gone += self._drop_missing(topic, image)
        for name, topic in image.topics.items():
            old = known.get(name)
            if old is not topic:
                changed += self._apply_topic(topic, old)
        if gone:
            self.traffic.forget_others(image.topics)
        return changed, gone

    def _drop_missing(self, before: Topic, image: ClusterImage) -> list[ServedPartition]:
        now = image.topics.get(before.name)
        same = now is not None and now.id == before.id
        gone = []
        for partition in before.partitions:
            served = self._partitions.get((before.name, partition))
            if served is not None and image.replica_on(self._broker_id, *served.key) is None:
                del self._partitions[before.name, partition]
                served.gone(ErrorCode.NOT_LEADER_OR_FOLLOWER if same else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
                gone.append(served)
        return gone

    def _apply_topic(self, topic: Topic, before: Topic | None) -> list[ServedPartition]:
        same_config = before is not None and before.id == topic.id and before.config == topic.config
        known = before.partitions if before is not None and same_config else {}
        changed = []
        for partition, state in topic.partitions.items():
            if known.get(partition) is state or self._broker_id not in state.replicas:
                continue
            key = (topic.name, partition)
            served = self._partitions.get(key)
            if served is None:
                tp = TopicPartition(*key)
                log = LogView(self._log_dir / f"{tp.topic}-{tp.partition}", self._cold_reads)
                served = self._partitions[key] = ServedPartition(
                    self._broker_id, tp, topic.id, state, log, self._holds_lease
                )
            else:
                served.told(state)
            changed.append(served)
        return changed

    def close(self) -> None:
        """End reads that wait for the disk."""
        self._cold_reads.shutdown(wait=False, cancel_futures=True)
