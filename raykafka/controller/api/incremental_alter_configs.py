"""IncrementalAlterConfigs: set, delete, append to and subtract from single configs of topics and brokers (KIP-339).

Versions: 0-1.
v1: flexible.
Topics (2) and brokers (4; "" is every broker's default) can be altered. Broker loggers, client metrics and groups are
INVALID_REQUEST. A resource named twice is INVALID_REQUEST.
"""

from __future__ import annotations

from typing import Any

from raykafka.controller.config_admin import Alteration, Resource, alter_configs
from raykafka.controller.configs import altered
from raykafka.errors import KafkaError
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext
from raykafka.protocol.error_code import ErrorCode

API_KEY = 44
VERSIONS = (0, 1)


async def handle(context: RequestContext, request: Any, server: Any) -> Any:
    m = response_module(API_KEY, context.api_version)
    wanted = [(Resource(r.resource_type, r.resource_name), _alteration(r.configs)) for r in request.resources]
    outcomes = await alter_configs(server, wanted, validate_only=request.validate_only)
    responses = []
    for resource, _ in wanted:
        error = outcomes[resource]
        responses.append(
            build(
                m.AlterConfigsResourceResponse,
                error_code=error.code if error else ErrorCode.NONE,
                error_message=(error.message or None) if error else None,
                resource_type=resource.kind,
                resource_name=resource.name,
            )
        )
    return build(m.IncrementalAlterConfigsResponse, throttle_time=NO_THROTTLE, responses=tuple(responses))


def _alteration(configs: Any) -> Alteration:
    changes = [(c.name, c.config_operation, c.value) for c in configs]
    return lambda kind, current, defaults: altered(kind, current, defaults, changes)


def error_response(context: RequestContext, request: Any, error: KafkaError) -> Any:
    m = response_module(API_KEY, context.api_version)
    responses = tuple(
        build(
            m.AlterConfigsResourceResponse,
            error_code=error.code,
            error_message=error.message or None,
            resource_type=resource.resource_type,
            resource_name=resource.resource_name,
        )
        for resource in request.resources
    )
    return build(m.IncrementalAlterConfigsResponse, throttle_time=NO_THROTTLE, responses=responses)
