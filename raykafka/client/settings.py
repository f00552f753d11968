"""What the handles share: where the cluster is, and how librdkafka is set up and its errors are told."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError as RdError
from confluent_kafka import KafkaException

from raykafka.error_code import ErrorCode
from raykafka.errors import ClientError, KafkaError, RaykafkaError

logger = logging.getLogger("raykafka.client")


@dataclass(frozen=True)
class Place:
    """A cluster as a handle carries it: its ``name`` in Ray, or fixed ``bootstrap`` addresses; and librdkafka settings.

    By name, addresses are asked of Ray afresh in each process that the handle lands in.
    """

    name: str | None
    bootstrap: str | None
    listener: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def addresses(self) -> str:
        """``host:port,...`` to connect to. Raises ClientError when the name is not known to Ray."""
        if self.bootstrap is not None:
            return self.bootstrap
        assert self.name is not None
        from raykafka.client.lookup import addresses_of

        return addresses_of(self.name, self.listener)

    def rdkafka(self, settings: dict[str, Any]) -> dict[str, Any]:
        """librdkafka's configuration: the cluster's addresses, the place's settings, then ``settings``."""
        base = {"bootstrap.servers": self.addresses(), "logger": logger, "log_level": 4}
        return {**base, **self.settings, **settings}


def kafka_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Python keyword arguments as Kafka's keys: ``linger_ms`` becomes ``linger.ms``."""
    return {key.replace("_", "."): value for key, value in settings.items()}


def translate(error: RdError | KafkaException | Exception) -> RaykafkaError:
    """librdkafka's error as one of ours: a KafkaError where a broker answered, else a ClientError."""
    if isinstance(error, KafkaException):
        error = error.args[0]
    if not isinstance(error, RdError):
        return ClientError(str(error))
    if error.code() > 0:
        try:
            return KafkaError(ErrorCode(error.code()), error.str())
        except ValueError:
            return ClientError(f"The cluster answered {error.name()}: {error.str()}.")
    return ClientError(_LOCAL.get(error.code(), f"{error.name().strip('_')}: {error.str()}."))


_LOCAL = {
    RdError._ALL_BROKERS_DOWN: "No broker answers: is the cluster up, and are the addresses right?",
    RdError._TRANSPORT: "No broker answers: is the cluster up, and are the addresses right?",
    RdError._TIMED_OUT: "The cluster gave no answer in time.",
    RdError._MSG_TIMED_OUT: "The record was not acknowledged in time.",
    RdError._UNKNOWN_TOPIC: "The topic does not exist.",
    RdError._UNKNOWN_PARTITION: "The partition does not exist.",
}
