"""Handles for Python: small, picklable, and at home in any Ray task or actor on any node.

A handle carries where the cluster is and its settings, never a socket: it connects in the process that first uses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from raykafka.client.admin import Admin, ClusterDescription, PartitionDescription, TopicDescription
from raykafka.client.consumer import Consumer
from raykafka.client.producer import Producer
from raykafka.client.records import Record, RecordMetadata
from raykafka.client.settings import Place, kafka_settings
from raykafka.errors import ConfigError

__all__ = [
    "Admin",
    "Cluster",
    "ClusterDescription",
    "Consumer",
    "PartitionDescription",
    "Producer",
    "Record",
    "RecordMetadata",
    "TopicDescription",
    "connect",
]

_ADDRESS = re.compile(r"[^\s,:]+:\d+|\[[0-9a-fA-F:.]+\]:\d+")


class Cluster:
    """A raykafka (or any Kafka) cluster to make handles from; picklable itself.

    Settings are Kafka's client settings as keyword arguments, dots as underscores: ``producer(linger_ms=50)``.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def __repr__(self) -> str:
        return f"Cluster({self._place.name or self._place.bootstrap})"

    @property
    def bootstrap(self) -> str:
        """``host:port,...`` for any Kafka client."""
        return self._place.addresses()

    def producer(self, **settings: Any) -> Producer:
        """A producer; idempotent with acks=all unless ``settings`` say otherwise."""
        return Producer(self._place, kafka_settings(settings))

    def consumer(
        self, topics: str | Iterable[str], group: str | None = None, *, allow_pickle: bool = False, **settings: Any
    ) -> Consumer:
        """A consumer of ``topics`` from the earliest record, or from where ``group`` left off."""
        names = (topics,) if isinstance(topics, str) else tuple(topics)
        return Consumer(self._place, names, group, allow_pickle, kafka_settings(settings))

    def admin(self, **settings: Any) -> Admin:
        """An admin for topics and the cluster."""
        return Admin(self._place, kafka_settings(settings))


def connect(cluster: str = "local", *, listener: str | None = None, **settings: Any) -> Cluster:
    """The cluster of that name in this Ray cluster, or the one at ``host:port,...``.

    ``listener`` picks one of a named cluster's listeners (default: the one its brokers use themselves). Nothing is
    connected yet, but a name is looked up now, so that a wrong one is an error here. Raises ConfigError or ClientError.
    """
    options = kafka_settings(settings)
    if ":" in cluster:
        if not all(_ADDRESS.fullmatch(part.strip()) for part in cluster.split(",")):
            raise ConfigError(f"{cluster!r} is neither a cluster's name nor host:port,host:port.")
        if listener is not None:
            raise ConfigError("A listener is chosen by name only for a cluster given by name.")
        return Cluster(Place(None, cluster, None, options))
    place = Place(cluster, None, listener, options)
    place.addresses()
    return Cluster(place)
