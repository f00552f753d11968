"""What the controller knows at one moment: ZooKeeper's metadata, the brokers that are registered, and the image of it
all that the brokers have been told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from raykafka.cluster.changes import Changes
from raykafka.cluster.image import ClusterImage
from raykafka.config.effective import effective_broker_config, effective_topic_config
from raykafka.controller.rules.elections import BrokerLife, first_state
from raykafka.controller.rules.topics import Defaults
from raykafka.types import TopicPartition
from raykafka.zookeeper.controller_store import TopicRecord
from raykafka.zookeeper.znodes import Registration, StateNode

_CLUSTER_DEFAULT = ""


@dataclass(frozen=True)
class State:
    """It can't be changed: a turn of the ledger puts another in its place (``ledger.Turn``).

    ``image`` is what the brokers go by, ``sequence`` its number. ``records`` are the topics as ZooKeeper has them by
    name, ``deleting`` those whose deletion was begun, ``deleted_changes`` the changes of all that are gone.
    ``registrations`` are the brokers that count as alive; ``leaving_epochs`` says which life (broker epoch) of a broker
    has asked for a controlled shutdown. ``static_config`` holds the static configs of this controller's broker.
    """

    image: ClusterImage
    static_config: Mapping[str, str] = field(default_factory=dict)
    sequence: int = 0
    records: Mapping[str, TopicRecord] = field(default_factory=dict)
    deleting: Mapping[str, TopicRecord] = field(default_factory=dict)
    deleted_changes: Changes = field(default_factory=Changes)
    registrations: Mapping[int, Registration] = field(default_factory=dict)
    leaving_epochs: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("static_config", "records", "deleting", "registrations", "leaving_epochs"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))

    @property
    def epoch(self) -> int:
        """The controller epoch."""
        return self.image.controller_epoch

    @property
    def broker_id(self) -> int:
        """The broker whose controller this is."""
        return self.image.controller_id

    # brokers

    def lives(self) -> dict[int, BrokerLife]:
        return {b: BrokerLife.of(r) for b, r in self.registrations.items()}

    def racks(self) -> dict[int, str | None]:
        """Where replicas can be put: the registered brokers and their racks."""
        return {b: r.info.rack for b, r in self.registrations.items()}

    @property
    def leaving(self) -> set[int]:
        """The registered brokers that are about to stop: they get into no ISR and lead nothing new any more."""
        return {b for b, r in self.registrations.items() if self.leaving_epochs.get(b) == r.info.epoch}

    # partitions

    def all_partitions(self) -> list[TopicPartition]:
        return self.partitions_of(self.records)

    def partitions_of(self, topics: Iterable[str]) -> list[TopicPartition]:
        return [TopicPartition(name, p) for name in topics for p in self.records[name].states]

    def partition(self, tp: TopicPartition) -> tuple[StateNode, tuple[int, ...]] | None:
        """A partition's state and replicas; None where there is none."""
        record = self.records.get(tp.topic)
        if record is None or tp.partition not in record.states:
            return None
        return record.states[tp.partition], record.node.replicas[tp.partition]

    def first_states(self, replicas: Mapping[int, tuple[int, ...]]) -> dict[int, StateNode]:
        """The states of new partitions with these replicas."""
        lives = self.lives()
        return {p: first_state(brokers, lives, self.epoch) for p, brokers in replicas.items()}

    # configs in force

    def config_places(self) -> tuple[Mapping[str, str], Mapping[str, str], Mapping[str, str]]:
        """This broker's dynamic configs, the cluster's dynamic defaults, this broker's static configs."""
        dynamic = self.image.broker_configs
        return dynamic.get(str(self.broker_id), {}), dynamic.get(_CLUSTER_DEFAULT, {}), self.static_config

    def broker_config(self) -> dict[str, str]:
        """The broker configs in force on this controller's broker, as texts."""
        return effective_broker_config(*self.config_places())

    def topic_config(self, config: Mapping[str, str]) -> dict[str, str]:
        """A topic's configs in force, as texts, given those that are set for it."""
        return effective_topic_config(config, *self.config_places())

    def topic_defaults(self) -> Defaults:
        config = self.broker_config()
        return Defaults(int(config["num.partitions"]), int(config["default.replication.factor"]))


def _read_only(values: Mapping[Any, Any]) -> Mapping[Any, Any]:
    return values if isinstance(values, MappingProxyType) else MappingProxyType(values)
