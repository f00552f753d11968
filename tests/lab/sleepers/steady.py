"""A slow writer that keeps a few partitions awake."""

from __future__ import annotations

from confluent_kafka import Producer

from tests.lab.background import Background

EVERY_S = 1.0
FLUSH_WITHIN_S = 60.0


class Steady(Background):
    """As a context: one record a second to each of a topic's ``partitions``."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        super().__init__()
        self._producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
        self._topic, self._partitions = topic, partitions

    def _run(self) -> None:
        while True:
            for partition in range(self._partitions):
                self._producer.produce(self._topic, b"steady", partition=partition)
            # not waiting for acknowledgements: what is awake already must not fall asleep over those that still wake
            self._producer.poll(0)
            if self._over.wait(EVERY_S):
                self._producer.flush(FLUSH_WITHIN_S)
                return
