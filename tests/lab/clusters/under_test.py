"""The cluster that client tests talk to: ours, or any other that runs."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.lab.wire import WireConnection, list_offsets_request

# Kafka's delay of a group's first rebalance (3 s) is for many members that start together; here it only costs time.
TEST_BROKER_CONFIG = {"group.initial.rebalance.delay.ms": 0}


@dataclass(frozen=True)
class KafkaUnderTest:
    """Addresses of a running cluster. ``data`` is a folder that holds its partitions' directories, at any depth."""

    bootstrap: str
    bootstrap_outside: str
    data: Path | None

    def segments(self, topic: str, partition: int = 0) -> list[Path]:
        """The partition's ``.log`` files on this machine, of all brokers, in order of offset."""
        if self.data is None:
            pytest.skip("RAYKAFKA_TEST_DATA does not say where this cluster's files are")
        return sorted(self.data.glob(f"**/{topic}-{partition}/*.log"), key=lambda path: path.name)

    def leader(self, topic: str, partition: int = 0) -> str:
        """host:port, at the INSIDE listener, of the partition's leader, once that one knows that it leads."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            metadata = admin.list_topics(topic, timeout=10)
            found = metadata.topics[topic].partitions.get(partition)
            if found is not None and found.leader in metadata.brokers:
                broker = metadata.brokers[found.leader]
                address = f"{broker.host}:{broker.port}"
                with WireConnection(address) as wire:
                    answer = wire.call(list_offsets_request(topic, -1, partition=partition))
                if answer.topics[0].partitions[0].error_code.value == 0:
                    return address
            time.sleep(0.05)
        raise AssertionError(f"{topic}-{partition} has no leader after 30 s")


def unique(word: str) -> str:
    """A name for a topic or a group that no other test uses."""
    return f"{word}-{secrets.token_hex(4)}"
