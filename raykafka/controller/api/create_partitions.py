"""CreatePartitions: more partitions for topics that exist, answered for every topic asked.

Versions: 0-3.
v2: flexible. v3: throttling is said by THROTTLING_QUOTA_EXCEEDED; there is no such quota yet.
A topic named twice is INVALID_REQUEST. Partitions are never taken away.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from raykafka.controller.decisions.topics import Growth, create_partitions
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.create_partitions.v3.request import CreatePartitionsRequest

    from raykafka.controller.ledger.ledger import Ledger

API_KEY = 37
VERSIONS = (0, 3)
NEEDS = (acl.ALTER_TOPIC,)

_TWICE = "Duplicate topic in request."


async def handle(context: RequestContext, request: CreatePartitionsRequest, server: Ledger) -> Any:
    m = response_module(API_KEY, context.api_version)
    named = Counter(topic.name for topic in request.topics)
    refused = {name for name in named if not context.allows(acl.ALTER_TOPIC, name)}
    wanted = [
        Growth(
            topic.name,
            topic.count,
            None if topic.assignments is None else [tuple(a.broker_ids) for a in topic.assignments],
        )
        for topic in request.topics
        if named[topic.name] == 1 and topic.name not in refused
    ]
    outcomes: dict[str, KafkaError | None] = {}
    if wanted:
        outcomes = await create_partitions(
            server, wanted, timeout_s=request.timeout.total_seconds(), validate_only=request.validate_only
        )
    results = []
    for name in named:
        outcome = outcomes.get(name)
        code = outcome.code if outcome else ErrorCode.NONE
        message = (outcome.message or None) if outcome else None
        if named[name] > 1:
            code, message = ErrorCode.INVALID_REQUEST, _TWICE
        elif name in refused:
            code, message = ErrorCode.TOPIC_AUTHORIZATION_FAILED, None
        results.append(build(m.CreatePartitionsTopicResult, name=name, error_code=code, error_message=message))
    return build(m.CreatePartitionsResponse, throttle_time=NO_THROTTLE, results=tuple(results))


def error_response(context: RequestContext, request: CreatePartitionsRequest, error: KafkaError) -> Any:
    m = response_module(API_KEY, context.api_version)
    results = tuple(
        build(m.CreatePartitionsTopicResult, name=name, error_code=error.code, error_message=error.message or None)
        for name in dict.fromkeys(topic.name for topic in request.topics)
    )
    return build(m.CreatePartitionsResponse, throttle_time=NO_THROTTLE, results=results)
