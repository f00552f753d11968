"""The cluster that client tests talk to.

By default a raykafka cluster of three brokers, deployed by the command line for this test session with a name, a Ray,
ports and data of its own, and taken down after it. ``RAYKAFKA_TEST_BOOTSTRAP`` names a running cluster instead (with
``RAYKAFKA_TEST_BOOTSTRAP_OUTSIDE`` for its second listener and ``RAYKAFKA_TEST_DATA`` for the folder of its data, when
it is on this machine): that is how these tests are tried against Apache Kafka.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

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


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaUnderTest]:
    given = os.environ.get("RAYKAFKA_TEST_BOOTSTRAP")
    if given:
        data = os.environ.get("RAYKAFKA_TEST_DATA")
        outside = os.environ.get("RAYKAFKA_TEST_BOOTSTRAP_OUTSIDE", given)
        yield KafkaUnderTest(given, outside, Path(data) if data else None)
        return
    from tests.lab.clusters.deployed import RaykafkaCluster

    with RaykafkaCluster(brokers=3, config=TEST_BROKER_CONFIG) as cluster:
        yield KafkaUnderTest(cluster.bootstrap, cluster.bootstrap_outside, cluster.data_dir)


@pytest.fixture
def admin(kafka: KafkaUnderTest) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.bootstrap})


def unique(word: str) -> str:
    """A name for a topic or a group that no other test uses."""
    return f"{word}-{secrets.token_hex(4)}"


@pytest.fixture
def make_topic(admin: AdminClient, request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """``make_topic(partitions=1, **config)`` creates a topic and gives its name; it is deleted after the test."""
    made: list[str] = []
    word = request.node.originalname.removeprefix("test_").replace("_", "-")[:60]

    def make(partitions: int = 1, **config: object) -> str:
        name = unique(word)
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        admin.create_topics([NewTopic(name, partitions, 1, config=settings)])[name].result(30)
        made.append(name)
        return name

    yield make
    for name, future in admin.delete_topics(made).items() if made else ():
        future.result(30)
        made.remove(name)
