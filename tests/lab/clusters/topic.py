"""One topic with a replica on every broker: who leads it, and whether all is in sync."""

from __future__ import annotations

import contextlib

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tests.lab.clusters.systems import BROKERS, Target
from tests.lab.waiting import until

CREATE_WITHIN_S = 60.0
IN_SYNC_WITHIN_S = 120.0


class Topic:
    """``partitions`` partitions that take writes while two replicas of each are in sync."""

    def __init__(self, system: Target, name: str, partitions: int) -> None:
        self.system, self.name, self.partitions = system, name, partitions
        self._admin = AdminClient({"bootstrap.servers": system.bootstrap, "log_level": 0})

    def create(self) -> None:
        """Once all brokers are there. Raises TimeoutError, KafkaException."""
        wait_all_brokers(self._admin, CREATE_WITHIN_S)
        new = NewTopic(self.name, self.partitions, BROKERS, config={"min.insync.replicas": "2"})
        self._admin.create_topics([new])[self.name].result(CREATE_WITHIN_S)

    def leaders(self) -> dict[int, int]:
        partitions = self._admin.list_topics(self.name, timeout=10).topics[self.name].partitions
        return {number: partition.leader for number, partition in partitions.items()}

    def controller(self) -> int:
        """The broker of the active controller."""
        return int(self._admin.list_topics(self.name, timeout=10).controller_id)

    def wait_in_sync(self, within_s: float = IN_SYNC_WITHIN_S) -> None:
        """Until every broker lives and every replica is in sync. Raises TimeoutError."""
        until(self._in_sync, "all replicas are in sync", within_s)

    def _in_sync(self) -> bool:
        with contextlib.suppress(KafkaException):
            answer = self._admin.list_topics(self.name, timeout=5)
            partitions = answer.topics[self.name].partitions.values()
            return len(answer.brokers) == BROKERS and all(len(p.isrs) == BROKERS for p in partitions)
        return False


def wait_all_brokers(admin: AdminClient, within_s: float) -> None:
    """Raises TimeoutError."""
    until(lambda: len(admin.list_topics(timeout=10).brokers) == BROKERS, "every broker is known", within_s)
