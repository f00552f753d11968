"""DescribeConfigs: every config of topics and brokers, with its value in force and where that comes from.

Versions: 1-4.
v1: sources and synonyms. v2: throttling. v3: types and documentation. v4: flexible.
Topics (2) and brokers (4) are described; broker loggers (8), client metrics (16) and groups (32) are INVALID_REQUEST. A
broker's configs are its own to tell: asked about another broker, this one answers INVALID_REQUEST as Kafka does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from raykafka.broker.serving import ConfigsServer
from raykafka.cluster.topic_names import check_name
from raykafka.config.effective import ConfigValue, describe_broker, describe_cluster_default, describe_topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.describe_configs.v4.request import DescribeConfigsRequest

API_KEY = 32
VERSIONS = (1, 4)
NEEDS = (acl.DESCRIBE_TOPIC_CONFIGS, acl.DESCRIBE_CLUSTER_CONFIGS)

_TOPIC = 2
_BROKER = 4


async def handle(context: RequestContext, request: DescribeConfigsRequest, server: ConfigsServer) -> Any:
    m = response_module(API_KEY, context.api_version)
    results = []
    for resource in request.resources:
        code, message, configs = ErrorCode.NONE, None, ()
        try:
            found = _describe(context, resource.resource_type, resource.resource_name, server)
            keys = resource.configuration_keys
            if keys is not None:
                found = [value for value in found if value.name in keys]
            configs = tuple(_shown(m, request, found))
        except KafkaError as error:
            code, message = error.code, error.message
        results.append(
            build(
                m.DescribeConfigsResult,
                error_code=code,
                error_message=message,
                resource_type=resource.resource_type,
                resource_name=resource.resource_name,
                configs=configs,
            )
        )
    return build(m.DescribeConfigsResponse, throttle_time=NO_THROTTLE, results=tuple(results))


def _describe(context: RequestContext, kind: int, name: str, server: ConfigsServer) -> list[ConfigValue]:
    configs = server.configs
    if kind == _TOPIC:
        context.require(acl.DESCRIBE_TOPIC_CONFIGS, name)
        check_name(name, ())
        topic = server.image.topics.get(name)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return describe_topic(topic.config, configs.dynamic, configs.dynamic_default, configs.static)
    if kind != _BROKER:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unsupported resource type: {kind}")
    context.require(acl.DESCRIBE_CLUSTER_CONFIGS, acl.CLUSTER_NAME)
    if not name:
        return describe_cluster_default(configs.dynamic_default)
    if not name.isdigit():
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Broker id must be an integer, but it is: {name}")
    if int(name) != server.broker_id:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"Unexpected broker id, expected {server.broker_id} or empty string, but received {name}",
        )
    return describe_broker(configs.dynamic, configs.dynamic_default, configs.static)


def _shown(m: Any, request: DescribeConfigsRequest, values: Iterable[ConfigValue]) -> Iterable[Any]:
    with_synonyms = request.include_synonyms
    with_documentation = getattr(request, "include_documentation", False)
    for value in values:
        synonyms = value.synonyms if with_synonyms else ()
        yield build(
            m.DescribeConfigsResourceResult,
            name=value.name,
            value=value.value,
            read_only=value.read_only,
            config_source=value.source,
            is_sensitive=value.definition.sensitive,
            synonyms=tuple(
                build(m.DescribeConfigsSynonym, name=s.name, value=s.value, source=s.source) for s in synonyms
            ),
            config_type=value.definition.type,
            documentation=value.definition.doc if with_documentation else None,
        )
