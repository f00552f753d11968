"""The controller's ledger: its state, and turns, the only way to change it.

In its turn a decision reads the state, plans, and writes to ZooKeeper under this controller's epoch. What ZooKeeper has
taken becomes part of the state, and goes to every broker, in that order. One decides at a time; whoever has to know of
a death goes before questions that wait (``turn_queue``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from raykafka.cluster.image import BrokerInfo, ClusterImage, ImageDelta
from raykafka.controller.ledger.state import State
from raykafka.controller.ledger.tenure import Tenure
from raykafka.controller.ledger.turn_queue import TurnQueue, Urgency
from raykafka.types import TopicPartition
from raykafka.zookeeper.controller_store import ControllerStore, Metadata, TopicRecord
from raykafka.zookeeper.znodes import Registration, StateNode, TopicNode

_T = TypeVar("_T")


class Audience(Protocol):
    """The brokers that are told of decisions."""

    def publish(self, delta: ImageDelta, sequence: int) -> None:
        """Send each broker ``delta``, which made the image with number ``sequence``."""

    async def acknowledged(self, sequence: int, timeout_s: float) -> bool:
        """Wait until every live broker goes by the image with that number; False when that takes too long."""


@dataclass(slots=True)
class _Book:
    """What the ledger and its turns share."""

    state: State
    store: ControllerStore
    tenure: Tenure
    brokers: Audience


class Ledger:
    """The state of the controller that holds ``tenure``, which ends with the first write that shows that another has
    been elected."""

    def __init__(self, state: State, store: ControllerStore, tenure: Tenure, brokers: Audience) -> None:
        self._book = _Book(state, store, tenure, brokers)
        self._queue = TurnQueue()

    @property
    def state(self) -> State:
        """The newest. What is decided from it has to be decided in a turn."""
        return self._book.state

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._queue)

    @asynccontextmanager
    async def turn(self, urgency: Urgency = Urgency.QUESTION) -> AsyncIterator[Turn]:
        """Wait until nobody else decides. The Turn can write until its ``async with`` ends."""
        async with self._queue.turn(urgency):
            turn = Turn(self._book)
            try:
                yield turn
            finally:
                turn._end()

    async def acknowledged(self, sequence: int, timeout_s: float) -> bool:
        """Wait until every live broker goes by the image with that number (``state.sequence``); False when that takes
        too long."""
        return await self._book.brokers.acknowledged(sequence, timeout_s)


class Turn:
    """The right to change the controller's state.

    Every method that writes does the same three things: ZooKeeper takes it or none of it, the state takes it on, the
    brokers are told. Each raises KafkaError(NOT_CONTROLLER) when this controller is over, and RuntimeError once the
    turn has ended. ``state`` is what the last of them has left.
    """

    def __init__(self, book: _Book) -> None:
        self._book = book
        self._over = False

    @property
    def state(self) -> State:
        return self._book.state

    # taking over

    def take_over(self, registrations: Mapping[int, Registration], metadata: Metadata) -> None:
        """Begin with what a new controller has read, and with the image that it makes."""
        image = self.state.image
        empty = ClusterImage(image.cluster_id, image.controller_id, image.controller_epoch)
        everything = ImageDelta(
            brokers={b: r.info for b, r in registrations.items()},
            topics={name: record.as_topic() for name, record in metadata.topics.items()},
            broker_configs=metadata.broker_configs,
        )
        self._adopt(
            image=empty.apply(everything),
            records=metadata.topics,
            deleting=metadata.deleting,
            deleted_changes=metadata.deleted_changes,
            registrations=registrations,
        )

    async def add_first_states(self, name: str, states: Mapping[int, StateNode]) -> None:
        """Write the first states of partitions that were created without one: their controller had died over it."""
        written = await self._written(self._book.store.add_states, name, states)
        self._adopt_states({TopicPartition(name, p): state for p, state in written.items()})
        self._publish_topics([name])

    # brokers

    def take_registrations(self, registrations: Mapping[int, Registration]) -> None:
        """From now on these brokers count as alive. The others are told with what follows from it (``write_states``):
        a death is never known without its consequences (rule 14)."""
        self._adopt(registrations=registrations)

    def note_leaving(self, broker: int) -> BrokerInfo | None:
        """This life of a broker is about to stop: it gets into no ISR and leads nothing new any more. None if there is
        none."""
        registration = self.state.registrations.get(broker)
        if registration is None:
            return None
        self._adopt(leaving_epochs={**self.state.leaving_epochs, broker: registration.info.epoch})
        return registration.info

    # partitions

    async def write_states(
        self,
        changes: Mapping[TopicPartition, StateNode],
        dead: Sequence[Registration] = (),
        news: ImageDelta | None = None,
    ) -> None:
        """Write and publish new states of partitions, and the end of ``dead`` brokers with them.

        ``news`` of another life are checked with ZooKeeper though nothing may follow from them: that life has not heard
        of a newer controller yet, and would believe a deposed one (rule 16)."""
        if changes or dead or news is not None:
            self._adopt_states(await self._written(self._book.store.write_states, changes, dead))
        if dead:
            self._publish(ImageDelta(removed_brokers=tuple(r.info.id for r in dead)))
        if news is not None:
            self._publish(news)
        if changes:
            self._publish_partitions(changes)

    async def write_isrs(self, changes: Mapping[TopicPartition, StateNode]) -> bool:
        """Write and publish ISRs in one transaction; False if one of their members lives another life by now (rule
        7)."""
        written = await self._written(self._book.store.write_isrs, changes)
        if written is None:
            return False
        self._adopt_states(written)
        self._publish_partitions(written)
        return True

    async def write_assignment(self, name: str, node: TopicNode, states: Mapping[int, StateNode]) -> None:
        """Write and publish a topic's changed assignment with the states that go with it, in one transaction."""
        record = self.state.records[name]
        self._adopt_record(await self._written(self._book.store.write_assignment, record, node, states))
        self._publish_partitions([TopicPartition(name, p) for p in states])

    # topics

    async def create_topic(
        self, name: str, node: TopicNode, config: Mapping[str, str], states: Mapping[int, StateNode]
    ) -> None:
        """Write and publish a new topic."""
        self._adopt_record(await self._written(self._book.store.create_topic, name, node, config, states))
        self._publish_topics([name])

    async def grow_topic(self, name: str, node: TopicNode, states: Mapping[int, StateNode]) -> None:
        """Write and publish more partitions of a topic: its whole new assignment, and the states of the new ones."""
        record = self.state.records[name]
        self._adopt_record(await self._written(self._book.store.add_partitions, record, node, states))
        self._publish_topics([name])

    async def delete_topics(self, names: Sequence[str]) -> None:
        """Mark topics deleted and publish that, then remove their nodes: if this controller dies over it, the next
        one does that."""
        for name in names:
            await self._written(self._book.store.mark_deleting, name)
            records = dict(self.state.records)
            deleted = records.pop(name)
            self._adopt(records=records, deleting={**self.state.deleting, name: deleted})
        self._publish(ImageDelta(deleted_topics=tuple(names)))
        for name in names:
            await self.finish_deleting(name)

    async def finish_deleting(self, name: str) -> None:
        """Remove the nodes of a topic that is marked deleted."""
        changes = await self._written(self._book.store.finish_deleting, name)
        rest = {n: record for n, record in self.state.deleting.items() if n != name}
        self._adopt(deleted_changes=changes, deleting=rest)

    # configs

    async def write_topic_config(self, name: str, config: Mapping[str, str]) -> None:
        """Write and publish all dynamic configs of a topic."""
        await self._written(self._book.store.write_topic_config, name, config)
        self._adopt_record(replace(self.state.records[name], config=config))
        self._publish_topics([name])

    async def write_broker_config(self, broker: str, config: Mapping[str, str]) -> None:
        """Write and publish all dynamic configs of a broker, or with "" those of all brokers."""
        await self._written(self._book.store.write_broker_config, broker, config)
        self._publish(ImageDelta(broker_configs={broker: config}))

    # to ZooKeeper, into the state, to the brokers

    async def _written(self, write: Callable[..., _T], *args: Any) -> _T:
        self._must_not_be_over()
        return await self._book.tenure.in_store(write, *args)

    def _adopt(self, **changes: Any) -> None:
        self._must_not_be_over()
        self._book.state = replace(self._book.state, **changes)

    def _adopt_record(self, record: TopicRecord) -> None:
        self._adopt(records={**self.state.records, record.name: record})

    def _adopt_states(self, written: Mapping[TopicPartition, StateNode]) -> None:
        by_topic: dict[str, dict[int, StateNode]] = {}
        for tp, state in written.items():
            by_topic.setdefault(tp.topic, {})[tp.partition] = state
        records = dict(self.state.records)
        for name, states in by_topic.items():
            records[name] = replace(records[name], states={**records[name].states, **states})
        self._adopt(records=records)

    def _publish(self, delta: ImageDelta) -> None:
        sequence = self.state.sequence + 1
        self._adopt(image=self.state.image.apply(delta), sequence=sequence)
        self._book.brokers.publish(delta, sequence)

    def _publish_topics(self, names: Iterable[str]) -> None:
        self._publish(ImageDelta(topics={name: self.state.records[name].as_topic() for name in names}))

    def _publish_partitions(self, partitions: Iterable[TopicPartition]) -> None:
        """New states of partitions; everything else of their topics is as it was."""
        records = self.state.records
        self._publish(ImageDelta(partitions={tp: records[tp.topic].as_partition(tp.partition) for tp in partitions}))

    def _must_not_be_over(self) -> None:
        if self._over:
            raise RuntimeError("this turn has ended: what is written now has not been decided in one")

    def _end(self) -> None:
        self._over = True
