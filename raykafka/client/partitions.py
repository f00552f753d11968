"""What an admin does with partitions that exist: move them, watch the moves, elect leaders, see sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from raykafka.client.requests import ask, request_module
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.types import TopicPartition

_ELECT_LEADERS = (43, 2)
_ALTER_REASSIGNMENTS = (45, 0)
_LIST_REASSIGNMENTS = (46, 0)
_DESCRIBE_LOG_DIRS = (35, 4)
_WITHIN = timedelta(seconds=30)

Outcomes = dict[TopicPartition, KafkaError | None]


@dataclass(frozen=True, slots=True)
class PartitionMove:
    """A move under way: all ``replicas``, of which some are being added and some are to go."""

    replicas: tuple[int, ...]
    adding: tuple[int, ...]
    removing: tuple[int, ...]

    @property
    def target(self) -> tuple[int, ...]:
        return tuple(b for b in self.replicas if b not in self.removing)


def reassign(addresses: str, wanted: Mapping[TopicPartition, Sequence[int] | None]) -> Outcomes:
    """Begin to move partitions to the given brokers; None cancels a partition's move. Raises KafkaError and ClientError
    for what befalls the whole request."""
    m = request_module(*_ALTER_REASSIGNMENTS)
    topics = tuple(
        m.ReassignableTopic(
            name=name,
            partitions=tuple(
                m.ReassignablePartition(partition_index=tp.partition, replicas=_ids(wanted[tp])) for tp in partitions
            ),
        )
        for name, partitions in _by_topic(wanted).items()
    )
    answer = ask(addresses, m.AlterPartitionReassignmentsRequest(timeout=_WITHIN, topics=topics))
    _raise_for(answer)
    return {
        TopicPartition(topic.name, part.partition_index): _error(part)
        for topic in answer.responses
        for part in topic.partitions
    }


def _ids(brokers: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if brokers is None else tuple(brokers)


def moves(addresses: str) -> dict[TopicPartition, PartitionMove]:
    """The moves under way."""
    m = request_module(*_LIST_REASSIGNMENTS)
    answer = ask(addresses, m.ListPartitionReassignmentsRequest(timeout=_WITHIN, topics=None))
    _raise_for(answer)
    return {
        TopicPartition(topic.name, part.partition_index): PartitionMove(
            tuple(part.replicas), tuple(part.adding_replicas), tuple(part.removing_replicas)
        )
        for topic in answer.topics
        for part in topic.partitions
    }


def elect_leaders(addresses: str, partitions: Iterable[TopicPartition] | None, *, unclean: bool = False) -> Outcomes:
    """Have the preferred replicas lead, or with ``unclean`` any that is alive where nobody leads. Without
    ``partitions`` all are meant, and only those that needed it are answered."""
    m = request_module(*_ELECT_LEADERS)
    named = None
    if partitions is not None:
        named = tuple(
            m.TopicPartitions(topic=name, partitions=tuple(tp.partition for tp in found))
            for name, found in _by_topic(partitions).items()
        )
    kind = 1 if unclean else 0
    answer = ask(addresses, m.ElectLeadersRequest(election_type=kind, topic_partitions=named, timeout=_WITHIN))
    _raise_for(answer)
    return {
        TopicPartition(topic.topic, part.partition_id): _error(part)
        for topic in answer.replica_election_results
        for part in topic.partition_result
    }


def log_sizes(address: str) -> dict[TopicPartition, int]:
    """Bytes of each partition on the disk of the broker at ``address``."""
    m = request_module(*_DESCRIBE_LOG_DIRS)
    answer = ask(address, m.DescribeLogDirsRequest(topics=None))
    _raise_for(answer)
    return {
        TopicPartition(topic.name, part.partition_index): part.partition_size
        for directory in answer.results
        for topic in directory.topics
        for part in topic.partitions
    }


def _by_topic(partitions: Iterable[TopicPartition]) -> dict[str, list[TopicPartition]]:
    found: dict[str, list[TopicPartition]] = {}
    for tp in partitions:
        found.setdefault(tp.topic, []).append(tp)
    return found


def _error(part: Any) -> KafkaError | None:
    code = ErrorCode(part.error_code.value)
    return None if code is ErrorCode.NONE else KafkaError(code, part.error_message or "")


def _raise_for(answer: Any) -> None:
    code = ErrorCode(answer.error_code.value)
    if code is not ErrorCode.NONE:
        raise KafkaError(code, getattr(answer, "error_message", None) or "")
