"""ElectLeaders: other leaders for partitions, the preferred ones or any that is alive; answered when every live broker
goes by them.

Versions: 0-2.
v1: unclean elections (KIP-460), and an error for the whole request. v2: flexible.
Without partitions all are meant, and those that need no election are left out of the answer. A preferred election takes
a replica only from the ISR; an unclean one takes place only where there is no leader, whatever
``unclean.leader.election.enable`` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raykafka.controller.decisions.leadership import ElectionType, elect_leaders
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext
from raykafka.types import TopicPartition

if TYPE_CHECKING:
    from kio.schema.elect_leaders.v2.request import ElectLeadersRequest

    from raykafka.controller.ledger.ledger import Ledger

API_KEY = 43
VERSIONS = (0, 2)
NEEDS = (acl.ALTER_CLUSTER,)


async def handle(context: RequestContext, request: ElectLeadersRequest, server: Ledger) -> Any:
    context.require(acl.ALTER_CLUSTER, acl.CLUSTER_NAME)
    try:
        kind = ElectionType(getattr(request, "election_type", ElectionType.PREFERRED))
    except ValueError:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"There is no election type {request.election_type}.") from None
    if request.topic_partitions is None:
        asked = [
            TopicPartition(name, p) for name, record in sorted(server.state.records.items()) for p in record.states
        ]
    else:
        asked = _named(request)
    outcomes = await elect_leaders(server, kind, asked, request.timeout.total_seconds())
    if request.topic_partitions is None:
        outcomes = {tp: e for tp, e in outcomes.items() if e is None or e.code is not ErrorCode.ELECTION_NOT_NEEDED}
    return _response(context, outcomes)


def _named(request: ElectLeadersRequest) -> list[TopicPartition]:
    return [TopicPartition(topic.topic, p) for topic in request.topic_partitions or () for p in topic.partitions]


def _response(context: RequestContext, outcomes: dict[TopicPartition, KafkaError | None], **top: Any) -> Any:
    m = response_module(API_KEY, context.api_version)
    by_topic: dict[str, list[Any]] = {}
    for tp, error in outcomes.items():
        by_topic.setdefault(tp.topic, []).append(
            build(
                m.PartitionResult,
                partition_id=tp.partition,
                error_code=error.code if error else ErrorCode.NONE,
                error_message=(error.message or None) if error else None,
            )
        )
    results = tuple(
        build(m.ReplicaElectionResult, topic=name, partition_result=tuple(found)) for name, found in by_topic.items()
    )
    return build(
        m.ElectLeadersResponse,
        throttle_time=NO_THROTTLE,
        error_code=top.get("error_code", ErrorCode.NONE),
        replica_election_results=results,
    )


def error_response(context: RequestContext, request: ElectLeadersRequest, error: KafkaError) -> Any:
    outcomes: dict[TopicPartition, KafkaError | None] = dict.fromkeys(_named(request), error)
    return _response(context, outcomes, error_code=error.code)
