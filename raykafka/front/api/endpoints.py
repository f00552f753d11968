"""Where a client reaches brokers: always through the listener that it came through itself."""

from __future__ import annotations

from collections.abc import Iterator

from raykafka.cluster.image import BrokerInfo, ClusterImage, Endpoint


def alive_endpoints(image: ClusterImage, listener: str) -> Iterator[tuple[BrokerInfo, Endpoint]]:
    """The live brokers that have ``listener``, in the order of their ids, each with its advertised address there."""
    for broker_id in sorted(image.brokers):
        broker = image.brokers[broker_id]
        endpoint = broker.endpoint(listener)
        if endpoint is not None:
            yield broker, endpoint
