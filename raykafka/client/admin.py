"""The admin handle: topics and the cluster; picklable."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, ResourceType

from raykafka.client.settings import Place, translate
from raykafka.errors import ClientError, KafkaError
from raykafka.protocol.error_code import ErrorCode

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
    name: str
    partitions: tuple[PartitionDescription, ...]
    config: dict[str, str] = field(default_factory=dict)
    """The settings that were made for this topic; all others are defaults."""


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """``brokers`` maps broker ids to ``host:port``; ``controller`` is -1 while there is none."""

    cluster_id: str
    controller: int
    brokers: dict[int, str]


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
        _wait(self._connected().delete_topics([name], operation_timeout=_ANSWER_WITHIN_S))

    def grow_topic(self, name: str, partitions: int) -> None:
        """Raise the number of partitions to ``partitions``."""
        _wait(self._connected().create_partitions([NewPartitions(name, partitions)]))

    def topics(self, internal: bool = False) -> list[str]:
        """Names, sorted; with ``internal`` also those that raykafka keeps for itself."""
        names = self._metadata().topics
        return sorted(name for name in names if internal or not name.startswith("__"))

    def describe_topic(self, name: str) -> TopicDescription:
        found = self._metadata().topics.get(name)
        if found is None or found.error is not None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Topic {name} does not exist.")
        partitions = tuple(
            PartitionDescription(part.id, part.leader, tuple(part.replicas), tuple(part.isrs))
            for part in sorted(found.partitions.values(), key=lambda part: part.id)
        )
        return TopicDescription(name, partitions, self._topic_config(name))

    def describe_cluster(self) -> ClusterDescription:
        found = self._metadata()
        brokers = {broker.id: f"{broker.host}:{broker.port}" for broker in found.brokers.values()}
        return ClusterDescription(found.cluster_id, found.controller_id, dict(sorted(brokers.items())))

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


def _wait(futures: Mapping[Any, Future[Any]]) -> Any:
    """The result of the one future in ``futures``."""
    (future,) = futures.values()
    try:
        return future.result(timeout=2 * _ANSWER_WITHIN_S)
    except KafkaException as error:
        raise translate(error) from None
    except TimeoutError:
        raise ClientError("The cluster gave no answer in time.") from None
