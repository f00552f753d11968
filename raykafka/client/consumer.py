"""The consumer handle: picklable, joins its group in the process where it is first used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from confluent_kafka import Consumer as RdConsumer
from confluent_kafka import KafkaError as RdError
from confluent_kafka import KafkaException, Message
from confluent_kafka import TopicPartition as RdTopicPartition

from raykafka.client.records import Record
from raykafka.client.settings import Place, translate
from raykafka.types import TopicPartition

_DEFAULTS = {"auto.offset.reset": "earliest"}
_PASSING = frozenset({RdError._ALL_BROKERS_DOWN, RdError._TRANSPORT, RdError._PARTITION_EOF})


class Consumer:
    """Reads topics as a member of ``group``; without one, alone and without commits. Not for several threads."""

    def __init__(
        self, place: Place, topics: Iterable[str], group: str | None, allow_pickle: bool, settings: dict[str, Any]
    ) -> None:
        self._place = place
        self._topics = tuple(topics)
        self._group = group
        self._allow_pickle = allow_pickle
        self._settings = settings
        self._consumer: RdConsumer | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_consumer": None}

    def poll(self, timeout_s: float = 1.0) -> Record | None:
        """The next record, or None when none came in ``timeout_s``. Raises KafkaError or ClientError."""
        records = self.consume(1, timeout_s)
        return records[0] if records else None

    def consume(self, max_records: int = 500, timeout_s: float = 1.0) -> list[Record]:
        """Up to ``max_records``; fewer when no more came in ``timeout_s``."""
        try:
            messages = self._connected().consume(max_records, timeout_s)
        except KafkaException as error:
            raise translate(error) from None
        return [self._record(message) for message in messages if self._is_record(message)]

    def __iter__(self) -> Iterator[Record]:
        """Records without end."""
        while True:
            yield from self.consume()

    def commit(self) -> None:
        """Commit the position behind the last record that was handed out, and wait for the answer."""
        try:
            self._connected().commit(asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() != RdError._NO_OFFSET:
                raise translate(error) from None

    def assignment(self) -> list[TopicPartition]:
        """The partitions that this member reads just now."""
        return [TopicPartition(part.topic, part.partition) for part in self._connected().assignment()]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on at ``offset`` of an assigned partition."""
        try:
            self._connected().seek(RdTopicPartition(partition.topic, partition.partition, offset))
        except KafkaException as error:
            raise translate(error) from None

    def close(self) -> None:
        """Leave the group and disconnect; the handle joins again when it is used again."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _connected(self) -> RdConsumer:
        if self._consumer is None:
            settings: dict[str, Any] = dict(_DEFAULTS)
            if self._group is None:
                # librdkafka asks for a group id even where no group is used; none is joined, nothing is committed.
                settings |= {"group.id": "raykafka-no-group", "enable.auto.commit": False}
            else:
                settings |= {"group.id": self._group}
            try:
                consumer = RdConsumer(self._place.rdkafka({**settings, **self._settings}))
                if self._group is None:
                    consumer.assign(self._all_partitions(consumer))
                else:
                    consumer.subscribe(list(self._topics))
            except (KafkaException, ValueError) as error:
                raise translate(error) from None
            self._consumer = consumer
        return self._consumer

    def _all_partitions(self, consumer: RdConsumer) -> list[RdTopicPartition]:
        start = {"earliest": -2, "latest": -1}[self._settings.get("auto.offset.reset", _DEFAULTS["auto.offset.reset"])]
        parts = []
        for topic in self._topics:
            found = consumer.list_topics(topic, timeout=30.0).topics[topic]
            if found.error is not None:
                raise KafkaException(found.error)
            parts += [RdTopicPartition(topic, partition, start) for partition in found.partitions]
        return parts

    def _is_record(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() in _PASSING or (error.retriable() and not error.fatal()):
            return False
        raise translate(error)

    def _record(self, message: Message) -> Record:
        return Record(
            topic=message.topic(),
            partition=message.partition(),
            offset=message.offset(),
            timestamp_ms=message.timestamp()[1],
            key=message.key(),
            value=message.value(),
            headers=tuple(message.headers() or ()),
            allow_pickle=self._allow_pickle,
        )
