"""AlterPartitionReassignments: move partitions to other brokers, or cancel a move (KIP-455). Answered when the move has
begun; ListPartitionReassignments tells how it goes.

Versions: 0.
Null replicas cancel: what was added is dropped, what was to be removed stays. A new target takes the place of the one
before. A partition named twice goes to where it is named last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.controller.decisions.reassignments import alter_reassignments
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext
from raykafka.types import TopicPartition

if TYPE_CHECKING:
    from kio.schema.alter_partition_reassignments.v0.request import AlterPartitionReassignmentsRequest

    from raykafka.controller.ledger.ledger import Ledger

API_KEY = 45
VERSIONS = (0, 0)
NEEDS = (acl.ALTER_CLUSTER,)


async def handle(context: RequestContext, request: AlterPartitionReassignmentsRequest, server: Ledger) -> Any:
    context.require(acl.ALTER_CLUSTER, acl.CLUSTER_NAME)
    wanted = {
        TopicPartition(topic.name, part.partition_index): None if part.replicas is None else tuple(part.replicas)
        for topic in request.topics
        for part in topic.partitions
    }
    return _response(context, request, await alter_reassignments(server, wanted))


def _response(
    context: RequestContext,
    request: AlterPartitionReassignmentsRequest,
    outcomes: dict[TopicPartition, KafkaError | None],
    whole: KafkaError | None = None,
) -> Any:
    m = response_module(API_KEY, context.api_version)

    def part_result(name: str, partition: int) -> Any:
        error = whole or outcomes[TopicPartition(name, partition)]
        return build(
            m.ReassignablePartitionResponse,
            partition_index=partition,
            error_code=error.code if error else ErrorCode.NONE,
            error_message=(error.message or None) if error else None,
        )

    return build(
        m.AlterPartitionReassignmentsResponse,
        throttle_time=NO_THROTTLE,
        error_code=whole.code if whole else ErrorCode.NONE,
        error_message=(whole.message or None) if whole else None,
        responses=tuple(
            build(
                m.ReassignableTopicResponse,
                name=topic.name,
                partitions=tuple(part_result(topic.name, part.partition_index) for part in topic.partitions),
            )
            for topic in request.topics
        ),
    )


def error_response(context: RequestContext, request: AlterPartitionReassignmentsRequest, error: KafkaError) -> Any:
    return _response(context, request, {}, error)
