"""The admin handle: topics, partitions and the cluster; picklable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from raykafka.client import partitions as wire
from raykafka.client.partitions import Outcomes, PartitionMove
from raykafka.client.settings import Place, translate
from raykafka.error_code import ErrorCode
from raykafka.errors import ClientError, KafkaError
from raykafka.types import TopicPartition

_ANSWER_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class PartitionDescription:
    """``leader`` is a broker id, -1 while there is none."""

    partition: int
    leader: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic and its partitions, in the order of their ids."""

    name: str
    partitions: tuple[PartitionDescription, ...]
    config: dict[str, str] = field(default_factory=dict)
    """The settings that were made for this topic; all others are defaults."""


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """``brokers`` maps broker ids to ``host:port``, ``racks`` to where they stand; ``controller`` is -1 while there is
    none."""

    cluster_id: str
    controller: int
    brokers: dict[int, str]
    racks: dict[int, str | None] = field(default_factory=dict)


class Admin:
    """Creates, shows, changes and deletes topics. Each call waits for the answer; raises KafkaError or ClientError."""

    def __init__(self, place: Place, settings: dict[str, Any]) -> None:
        self._place = place
        self._settings = settings
        self._client: AdminClient | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    def create_topic(
        self,
        name: str,
        partitions: int | None = None,
        replication_factor: int | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """Create a topic; None takes the cluster's default."""
        topic = NewTopic(
            name,
            num_partitions=-1 if partitions is None else partitions,
            replication_factor=-1 if replication_factor is None else replication_factor,
            config={key: str(value) for key, value in (config or {}).items()},
        )
        _wait(self._connected().create_topics([topic], operation_timeout=_ANSWER_WITHIN_S))

    def delete_topic(self, name: str) -> None:
        """Delete a topic and its records."""
        _wait(self._connected().delete_topics([name], operation_timeout=_ANSWER_WITHIN_S))

    def grow_topic(self, name: str, partitions: int) -> None:
        """Raise the number of partitions to ``partitions``."""
        _wait(self._connected().create_partitions([NewPartitions(name, partitions)]))

    def topics(self, internal: bool = False) -> list[str]:
        """Names, sorted; with ``internal`` also those that raykafka keeps for itself."""
        names = self._metadata().topics
        return sorted(name for name in names if internal or not name.startswith("__"))

    def describe_topic(self, name: str) -> TopicDescription:
        """The topic as a broker knows it now."""
        found = self._metadata().topics.get(name)
        if found is None or found.error is not None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Topic {name} does not exist.")
        partitions = tuple(
            PartitionDescription(part.id, part.leader, tuple(part.replicas), tuple(part.isrs))
            for part in sorted(found.partitions.values(), key=lambda part: part.id)
        )
        return TopicDescription(name, partitions, self._topic_config(name))

    def describe_cluster(self) -> ClusterDescription:
        """The cluster's id, brokers and controller."""
        try:
            found = self._connected().describe_cluster(request_timeout=_ANSWER_WITHIN_S).result(2 * _ANSWER_WITHIN_S)
        except KafkaException as error:
            raise translate(error) from None
        nodes = sorted(found.nodes, key=lambda node: node.id)
        return ClusterDescription(
            found.cluster_id,
            found.controller.id if found.controller is not None else -1,
            {node.id: f"{node.host}:{node.port}" for node in nodes},
            {node.id: node.rack for node in nodes},
        )

    # partitions

    def partitions(self) -> dict[TopicPartition, PartitionDescription]:
        """Every partition of every topic."""
        return {
            TopicPartition(name, part.id): PartitionDescription(
                part.id, part.leader, tuple(part.replicas), tuple(part.isrs)
            )
            for name, topic in sorted(self._metadata().topics.items())
            for part in sorted(topic.partitions.values(), key=lambda part: part.id)
        }

    def reassign(self, wanted: Mapping[TopicPartition, Sequence[int] | None]) -> Outcomes:
        """Begin to move partitions to the given brokers, the preferred leader first; None cancels a partition's move.
        The answer has an error, or None, for each."""
        return wire.reassign(self._place.addresses(), wanted)

    def moves(self) -> dict[TopicPartition, PartitionMove]:
        """The moves of partitions that are under way."""
        return wire.moves(self._place.addresses())

    def elect_leaders(self, partitions: Iterable[TopicPartition] | None = None, *, unclean: bool = False) -> Outcomes:
        """Have the preferred replicas lead, or with ``unclean`` any live one where nobody does: that may lose records.
        Without ``partitions`` all are meant, and only those that needed it are in the answer."""
        return wire.elect_leaders(self._place.addresses(), partitions, unclean=unclean)

    def sizes(self) -> dict[int, dict[TopicPartition, int]]:
        """Bytes on disk by broker and partition."""
        return {broker: wire.log_sizes(address) for broker, address in self.describe_cluster().brokers.items()}

    def throttle(self, moved: Mapping[TopicPartition, PartitionMove], bytes_per_s: int) -> None:
        """Let ``moved`` partitions take no more than ``bytes_per_s`` of each broker, as kafka-reassign-partitions
        does; what is not new is not held back."""
        brokers = {b for move in moved.values() for b in move.replicas}
        rates = dict.fromkeys(_THROTTLE_RATES, str(bytes_per_s))
        changes = [(ResourceType.BROKER, str(broker), rates) for broker in sorted(brokers)]
        for name in sorted({tp.topic for tp in moved}):
            of_topic = {tp.partition: move for tp, move in moved.items() if tp.topic == name}
            leading = [f"{p}:{b}" for p, move in of_topic.items() for b in move.replicas if b not in move.adding]
            following = [f"{p}:{b}" for p, move in of_topic.items() for b in move.adding]
            texts = dict(zip(_THROTTLED_REPLICAS, (",".join(leading), ",".join(following)), strict=True))
            changes.append((ResourceType.TOPIC, name, texts))
        self._alter_configs(changes)

    def unthrottle(self, topics: Iterable[str]) -> None:
        """Take back what ``throttle`` has set on all brokers and on ``topics``."""
        brokers = self.describe_cluster().brokers
        changes: list[Any] = [(ResourceType.BROKER, str(b), dict.fromkeys(_THROTTLE_RATES)) for b in brokers]
        changes += [(ResourceType.TOPIC, name, dict.fromkeys(_THROTTLED_REPLICAS)) for name in sorted(set(topics))]
        self._alter_configs(changes)

    def _alter_configs(self, changes: Iterable[tuple[ResourceType, str, Mapping[str, str | None]]]) -> None:
        pending = []
        for kind, name, texts in changes:
            entries = [
                ConfigEntry(
                    key,
                    text,
                    incremental_operation=AlterConfigOpType.DELETE if text is None else AlterConfigOpType.SET,
                )
                for key, text in texts.items()
            ]
            resource = ConfigResource(kind, name, incremental_configs=entries)
            pending.append(self._connected().incremental_alter_configs([resource]))  # one broker at a time is allowed
        for futures in pending:
            _wait(futures)

    def _topic_config(self, name: str) -> dict[str, str]:
        entries = _wait(self._connected().describe_configs([ConfigResource(ResourceType.TOPIC, name)]))
        return {key: entry.value for key, entry in sorted(entries.items()) if entry.source == _TOPIC_SOURCE}

    def _metadata(self) -> Any:
        try:
            return self._connected().list_topics(timeout=_ANSWER_WITHIN_S)
        except KafkaException as error:
            raise translate(error) from None

    def _connected(self) -> AdminClient:
        if self._client is None:
            try:
                self._client = AdminClient(self._place.rdkafka(self._settings))
            except (KafkaException, ValueError) as error:
                raise translate(error) from None
        return self._client


_TOPIC_SOURCE = 1  # DYNAMIC_TOPIC_CONFIG of DescribeConfigs
_THROTTLE_RATES = ("leader.replication.throttled.rate", "follower.replication.throttled.rate")
_THROTTLED_REPLICAS = ("leader.replication.throttled.replicas", "follower.replication.throttled.replicas")


def _wait(futures: Mapping[Any, Future[Any]]) -> Any:
    """The result of the one future in ``futures``."""
    (future,) = futures.values()
    return _result(future)


def _result(future: Future[Any]) -> Any:
    try:
        return future.result(timeout=2 * _ANSWER_WITHIN_S)
    except KafkaException as error:
        raise translate(error) from None
    except TimeoutError:
        raise ClientError("The cluster gave no answer in time.") from None
