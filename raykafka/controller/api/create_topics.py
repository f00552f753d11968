"""CreateTopics: topics with partitions placed by the controller or by hand; answered when every live broker goes by
them.

Versions: 2-7.
v4: partitions and replication factor may be -1, the broker's default. v5: the answer tells partitions, replication
factor and configs of what was created. v6: throttling is said by THROTTLING_QUOTA_EXCEEDED; there is no such quota
yet. v7: topic ids. A topic named twice in one request is INVALID_REQUEST in both places. When the time is up before
every broker has answered, the topic exists all the same and the answer is REQUEST_TIMED_OUT, as Kafka has it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from raykafka.config.effective import describe_topic
from raykafka.controller.decisions.topics import Created, create_topics
from raykafka.controller.rules.topics import TopicRequest
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.create_topics.v7.request import CreateTopicsRequest

    from raykafka.controller.ledger.ledger import Ledger

API_KEY = 19
VERSIONS = (2, 7)
NEEDS = (acl.CREATE_IN_CLUSTER, acl.CREATE_TOPIC, acl.DESCRIBE_TOPIC_CONFIGS)

_REFUSED = "Authorization failed."
_TWICE = "Found multiple entries for this topic."


async def handle(context: RequestContext, request: CreateTopicsRequest, server: Ledger) -> Any:
    m = response_module(API_KEY, context.api_version)
    named = Counter(topic.name for topic in request.topics)
    twice = [topic.name for topic in request.topics if named[topic.name] > 1]
    results = [_failed(m, name, ErrorCode.INVALID_REQUEST, _TWICE) for name in twice]
    once = [topic for topic in request.topics if named[topic.name] == 1]
    in_cluster = context.allows(acl.CREATE_IN_CLUSTER, acl.CLUSTER_NAME)
    wanted = [_asked(topic) for topic in once if in_cluster or context.allows(acl.CREATE_TOPIC, topic.name)]
    permitted = {asked.name for asked in wanted}
    refused = [topic.name for topic in once if topic.name not in permitted]
    results += [_failed(m, name, ErrorCode.TOPIC_AUTHORIZATION_FAILED, _REFUSED) for name in refused]
    if wanted:
        for created in await create_topics(
            server, wanted, timeout_s=request.timeout.total_seconds(), validate_only=request.validate_only
        ):
            results.append(_result(m, context, created, server, request.validate_only))
    return build(m.CreateTopicsResponse, throttle_time=NO_THROTTLE, topics=tuple(results))


def _asked(topic: Any) -> TopicRequest:
    return TopicRequest(
        topic.name,
        topic.num_partitions,
        topic.replication_factor,
        tuple((a.partition_index, tuple(a.broker_ids)) for a in topic.assignments),
        tuple((c.name, c.value) for c in topic.configs),
    )


def _result(m: Any, context: RequestContext, created: Created, server: Ledger, validate_only: bool) -> Any:
    name, plan = created.request.name, created.plan
    if created.error is not None or plan is None:
        error = created.error
        return _failed(
            m, name, error.code if error else ErrorCode.UNKNOWN_SERVER_ERROR, error.message if error else None
        )
    topic_id = None if validate_only else plan.id
    if created.timed_out:
        return _failed(m, name, ErrorCode.REQUEST_TIMED_OUT, None, topic_id)
    if not context.allows(acl.DESCRIBE_TOPIC_CONFIGS, name):
        return build(
            m.CreatableTopicResult,
            name=name,
            topic_id=topic_id,
            error_code=ErrorCode.NONE,
            error_message=None,
            topic_config_error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED,
            configs=(),
        )
    return build(
        m.CreatableTopicResult,
        name=name,
        topic_id=topic_id,
        error_code=ErrorCode.NONE,
        error_message=None,
        num_partitions=len(plan.replicas),
        replication_factor=plan.replication_factor,
        configs=_configs(m, plan.config, server),
    )


def _failed(m: Any, name: str, code: ErrorCode, message: str | None, topic_id: Any = None) -> Any:
    return build(
        m.CreatableTopicResult,
        name=name,
        topic_id=topic_id,
        error_code=code,
        error_message=message or None,
        configs=(),
    )


def _configs(m: Any, config: Any, server: Ledger) -> Any:
    if not hasattr(m, "CreatableTopicConfigs"):
        return ()
    return tuple(
        build(
            m.CreatableTopicConfigs,
            name=value.name,
            value=value.value,
            read_only=value.read_only,
            config_source=value.source,
            is_sensitive=value.definition.sensitive,
        )
        for value in describe_topic(config, *server.state.config_places())
    )


def error_response(context: RequestContext, request: CreateTopicsRequest, error: KafkaError) -> Any:
    m = response_module(API_KEY, context.api_version)
    topics = tuple(_failed(m, topic.name, error.code, error.message) for topic in request.topics)
    return build(m.CreateTopicsResponse, throttle_time=NO_THROTTLE, topics=topics)
