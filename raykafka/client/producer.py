"""The producer handle: picklable, connects in the process where it is first used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

import cloudpickle
from confluent_kafka import KafkaException
from confluent_kafka import Producer as RdProducer

from raykafka.client.records import RecordMetadata, payload
from raykafka.client.settings import Place, translate
from raykafka.errors import ClientError

_POLL_S = 0.1
_DEFAULTS = {"enable.idempotence": True, "linger.ms": 5}


class Producer:
    """Sends records; idempotent with acks=all unless its settings say otherwise. Safe to use from several threads."""

    def __init__(self, place: Place, settings: dict[str, Any]) -> None:
        self._place = place
        self._settings = settings
        self._connect_once()

    def _connect_once(self) -> None:
        self._lock = threading.Lock()
        self._producer: RdProducer | None = None
        self._closed = threading.Event()

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self._place, "settings": self._settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._place = state["place"]
        self._settings = state["settings"]
        self._connect_once()

    def send(
        self,
        topic: str,
        value: Any,
        key: Any = None,
        *,
        partition: int | None = None,
        headers: Iterable[tuple[str, bytes | str | None]] | None = None,
        timestamp_ms: int | None = None,
    ) -> Future[RecordMetadata]:
        """Send one record; the future ends when it is acknowledged, with the KafkaError or ClientError if it is not.

        bytes go as they are, text as UTF-8, None as a tombstone, other values as JSON. Waits while the send buffer is
        full.
        """
        delivered: Future[RecordMetadata] = Future()
        options: dict[str, Any] = {"on_delivery": _delivery(delivered)}
        if partition is not None:
            options["partition"] = partition
        if headers is not None:
            options["headers"] = list(headers)
        if timestamp_ms is not None:
            options["timestamp"] = timestamp_ms
        producer, data, key_data = self._connected(), payload(value), payload(key)
        while True:
            try:
                producer.produce(topic, data, key_data, **options)
                return delivered
            except BufferError:
                producer.poll(_POLL_S)
            except KafkaException as error:
                raise translate(error) from None

    def send_object(self, topic: str, value: Any, key: Any = None, **options: Any) -> Future[RecordMetadata]:
        """Send a Python object, pickled; ``Record.object()`` of a consumer with ``allow_pickle=True`` gives it back."""
        return self.send(topic, cloudpickle.dumps(value), key, **options)

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until all that was sent is acknowledged or has failed. Raises ClientError after ``timeout_s``."""
        if self._producer is not None and (left := self._producer.flush(timeout_s)):
            raise ClientError(f"{left} records were not acknowledged within {timeout_s:g} s.")

    def close(self, timeout_s: float = 60.0) -> None:
        """Flush and disconnect; the handle connects again when it is used again."""
        try:
            self.flush(timeout_s)
        finally:
            self._closed.set()
            self._connect_once()

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _connected(self) -> RdProducer:
        with self._lock:
            if self._producer is None:
                try:
                    self._producer = RdProducer(self._place.rdkafka({**_DEFAULTS, **self._settings}))
                except (KafkaException, ValueError) as error:
                    raise translate(error) from None
                # Delivery reports are handed out by poll: a thread of its own serves them while nobody sends.
                poller = threading.Thread(
                    target=_serve, args=(self._producer, self._closed), name="raykafka-producer", daemon=True
                )
                poller.start()
            return self._producer


def _serve(producer: RdProducer, closed: threading.Event) -> None:
    while not closed.is_set():
        producer.poll(_POLL_S)


def _delivery(delivered: Future[RecordMetadata]) -> Callable[[Any, Any], None]:
    def report(error: Any, message: Any) -> None:
        if error is not None:
            delivered.set_exception(translate(error))
        else:
            where = (message.topic(), message.partition(), message.offset(), message.timestamp()[1])
            delivered.set_result(RecordMetadata(*where))

    return report
