"""Operations and resource types as Kafka numbers them, and the pairs of them that APIs need."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from raykafka.error_code import ErrorCode

NOT_ASKED = -(1 << 31)
"""The authorized-operations field of an answer whose request did not ask for it."""
NONE = 0
"""The same field where the client may not know the operations."""


class Operation(IntEnum):
    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12
    CREATE_TOKENS = 13
    DESCRIBE_TOKENS = 14


class ResourceType(IntEnum):
    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5


class Need(NamedTuple):
    """An operation on resources of one type."""

    operation: Operation
    resource: ResourceType


CLUSTER_NAME = "kafka-cluster"
"""The name of the one resource of type CLUSTER."""

READ_TOPIC = Need(Operation.READ, ResourceType.TOPIC)
WRITE_TOPIC = Need(Operation.WRITE, ResourceType.TOPIC)
CREATE_TOPIC = Need(Operation.CREATE, ResourceType.TOPIC)
DELETE_TOPIC = Need(Operation.DELETE, ResourceType.TOPIC)
ALTER_TOPIC = Need(Operation.ALTER, ResourceType.TOPIC)
DESCRIBE_TOPIC = Need(Operation.DESCRIBE, ResourceType.TOPIC)
DESCRIBE_TOPIC_CONFIGS = Need(Operation.DESCRIBE_CONFIGS, ResourceType.TOPIC)
ALTER_TOPIC_CONFIGS = Need(Operation.ALTER_CONFIGS, ResourceType.TOPIC)
READ_GROUP = Need(Operation.READ, ResourceType.GROUP)
DELETE_GROUP = Need(Operation.DELETE, ResourceType.GROUP)
DESCRIBE_GROUP = Need(Operation.DESCRIBE, ResourceType.GROUP)
CREATE_IN_CLUSTER = Need(Operation.CREATE, ResourceType.CLUSTER)
ALTER_CLUSTER = Need(Operation.ALTER, ResourceType.CLUSTER)
DESCRIBE_CLUSTER = Need(Operation.DESCRIBE, ResourceType.CLUSTER)
DESCRIBE_CLUSTER_CONFIGS = Need(Operation.DESCRIBE_CONFIGS, ResourceType.CLUSTER)
ALTER_CLUSTER_CONFIGS = Need(Operation.ALTER_CONFIGS, ResourceType.CLUSTER)
IDEMPOTENT_WRITE = Need(Operation.IDEMPOTENT_WRITE, ResourceType.CLUSTER)

REFUSALS = {
    ResourceType.TOPIC: ErrorCode.TOPIC_AUTHORIZATION_FAILED,
    ResourceType.GROUP: ErrorCode.GROUP_AUTHORIZATION_FAILED,
    ResourceType.CLUSTER: ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
    ResourceType.TRANSACTIONAL_ID: ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}

SUPPORTED = {
    ResourceType.TOPIC: (
        Operation.READ,
        Operation.WRITE,
        Operation.CREATE,
        Operation.DELETE,
        Operation.ALTER,
        Operation.DESCRIBE,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
    ),
    ResourceType.GROUP: (Operation.READ, Operation.DELETE, Operation.DESCRIBE),
    ResourceType.CLUSTER: (
        Operation.CREATE,
        Operation.ALTER,
        Operation.DESCRIBE,
        Operation.CLUSTER_ACTION,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
        Operation.IDEMPOTENT_WRITE,
    ),
}


def operation_bits(operations: Iterable[Operation]) -> int:
    """The bit field in which an answer lists operations."""
    bits = 0
    for operation in operations:
        bits |= 1 << operation
    return bits
