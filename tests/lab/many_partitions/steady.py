"""A slow writer of a few partitions."""

from __future__ import annotations

from confluent_kafka import Producer

from tests.lab.background import Background

EVERY_S = 1.0
FLUSH_WITHIN_S = 60.0


class Steady(Background):
    """As a context: one record a second to each of a topic's ``partitions``, acks=all."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        super().__init__()
        self._producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
        self._topic, self._partitions = topic, partitions
        self._failed: list[str] = []

    def _run(self) -> None:
        while True:
            for partition in range(self._partitions):
                self._producer.produce(self._topic, b"steady", partition=partition, on_delivery=self._delivered)
            self._producer.poll(0)
            if self._over.wait(EVERY_S):
                self._producer.flush(FLUSH_WITHIN_S)
                return

    def _delivered(self, error: object, _: object) -> None:
        if error is not None:
            self._failed.append(str(error))

    def check(self) -> None:
        """Once it has ended: raises RuntimeError where a record was not acknowledged."""
        if self._failed or len(self._producer):
            raise RuntimeError(
                f"{len(self._producer)} records were not acknowledged, others failed: {self._failed[:3]}"
            )
