"""The cluster that client tests talk to.

By default a raykafka cluster of three brokers, deployed by the command line for this test session with a name, a Ray,
ports and data of its own, and taken down after it. ``RAYKAFKA_TEST_BOOTSTRAP`` names a running cluster instead (with
``RAYKAFKA_TEST_BOOTSTRAP_OUTSIDE`` for its second listener and ``RAYKAFKA_TEST_DATA`` for the folder of its data, when
it is on this machine): that is how these tests are tried against Apache Kafka.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.lab.clusters.deployed import RaykafkaCluster
from tests.lab.clusters.under_test import TEST_BROKER_CONFIG, KafkaUnderTest, unique


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaUnderTest]:
    given = os.environ.get("RAYKAFKA_TEST_BOOTSTRAP")
    if given:
        data = os.environ.get("RAYKAFKA_TEST_DATA")
        outside = os.environ.get("RAYKAFKA_TEST_BOOTSTRAP_OUTSIDE", given)
        yield KafkaUnderTest(given, outside, Path(data) if data else None)
        return
    with RaykafkaCluster(brokers=3, config=TEST_BROKER_CONFIG) as cluster:
        yield KafkaUnderTest(cluster.bootstrap, cluster.bootstrap_outside, cluster.data_dir)


@pytest.fixture
def admin(kafka: KafkaUnderTest) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.bootstrap})


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
