"""raykafka: a Kafka that lives inside a Ray cluster. ``raykafka.connect`` is the way in for Python code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.errors import ClientError, ConfigError, DeployError, KafkaError, RaykafkaError

if TYPE_CHECKING:
    from raykafka.client import Admin, Cluster, Consumer, Producer, Record, RecordMetadata, connect

__all__ = [
    "Admin",
    "ClientError",
    "Cluster",
    "ConfigError",
    "Consumer",
    "DeployError",
    "KafkaError",
    "Producer",
    "RaykafkaError",
    "Record",
    "RecordMetadata",
    "connect",
]


def __getattr__(name: str) -> Any:
    # The handles come with librdkafka, which a broker or replica actor has no use for: imported when asked for.
    if name in __all__:
        import raykafka.client

        return getattr(raykafka.client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
