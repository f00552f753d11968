"""The errors that people and programs see. Each says what was wrong and what to do about it."""

from __future__ import annotations

from raykafka.error_code import ErrorCode


class RaykafkaError(Exception):
    """Base of every error that raykafka raises on purpose."""


class ConfigError(RaykafkaError):
    """A value that a person set is unknown, malformed or out of range."""


class DeployError(RaykafkaError):
    """The cluster could not be brought to what its config file asks for."""


class ClientError(RaykafkaError):
    """A call of a Python handle failed without an answer from Kafka's side: no broker reached, no answer in time."""


class LinkError(RaykafkaError):
    """A socket between two actors was refused, failed its handshake, or broke."""


class UnanswerableRequestError(RaykafkaError):
    """A request that has no answer in the protocol: malformed, or failed where its response has no room for an error.
    What is left is to close the connection that it came on."""


class KafkaError(RaykafkaError):
    """An answer that goes back to a Kafka client as ``code``, with ``message`` where the protocol has room for it."""

    def __init__(self, code: ErrorCode, message: str = "") -> None:
        super().__init__(message or code.name)
        self.code = code
        self.message = message
