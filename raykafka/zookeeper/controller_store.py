"""What the active controller reads from and writes to ZooKeeper. Every write checks ``/controller_epoch`` (rules 7,
16).

Everything here blocks: the controller runs it in a thread, one call at a time. Writes raise ControllerFenced when
another controller has taken over, and kazoo's SessionExpiredError once the session is gone.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from raykafka.cluster.changes import Changes
from raykafka.errors import RaykafkaError
from raykafka.types import TopicPartition
from raykafka.zookeeper import znodes
from raykafka.zookeeper.broker_store import ensure_layout, removal
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
    create_if_missing,
    reading,
    reading_all,
)
from raykafka.zookeeper.znodes import ControllerNode, Registration, StateNode, TopicNode

# A transaction travels as one packet of at most 1 MB (ZooKeeper's jute.maxbuffer); an operation of ours takes some
# 300 bytes.
_OPERATIONS_AT_ONCE = 900


class ControllerFenced(RaykafkaError):
    """Another controller was elected: this one decides nothing any more."""


@dataclass(slots=True)
class TopicRecord:
    """A topic as ZooKeeper has it; ``version`` is that of its assignment node."""

    name: str
    node: TopicNode
    version: int
    states: dict[int, StateNode]
    config: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Metadata:
    """Everything but brokers. ``broker_configs`` is keyed by broker id, "" for the cluster default; ``deleting`` are
    topics whose deletion was begun and are not in ``topics``; ``deleted_changes`` those of partitions that are gone."""

    topics: dict[str, TopicRecord]
    broker_configs: dict[str, dict[str, str]]
    deleting: dict[str, TopicRecord]
    deleted_changes: Changes


@dataclass(frozen=True, slots=True)
class Claim:
    """A won election: the epoch, and the version of ``/controller_epoch`` that every write checks."""

    epoch: int
    version: int


def read_controller(
    client: KazooClient, watch: Callable[[Any], None] | None = None
) -> tuple[ControllerNode | None, int]:
    """Who is active, and the version of ``/controller_epoch`` read before that (-1: there was never one)."""
    stat = reading(lambda: client.exists(znodes.CONTROLLER_EPOCH))
    version = stat.version if stat else -1
    try:
        return ControllerNode.unpack(reading(lambda: client.get(znodes.CONTROLLER, watch=watch))[0]), version
    except NoNodeError:
        # a watch on a node that is not there yet
        if watch is not None and reading(lambda: client.exists(znodes.CONTROLLER, watch=watch)) is not None:
            return read_controller(client, watch)
        return None, version


def claim_controller(client: KazooClient, node: ControllerNode) -> Claim | None:
    """Become the active controller: create ``/controller`` and raise ``/controller_epoch`` in one transaction (rule
    16). None when somebody else was faster."""
    ensure_layout(client)
    create_if_missing(client, znodes.CONTROLLER_EPOCH, b"0")
    data, stat = reading(lambda: client.get(znodes.CONTROLLER_EPOCH))
    epoch = int(data) + 1
    try:
        commit(
            client,
            [
                Create(znodes.CONTROLLER, node.pack(), ephemeral=True),
                Write(znodes.CONTROLLER_EPOCH, str(epoch).encode(), stat.version),
            ],
        )
    except Conflict:
        return None
    return Claim(epoch, stat.version + 1)


def succeed_controller(client: KazooClient, node: ControllerNode, epoch_version: int) -> Claim | None:
    """Take the place of a controller that was found dead, in one transaction: ``/controller`` becomes ours and the
    epoch goes up (rule 16). None when somebody else was faster."""
    data, stat = reading(lambda: client.get(znodes.CONTROLLER_EPOCH))
    if stat.version != epoch_version:
        return None
    epoch = int(data) + 1
    try:
        commit(
            client,
            [
                Write(znodes.CONTROLLER_EPOCH, str(epoch).encode(), epoch_version),
                Delete(znodes.CONTROLLER),
                Create(znodes.CONTROLLER, node.pack(), ephemeral=True),
            ],
        )
    except Conflict:
        return None
    return Claim(epoch, epoch_version + 1)


def depose_controller(client: KazooClient, epoch_version: int) -> None:
    """Remove ``/controller`` of a controller that was found dead, unless another epoch has begun since."""
    with contextlib.suppress(Conflict):
        commit(client, [Check(znodes.CONTROLLER_EPOCH, epoch_version), Delete(znodes.CONTROLLER)])


def read_brokers(client: KazooClient, watch: Callable[[Any], None] | None = None) -> dict[int, Registration]:
    """The registered brokers. ``watch`` is called once, in a kazoo thread, when one comes or goes."""
    ids = znodes.sorted_ids(reading(lambda: client.get_children(znodes.BROKER_IDS, watch=watch)))
    found = reading_all(client, [znodes.broker_path(b) for b in ids])
    return {b: znodes.unpack_registration(b, node[0]) for b, node in zip(ids, found, strict=True) if node is not None}


class ControllerStore:
    """The writes of the controller that won ``claim``, and its one read of everything."""

    def __init__(self, client: KazooClient, claim: Claim) -> None:
        self._client = client
        self.epoch = claim.epoch
        self._epoch_version = claim.version

    # reading

    def load(self) -> Metadata:
        """Everything, in three round trips: all wait for a new controller."""
        client = self._client
        parents = (znodes.TOPICS, znodes.DELETE_TOPICS, znodes.BROKER_CONFIGS)
        found_names, found_marked, brokers = children_of_all(client, parents)
        names, marked = sorted(found_names), set(found_marked)
        topics = {}
        paths = [
            *(znodes.topic_path(n) for n in names),
            *(znodes.topic_config_path(n) for n in names),
            *(f"{znodes.BROKER_CONFIGS}/{b}" for b in brokers),
            znodes.DELETED_TOPICS,
        ]
        nodes = reading_all(client, paths)
        configs = nodes[len(names) : 2 * len(names)]
        for name, node, config in zip(names, nodes[: len(names)], configs, strict=True):
            if node is not None:
                settings = znodes.unpack_config(config[0]) if config and config[0] else {}
                topics[name] = TopicRecord(name, TopicNode.unpack(node[0]), node[1].version, {}, settings)
        wanted = [TopicPartition(n, p) for n, topic in topics.items() for p in topic.node.replicas]
        for tp, found in zip(wanted, self._read_states(wanted), strict=True):
            if found is not None:
                topics[tp.topic].states[tp.partition] = found
        deleting = {name: topics.pop(name) for name in marked & topics.keys()}
        for name in marked - deleting.keys():
            self._write([Delete(znodes.delete_topic_path(name))])
        broker_configs = {
            "" if name == znodes.CLUSTER_DEFAULT else name: znodes.unpack_config(node[0])
            for name, node in zip(brokers, nodes[2 * len(names) : -1], strict=True)
            if node is not None and node[0]
        }
        return Metadata(topics, broker_configs, deleting, _deleted_changes(nodes[-1])[0])

    def _read_states(self, wanted: Iterable[TopicPartition]) -> list[StateNode | None]:
        found = reading_all(self._client, [znodes.state_path(*tp) for tp in wanted])
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
        config_path, settings = znodes.topic_config_path(name), znodes.pack_config(config)
        left_over = reading(lambda: self._client.exists(config_path)) is not None
        self._write(
            [
                Write(config_path, settings, ANY_VERSION) if left_over else Create(config_path, settings),
                Create(znodes.topic_path(name), node.pack()),
                Create(znodes.partitions_path(name)),
                *_new_states(name, states),
            ]
        )
        return TopicRecord(name, node, 0, _at_version_0(states), dict(config))

    def add_states(self, name: str, states: Mapping[int, StateNode]) -> dict[int, StateNode]:
        """Give partitions that have none their first state."""
        order = sorted(states)
        parents = reading_all(self._client, [znodes.partition_path(name, p) for p in order])
        begun = {p for p, parent in zip(order, parents, strict=True) if parent is not None}
        there = [Create(znodes.state_path(name, p), states[p].pack()) for p in sorted(begun)]
        self._write([*there, *_new_states(name, {p: s for p, s in states.items() if p not in begun})])
        return _at_version_0(states)

    def add_partitions(self, record: TopicRecord, node: TopicNode, states: Mapping[int, StateNode]) -> TopicRecord:
        """Grow a topic: ``node`` is its whole new assignment, ``states`` are those of the new partitions."""
        grown = Write(znodes.topic_path(record.name), node.pack(), record.version)
        self._write([grown, *_new_states(record.name, states)])
        merged = {**record.states, **_at_version_0(states)}
        return replace(record, node=node, version=record.version + 1, states=merged)

    def write_assignment(self, record: TopicRecord, node: TopicNode, states: Mapping[int, StateNode]) -> TopicRecord:
        """Write a topic's changed assignment together with the states of the partitions that it changed: one
        transaction, so not more than some 800 of them."""
        paths = {p: znodes.state_path(record.name, p) for p in states}
        writes = [Write(paths[p], state.pack(), state.version) for p, state in states.items()]
        self._write([Write(znodes.topic_path(record.name), node.pack(), record.version), *writes])
        written = {p: state.stored_at(state.version + 1) for p, state in states.items()}
        return replace(record, node=node, version=record.version + 1, states={**record.states, **written})

    def write_states(
        self, changes: Mapping[TopicPartition, StateNode], dead: Sequence[Registration] = ()
    ) -> dict[TopicPartition, StateNode]:
        """Write changed states, each conditional on the version it was made from; the answer has the new versions. The
        registrations of brokers that were found ``dead`` go in the same transaction (rule 14). With nothing to write,
        this only finds out whether this controller still is the active one."""
        writes = [Write(znodes.state_path(*tp), state.pack(), state.version) for tp, state in changes.items()]
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
        checks = [Check(znodes.broker_epoch_path(broker), epoch) for broker, epoch in sorted(members)]
        writes = [Write(znodes.state_path(*tp), state.pack(), state.version) for tp, state in changes.items()]
        try:
            self._write([*checks, *writes])
        except Conflict:
            return None
        return {tp: state.stored_at(state.version + 1) for tp, state in changes.items()}

    def mark_deleting(self, name: str) -> None:
        """Begin a topic's deletion: from here on it is gone, whoever has to finish it."""
        self._write([Create(znodes.delete_topic_path(name))])

    def finish_deleting(self, name: str) -> Changes:
        """Remove all nodes of a topic that is marked, and the mark last. Finds out itself what is left to remove.
        Returns the changes of all topics ever deleted: they grow in the transactions that remove the states."""
        client, partitions = self._client, znodes.partitions_path(name)
        try:
            children = znodes.sorted_ids(reading(lambda: client.get_children(partitions)))
        except NoNodeError:
            children = []
        states = {znodes.state_path(name, p) for p in children}
        paths = [path for p in children for path in (znodes.state_path(name, p), znodes.partition_path(name, p))]
        paths += [partitions, znodes.topic_path(name), znodes.topic_config_path(name), znodes.delete_topic_path(name)]
        found = reading_all(client, paths)
        there = [(path, node) for path, node in zip(paths, found, strict=True) if node is not None]
        kept, version = _deleted_changes(*reading_all(client, [znodes.DELETED_TOPICS]))
        for start in range(0, len(there), _OPERATIONS_AT_ONCE - 1):
            part = there[start : start + _OPERATIONS_AT_ONCE - 1]
            gone = [StateNode.unpack(node[0], node[1].version) for path, node in part if path in states]
            kept = functools.reduce(Changes.plus, [state.changes for state in gone], kept)
            data = znodes.pack_deleted_topics(kept)
            keep = Write(znodes.DELETED_TOPICS, data, version) if version >= 0 else Create(znodes.DELETED_TOPICS, data)
            self._write([keep, *(Delete(path) for path, _ in part)])
            version += 1
        return kept

    # configs

    def write_topic_config(self, name: str, config: Mapping[str, str]) -> None:
        self._write_config(znodes.topic_config_path(name), config)

    def write_broker_config(self, broker: str, config: Mapping[str, str]) -> None:
        """``broker`` is a broker id, or "" for the cluster default."""
        self._write_config(znodes.broker_config_path(broker), config)

    def _write_config(self, path: str, config: Mapping[str, str]) -> None:
        data = znodes.pack_config(config)
        exists = reading(lambda: self._client.exists(path)) is not None
        self._write([Write(path, data, ANY_VERSION) if exists else Create(path, data)])

    # transactions

    def _write(self, operations: Sequence[Operation]) -> None:
        """Write in as few transactions as fit, in order, each checking the controller's epoch: one at least."""
        epoch = Check(znodes.CONTROLLER_EPOCH, self._epoch_version)
        for start in range(0, len(operations) or 1, _OPERATIONS_AT_ONCE):
            try:
                commit(self._client, [epoch, *operations[start : start + _OPERATIONS_AT_ONCE]])
            except Conflict:
                self._raise_if_fenced()
                raise

    def _raise_if_fenced(self) -> None:
        version = reading(lambda: self._client.get(znodes.CONTROLLER_EPOCH))[1].version
        if version != self._epoch_version:
            raise ControllerFenced(f"controller epoch {self.epoch} has ended")


def _deleted_changes(node: Node) -> tuple[Changes, int]:
    """What deleted topics have left, and the version of its node (-1: there is none)."""
    return (znodes.unpack_deleted_topics(node[0]), node[1].version) if node else (Changes(), -1)


def _new_states(name: str, states: Mapping[int, StateNode]) -> list[Operation]:
    operations: list[Operation] = []
    for partition, state in sorted(states.items()):
        operations.append(Create(znodes.partition_path(name, partition)))
        operations.append(Create(znodes.state_path(name, partition), state.pack()))
    return operations


def _at_version_0(states: Mapping[int, StateNode]) -> dict[int, StateNode]:
    return {p: state.stored_at(0) for p, state in states.items()}
