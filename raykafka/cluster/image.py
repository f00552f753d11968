"""The cluster as everybody but ZooKeeper sees it: brokers, topics, partition states, configs. Immutable; deltas make
the next.

The active controller builds a ClusterImage from ZooKeeper, sends it whole to a broker on connecting, and deltas after
that, in the order in which ZooKeeper took them. Brokers learn from it what they lead, and relay it to their replica
actors, which answer Metadata from it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from raykafka.types import TopicPartition


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where clients reach a broker through one named listener (the advertised address)."""

    listener: str
    host: str
    port: int
    security_protocol: str = "PLAINTEXT"


@dataclass(frozen=True, slots=True)
class BrokerInfo:
    """A live broker's registration. ``epoch`` is the version of ``/brokers/epochs/N``; ``link_host:link_port`` its
    inter-broker port; ``directory_id``, ``boot_id`` and ``clean_shutdown`` as rule 18 says. ``stopping``: it is about
    to end its life in order, and gets into no ISR any more."""

    id: int
    epoch: int
    endpoints: tuple[Endpoint, ...]
    link_host: str
    link_port: int
    directory_id: str
    boot_id: str
    clean_shutdown: bool
    rack: str | None = None
    stopping: bool = False

    def endpoint(self, listener: str) -> Endpoint | None:
        return next((e for e in self.endpoints if e.listener == listener), None)


@dataclass(frozen=True, slots=True)
class PartitionState:
    """A partition's assignment and its state znode. ``leader`` is -1 while offline; ``version`` is the znode's version;
    ``unclean_epoch`` the last leader epoch that an unclean election began (-1: none), so that a follower knows when
    it may lose committed records."""

    replicas: tuple[int, ...]
    leader: int
    leader_epoch: int
    isr: tuple[int, ...]
    version: int
    adding: tuple[int, ...] = ()
    removing: tuple[int, ...] = ()
    unclean_epoch: int = -1

    def least_in_sync(self, min_insync_replicas: int) -> int:
        """How many must be in sync for acks=all: what ``min.insync.replicas`` says, but no more than there are."""
        return min(min_insync_replicas, len(self.replicas))


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    id: uuid.UUID
    partitions: Mapping[int, PartitionState]
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageDelta:
    """What changed. ``topics`` replaces whole topics (name -> Topic); ``partitions`` are new states of partitions whose
    topics stay as they are otherwise, applied after ``topics``; ``broker_configs`` maps a broker id, or "" for the
    cluster default, to all its dynamic configs."""

    brokers: Mapping[int, BrokerInfo] = field(default_factory=dict)
    removed_brokers: tuple[int, ...] = ()
    topics: Mapping[str, Topic] = field(default_factory=dict)
    deleted_topics: tuple[str, ...] = ()
    partitions: Mapping[TopicPartition, PartitionState] = field(default_factory=dict)
    broker_configs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    controller_id: int | None = None
    controller_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class ClusterImage:
    cluster_id: str
    controller_id: int = -1
    controller_epoch: int = -1
    brokers: Mapping[int, BrokerInfo] = field(default_factory=dict)
    topics: Mapping[str, Topic] = field(default_factory=dict)
    names_by_id: Mapping[uuid.UUID, str] = field(default_factory=dict)
    broker_configs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def partition(self, tp: TopicPartition) -> PartitionState | None:
        topic = self.topics.get(tp.topic)
        return topic.partitions.get(tp.partition) if topic else None

    def replica_on(self, broker: int, topic: str, topic_id: uuid.UUID, partition: int) -> PartitionState | None:
        """The state of that very topic's partition, where it has a replica on ``broker``; None elsewhere."""
        found = self.topics.get(topic)
        state = found.partitions.get(partition) if found is not None and found.id == topic_id else None
        return state if state is not None and broker in state.replicas else None

    def apply(self, delta: ImageDelta) -> ClusterImage:
        brokers = {**self.brokers, **delta.brokers}
        for broker in delta.removed_brokers:
            brokers.pop(broker, None)
        topics, names = self.topics, self.names_by_id
        if delta.topics or delta.deleted_topics or delta.partitions:
            changed, ids = dict(topics), dict(names)
            for name in (*delta.deleted_topics, *delta.topics):
                old = changed.pop(name, None)
                if old is not None:
                    ids.pop(old.id, None)
            for name, topic in delta.topics.items():
                changed[name] = topic
                ids[topic.id] = name
            for name, states in by_topic(delta.partitions).items():
                topic = changed[name]
                changed[name] = replace(topic, partitions={**topic.partitions, **states})
            topics, names = changed, ids
        return replace(
            self,
            controller_id=self.controller_id if delta.controller_id is None else delta.controller_id,
            controller_epoch=self.controller_epoch if delta.controller_epoch is None else delta.controller_epoch,
            brokers=brokers,
            topics=topics,
            names_by_id=names,
            broker_configs={**self.broker_configs, **delta.broker_configs},
        )

    def as_delta(self) -> ImageDelta:
        """The delta that makes this image from an empty one."""
        return ImageDelta(
            brokers=self.brokers,
            topics=self.topics,
            broker_configs=self.broker_configs,
            controller_id=self.controller_id,
            controller_epoch=self.controller_epoch,
        )


