"""What the controller reads from and writes to ZooKeeper. Every write checks ``/controller_epoch`` (rules 7, 16).

Everything here blocks: the controller runs it in a thread, one call at a time. Writes raise ControllerFenced when
another controller has taken over, and kazoo's SessionExpiredError once the session is gone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from raykafka.cluster.changes import Changes
from raykafka.cluster.image import PartitionState, Topic
from raykafka.errors import RaykafkaError
from raykafka.types import TopicPartition
from raykafka.zookeeper import paths, znodes
from raykafka.zookeeper.broker_store import removal
from raykafka.zookeeper.client import (
    ANY_VERSION,
    Check,
    Conflict,
    Create,
    Delete,
    Node,
    Operation,
    Write,
    children_of_all,
    commit,
    reading,
    reading_all,
)
from raykafka.zookeeper.controller_election import Claim
from raykafka.zookeeper.znodes import Registration, StateNode, TopicNode

# A transaction travels as one packet of at most 1 MB (ZooKeeper's jute.maxbuffer); an operation of ours takes some
# 300 bytes.
_OPERATIONS_AT_ONCE = 900


class ControllerFenced(RaykafkaError):
    """Another controller was elected: this one decides nothing any more."""


@dataclass(frozen=True, slots=True)
class TopicRecord:
    """A topic as ZooKeeper has it; ``version`` is that of its assignment node. ``states`` and ``config`` can't be
    changed: a change of the topic makes another record."""

    name: str
    node: TopicNode
    version: int
    states: Mapping[int, StateNode]
    config: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", MappingProxyType(dict(self.states)))
        object.__setattr__(self, "config", MappingProxyType(dict(self.config)))

    def as_topic(self) -> Topic:
        """The topic as the cluster image holds it: with those of its partitions that have a state."""
        partitions = {p: self.as_partition(p) for p in sorted(self.states)}
        return Topic(self.name, self.node.id, partitions, dict(self.config))

    def as_partition(self, partition: int) -> PartitionState:
        """A partition as the cluster image holds it."""
        node = self.node
        adding, removing = node.adding.get(partition, ()), node.removing.get(partition, ())
        return self.states[partition].as_partition(node.replicas[partition], adding, removing)


@dataclass(frozen=True, slots=True)
class Metadata:
    """Everything but brokers. ``broker_configs`` is keyed by broker id, "" for the cluster default; ``deleting`` are
    topics whose deletion was begun and are not in ``topics``; ``deleted_changes`` those of partitions that are gone."""

    topics: Mapping[str, TopicRecord]
    broker_configs: Mapping[str, Mapping[str, str]]
    deleting: Mapping[str, TopicRecord]
    deleted_changes: Changes


class ControllerStore:
    """The writes of the controller that won ``claim``, and its reads: of everything once, of the brokers often."""

    def __init__(self, client: KazooClient, claim: Claim) -> None:
        self._client = client
        self.epoch = claim.epoch
        self._epoch_version = claim.version

    # reading

    def read_brokers(self, watch: Callable[[Any], None] | None = None) -> dict[int, Registration]:
        """The registered brokers. ``watch`` is called once, in a kazoo thread, when one comes or goes."""
        client = self._client
        ids = paths.sorted_ids(reading(lambda: client.get_children(paths.BROKER_IDS, watch=watch)))
        found = reading_all(client, [paths.broker_path(b) for b in ids])
        return {
            b: znodes.unpack_registration(b, node[0]) for b, node in zip(ids, found, strict=True) if node is not None
        }

    def load(self) -> Metadata:
        """Everything, in three round trips: all wait for a new controller."""
        client = self._client
        parents = (paths.TOPICS, paths.DELETE_TOPICS, paths.BROKER_CONFIGS)
        found_names, found_marked, brokers = children_of_all(client, parents)
        names, marked = sorted(found_names), set(found_marked)
        wanted_nodes = [
            *(paths.topic_path(n) for n in names),
            *(paths.topic_config_path(n) for n in names),
            *(f"{paths.BROKER_CONFIGS}/{b}" for b in brokers),
            paths.DELETED_TOPICS,
        ]
        nodes = reading_all(client, wanted_nodes)
        configs = nodes[len(names) : 2 * len(names)]
        topics = {}
        for name, node, config in zip(names, nodes[: len(names)], configs, strict=True):
            if node is not None:
                settings = znodes.unpack_config(config[0]) if config and config[0] else {}
                topics[name] = TopicRecord(name, TopicNode.unpack(node[0]), node[1].version, {}, settings)
        wanted = [TopicPartition(n, p) for n, topic in topics.items() for p in topic.node.replicas]
        states: dict[str, dict[int, StateNode]] = {name: {} for name in topics}
        for tp, found in zip(wanted, self._read_states(wanted), strict=True):
            if found is not None:
                states[tp.topic][tp.partition] = found
        topics = {name: replace(record, states=states[name]) for name, record in topics.items()}
        deleting = {name: topics.pop(name) for name in marked & topics.keys()}
        for name in marked - deleting.keys():
            self._write([Delete(paths.delete_topic_path(name))])
        broker_configs = {
            "" if name == paths.CLUSTER_DEFAULT else name: znodes.unpack_config(node[0])
            for name, node in zip(brokers, nodes[2 * len(names) : -1], strict=True)
            if node is not None and node[0]
        }
        return Metadata(topics, broker_configs, deleting, _deleted_changes(nodes[-1])[0])

    def _read_states(self, wanted: Iterable[TopicPartition]) -> list[StateNode | None]:
        found = reading_all(self._client, [paths.state_path(*tp) for tp in wanted])
        return [StateNode.unpack(node[0], node[1].version) if node else None for node in found]

    # brokers

    def remove_broker(self, registration: Registration) -> bool:
        """Remove the registration of a broker that was found dead. False if that life was gone already."""
        try:
            self._write(removal(registration.info))
        except Conflict:
            return False
        return True

    # topics

    def create_topic(
        self, name: str, node: TopicNode, config: Mapping[str, str], states: Mapping[int, StateNode]
    ) -> TopicRecord:
        """Create a topic with the states of its partitions. A crash half-way leaves partitions without a state, which
        the next controller gives them. Raises Conflict when the topic exists."""
        config_path, settings = paths.topic_config_path(name), znodes.pack_config(config)
        left_over = reading(lambda: self._client.exists(config_path)) is not None
        self._write(
            [
                Write(config_path, settings, ANY_VERSION) if left_over else Create(config_path, settings),
                Create(paths.topic_path(name), node.pack()),
                Create(paths.partitions_path(name)),
                *_new_states(name, states),
            ]
        )
        return TopicRecord(name, node, 0, _at_version_0(states), dict(config))

    def add_states(self, name: str, states: Mapping[int, StateNode]) -> dict[int, StateNode]:
        """Give partitions that have none their first state."""
        order = sorted(states)
        parents = reading_all(self._client, [paths.partition_path(name, p) for p in order])
        begun = {p for p, parent in zip(order, parents, strict=True) if parent is not None}
        there = [Create(paths.state_path(name, p), states[p].pack()) for p in sorted(begun)]
        self._write([*there, *_new_states(name, {p: s for p, s in states.items() if p not in begun})])
        return _at_version_0(states)

    def add_partitions(self, record: TopicRecord, node: TopicNode, states: Mapping[int, StateNode]) -> TopicRecord:
        """Grow a topic: ``node`` is its whole new assignment, ``states`` are those of the new partitions."""
        grown = Write(paths.topic_path(record.name), node.pack(), record.version)
        self._write([grown, *_new_states(record.name, states)])
        merged = {**record.states, **_at_version_0(states)}
        return replace(record, node=node, version=record.version + 1, states=merged)

    def write_assignment(self, record: TopicRecord, node: TopicNode, states: Mapping[int, StateNode]) -> TopicRecord:
        """Write a topic's changed assignment together with the states of the partitions that it changed: one
        transaction, so not more than some 800 of them."""
        writes = [Write(paths.state_path(record.name, p), s.pack(), s.version) for p, s in states.items()]
        self._write([Write(paths.topic_path(record.name), node.pack(), record.version), *writes])
        written = {p: state.stored_at(state.version + 1) for p, state in states.items()}
        return replace(record, node=node, version=record.version + 1, states={**record.states, **written})

    def write_states(
        self, changes: Mapping[TopicPartition, StateNode], dead: Sequence[Registration] = ()
    ) -> dict[TopicPartition, StateNode]:
        """Write changed states, each conditional on the version it was made from; the answer has the new versions. The
        registrations of brokers that were found ``dead`` go in the same transaction (rule 14). With nothing to write,
        this only finds out whether this controller still is the active one."""
        writes = [Write(paths.state_path(*tp), state.pack(), state.version) for tp, state in changes.items()]
        removals = [operation for registration in dead for operation in removal(registration.info)]
        try:
            self._write([*removals, *writes])
        except Conflict:
            if not removals:
                raise
            # one of them was gone already: its session had expired
            for registration in dead:
                self.remove_broker(registration)
            self._write(writes)
        return {tp: state.stored_at(state.version + 1) for tp, state in changes.items()}

    def write_isrs(self, changes: Mapping[TopicPartition, StateNode]) -> dict[TopicPartition, StateNode] | None:
        """Write states that differ in their ISR from those they were made from, if every member of an ISR still lives
        the life that ``isr_epochs`` names (rule 7); None if one does not. One transaction, so not more than some 800 of
        them."""
        members = {m for state in changes.values() for m in zip(state.isr, state.isr_epochs, strict=True)}
        checks = [Check(paths.broker_epoch_path(broker), epoch) for broker, epoch in sorted(members)]
        writes = [Write(paths.state_path(*tp), state.pack(), state.version) for tp, state in changes.items()]
        try:
            self._write([*checks, *writes])
        except Conflict:
            return None
        return {tp: state.stored_at(state.version + 1) for tp, state in changes.items()}

    def mark_deleting(self, name: str) -> None:
        """Begin a topic's deletion: from here on it is gone, whoever has to finish it."""
        self._write([Create(paths.delete_topic_path(name))])

    def finish_deleting(self, name: str) -> Changes:
        """Remove all nodes of a topic that is marked, and the mark last. Finds out itself what is left to remove.
        Returns the changes of all topics ever deleted: they grow in the transactions that remove the states."""
        client, partitions = self._client, paths.partitions_path(name)
        try:
            children = paths.sorted_ids(reading(lambda: client.get_children(partitions)))
        except NoNodeError:
            children = []
        states = {paths.state_path(name, p) for p in children}
        named = [path for p in children for path in (paths.state_path(name, p), paths.partition_path(name, p))]
        named += [partitions, paths.topic_path(name), paths.topic_config_path(name), paths.delete_topic_path(name)]
        found = reading_all(client, named)
        there = [(path, node) for path, node in zip(named, found, strict=True) if node is not None]
        kept, version = _deleted_changes(*reading_all(client, [paths.DELETED_TOPICS]))
        for start in range(0, len(there), _OPERATIONS_AT_ONCE - 1):
            part = there[start : start + _OPERATIONS_AT_ONCE - 1]
            gone = [StateNode.unpack(node[0], node[1].version) for path, node in part if path in states]
            kept = functools.reduce(Changes.plus, [state.changes for state in gone], kept)
            data = znodes.pack_deleted_topics(kept)
            keep = Write(paths.DELETED_TOPICS, data, version) if version >= 0 else Create(paths.DELETED_TOPICS, data)
            self._write([keep, *(Delete(path) for path, _ in part)])
            version += 1
        return kept

    # configs

    def write_topic_config(self, name: str, config: Mapping[str, str]) -> None:
        self._write_config(paths.topic_config_path(name), config)

    def write_broker_config(self, broker: str, config: Mapping[str, str]) -> None:
        """``broker`` is a broker id, or "" for the cluster default."""
        self._write_config(paths.broker_config_path(broker), config)

    def _write_config(self, path: str, config: Mapping[str, str]) -> None:
        data = znodes.pack_config(config)
        exists = reading(lambda: self._client.exists(path)) is not None
        self._write([Write(path, data, ANY_VERSION) if exists else Create(path, data)])

    # transactions

    def _write(self, operations: Sequence[Operation]) -> None:
        """Write in as few transactions as fit, in order, each checking the controller's epoch: one at least."""
        epoch = Check(paths.CONTROLLER_EPOCH, self._epoch_version)
        for start in range(0, len(operations) or 1, _OPERATIONS_AT_ONCE):
            try:
                commit(self._client, [epoch, *operations[start : start + _OPERATIONS_AT_ONCE]])
            except Conflict:
                self._raise_if_fenced()
                raise

    def _raise_if_fenced(self) -> None:
        version = reading(lambda: self._client.get(paths.CONTROLLER_EPOCH))[1].version
        if version != self._epoch_version:
            raise ControllerFenced(f"controller epoch {self.epoch} has ended")


def _deleted_changes(node: Node) -> tuple[Changes, int]:
    """What deleted topics have left, and the version of its node (-1: there is none)."""
    return (znodes.unpack_deleted_topics(node[0]), node[1].version) if node else (Changes(), -1)


def _new_states(name: str, states: Mapping[int, StateNode]) -> list[Operation]:
    operations: list[Operation] = []
    for partition, state in sorted(states.items()):
        operations.append(Create(paths.partition_path(name, partition)))
        operations.append(Create(paths.state_path(name, partition), state.pack()))
    return operations


def _at_version_0(states: Mapping[int, StateNode]) -> dict[int, StateNode]:
    return {p: state.stored_at(0) for p, state in states.items()}
