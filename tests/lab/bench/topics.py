"""A row's topic: created before it, deleted after it."""

from __future__ import annotations

from confluent_kafka.admin import AdminClient, NewTopic

WITHIN_S = 60.0


class Topics:
    """The topics of one cluster, all with the same replication factor."""

    def __init__(self, bootstrap: str, replication: int) -> None:
        self.replication = replication
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 4})

    def create(self, name: str, partitions: int) -> None:
        """Returns once it is acknowledged. Raises KafkaException."""
        config = {"min.insync.replicas": str(min(self.replication, 2))}
        new = NewTopic(name, partitions, self.replication, config=config)
        self._admin.create_topics([new], operation_timeout=WITHIN_S)[name].result(WITHIN_S)

    def delete(self, name: str) -> None:
        """Raises KafkaException."""
        self._admin.delete_topics([name], operation_timeout=WITHIN_S)[name].result(WITHIN_S)

    def leaders(self, name: str) -> dict[int, str]:
        """Partition to the address of its leader."""
        answer = self._admin.list_topics(name, timeout=WITHIN_S)
        brokers = {number: f"{broker.host}:{broker.port}" for number, broker in answer.brokers.items()}
        return {number: brokers[partition.leader] for number, partition in answer.topics[name].partitions.items()}
