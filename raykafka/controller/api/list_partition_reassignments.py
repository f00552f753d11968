"""ListPartitionReassignments: the moves of partitions that are under way, with what they add and remove (KIP-455).

Versions: 0.
Null topics ask for all of them. A partition that does not move, or does not exist, is left out of the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.controller.decisions.reassignments import reassignments
from raykafka.error_code import ErrorCode
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext
from raykafka.types import TopicPartition

if TYPE_CHECKING:
    from kio.schema.list_partition_reassignments.v0.request import ListPartitionReassignmentsRequest

    from raykafka.controller.ledger.ledger import Ledger

API_KEY = 46
VERSIONS = (0, 0)
NEEDS = (acl.DESCRIBE_CLUSTER,)


async def handle(context: RequestContext, request: ListPartitionReassignmentsRequest, server: Ledger) -> Any:
    context.require(acl.DESCRIBE_CLUSTER, acl.CLUSTER_NAME)
    m = response_module(API_KEY, context.api_version)
    wanted = None
    if request.topics is not None:
        wanted = [TopicPartition(topic.name, p) for topic in request.topics for p in topic.partition_indexes]
    async with server.turn() as turn:
        found = reassignments(turn.state, wanted)
    by_topic: dict[str, list[Any]] = {}
    for tp, assignment in found.items():
        by_topic.setdefault(tp.topic, []).append(
            build(
                m.OngoingPartitionReassignment,
                partition_index=tp.partition,
                replicas=assignment.replicas,
                adding_replicas=assignment.adding,
                removing_replicas=assignment.removing,
            )
        )
    return build(
        m.ListPartitionReassignmentsResponse,
        throttle_time=NO_THROTTLE,
        error_code=ErrorCode.NONE,
        error_message=None,
        topics=tuple(
            build(m.OngoingTopicReassignment, name=name, partitions=tuple(parts)) for name, parts in by_topic.items()
        ),
    )
