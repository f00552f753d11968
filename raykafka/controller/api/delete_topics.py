"""DeleteTopics: topics and their records are gone; answered when every live broker has let go of them.

Versions: 1-6.
v5: error messages. v6: topics by name or by id; one that gives both or neither is INVALID_REQUEST.
A deletion that was begun survives the controller (``/admin/delete_topics``). As in Kafka, a topic named twice is
deleted once and answered twice.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, cast

from raykafka.controller.decisions.topics import delete_topics
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.delete_topics.v5.request import DeleteTopicsRequest as DeleteTopicsRequestV5
    from kio.schema.delete_topics.v6.request import DeleteTopicsRequest

    from raykafka.controller.ledger.ledger import Ledger

API_KEY = 20
VERSIONS = (1, 6)
NEEDS = (acl.DELETE_TOPIC, acl.DESCRIBE_TOPIC)


async def handle(context: RequestContext, request: DeleteTopicsRequest, server: Ledger) -> Any:
    m = response_module(API_KEY, context.api_version)
    asked = _asked(context, request)
    resolved = [_resolve(context, server, name, topic_id) for name, topic_id in asked]
    names = [name for name, code in resolved if name is not None and code is ErrorCode.NONE]
    timeout_s = request.timeout.total_seconds()
    outcomes = await delete_topics(server, names, timeout_s=timeout_s) if names else {}
    results = []
    for (asked_name, topic_id), (name, code) in zip(asked, resolved, strict=True):
        outcome = outcomes.get(name) if name is not None and code is ErrorCode.NONE else None
        results.append(
            build(
                m.DeletableTopicResult,
                name=name or asked_name,
                topic_id=topic_id,
                error_code=outcome.code if outcome else code,
                error_message=(outcome.message or None) if outcome else None,
            )
        )
    return build(m.DeleteTopicsResponse, throttle_time=NO_THROTTLE, responses=tuple(results))


def _asked(context: RequestContext, request: DeleteTopicsRequest) -> list[tuple[str | None, uuid.UUID | None]]:
    """The names and ids of a request."""
    if context.api_version >= 6:
        return [(state.name, state.topic_id) for state in request.topics]
    return [(name, None) for name in cast("DeleteTopicsRequestV5", request).topic_names]


def _resolve(
    context: RequestContext, server: Ledger, name: str | None, topic_id: uuid.UUID | None
) -> tuple[str | None, ErrorCode]:
    """The name of the topic that is meant, and why it is not deleted. Who asks by id and may not describe the topic is
    not told its name."""
    if (name is None) == (topic_id is None):
        return name, ErrorCode.INVALID_REQUEST
    found = name if topic_id is None else server.state.image.names_by_id.get(topic_id)
    if found is None:
        return None, ErrorCode.UNKNOWN_TOPIC_ID
    if topic_id is not None and not context.allows(acl.DESCRIBE_TOPIC, found):
        return None, ErrorCode.TOPIC_AUTHORIZATION_FAILED
    if not context.allows(acl.DELETE_TOPIC, found):
        return found, ErrorCode.TOPIC_AUTHORIZATION_FAILED
    return found, ErrorCode.NONE


def error_response(context: RequestContext, request: DeleteTopicsRequest, error: KafkaError) -> Any:
    m = response_module(API_KEY, context.api_version)
    asked = _asked(context, request)
    results = tuple(
        build(
            m.DeletableTopicResult,
            name=name,
            topic_id=topic_id,
            error_code=error.code,
            error_message=error.message or None,
        )
        for name, topic_id in asked
    )
    return build(m.DeleteTopicsResponse, throttle_time=NO_THROTTLE, responses=results)