def by_topic(partitions: Mapping[TopicPartition, PartitionState]) -> dict[str, dict[int, PartitionState]]:
    grouped: dict[str, dict[int, PartitionState]] = {}
    for (topic, partition), state in partitions.items():
        grouped.setdefault(topic, {})[partition] = state
    return grouped


def delta_to_json(delta: ImageDelta) -> dict[str, Any]:
    return {
        "brokers": [broker_to_json(b) for b in delta.brokers.values()],
        "removed_brokers": list(delta.removed_brokers),
        "topics": [topic_to_json(t) for t in delta.topics.values()],
        "deleted_topics": list(delta.deleted_topics),
        "partitions": {
            name: {str(p): partition_to_json(state) for p, state in states.items()}
            for name, states in by_topic(delta.partitions).items()
        },
        "broker_configs": {k: dict(v) for k, v in delta.broker_configs.items()},
        "controller_id": delta.controller_id,
        "controller_epoch": delta.controller_epoch,
    }


def delta_from_json(data: dict[str, Any]) -> ImageDelta:
    brokers = [broker_from_json(b) for b in data["brokers"]]
    topics = [topic_from_json(t) for t in data["topics"]]
    return ImageDelta(
        brokers={b.id: b for b in brokers},
        removed_brokers=tuple(data["removed_brokers"]),
        topics={t.name: t for t in topics},
        deleted_topics=tuple(data["deleted_topics"]),
        partitions={
            TopicPartition(name, int(p)): partition_from_json(state)
            for name, states in data["partitions"].items()
            for p, state in states.items()
        },
        broker_configs=data["broker_configs"],
        controller_id=data["controller_id"],
        controller_epoch=data["controller_epoch"],
    )


def broker_to_json(broker: BrokerInfo) -> dict[str, Any]:
    return {
        "id": broker.id,
        "epoch": broker.epoch,
        "endpoints": [[e.listener, e.host, e.port, e.security_protocol] for e in broker.endpoints],
        "link": [broker.link_host, broker.link_port],
        "directory_id": broker.directory_id,
        "boot_id": broker.boot_id,
        "clean_shutdown": broker.clean_shutdown,
        "rack": broker.rack,
        "stopping": broker.stopping,
    }


def broker_from_json(data: dict[str, Any]) -> BrokerInfo:
    return BrokerInfo(
        id=data["id"],
        epoch=data["epoch"],
        endpoints=tuple(Endpoint(*e) for e in data["endpoints"]),
        link_host=data["link"][0],
        link_port=data["link"][1],
        directory_id=data["directory_id"],
        boot_id=data["boot_id"],
        clean_shutdown=data["clean_shutdown"],
        rack=data["rack"],
        stopping=data["stopping"],
    )


def partition_to_json(state: PartitionState) -> list[Any]:
    return [
        list(state.replicas),
        state.leader,
        state.leader_epoch,
        list(state.isr),
        state.version,
        list(state.adding),
        list(state.removing),
        state.unclean_epoch,
    ]


def partition_from_json(data: list[Any]) -> PartitionState:
    replicas, leader, epoch, isr, version, adding, removing, unclean_epoch = data
    return PartitionState(
        tuple(replicas), leader, epoch, tuple(isr), version, tuple(adding), tuple(removing), unclean_epoch
    )


def topic_to_json(topic: Topic) -> dict[str, Any]:
    return {
        "name": topic.name,
        "id": str(topic.id),
        "partitions": {str(p): partition_to_json(s) for p, s in topic.partitions.items()},
        "config": dict(topic.config),
    }


def topic_from_json(data: dict[str, Any]) -> Topic:
    return Topic(
        name=data["name"],
        id=uuid.UUID(data["id"]),
        partitions={int(p): partition_from_json(s) for p, s in data["partitions"].items()},
        config=data["config"],
    )
