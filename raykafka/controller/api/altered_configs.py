"""What AlterConfigs and IncrementalAlterConfigs share: they differ only in how a resource's new configs come about."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from raykafka.controller.decisions.configs import Alteration, Resource, alter_configs
from raykafka.controller.rules.configs import ResourceType
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_class, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.alter_configs.v2.request import AlterConfigsRequest
    from kio.schema.incremental_alter_configs.v1.request import IncrementalAlterConfigsRequest

    from raykafka.controller.ledger.ledger import Ledger

AnyAlterConfigs: TypeAlias = "AlterConfigsRequest | IncrementalAlterConfigsRequest"

NEEDS = (acl.ALTER_TOPIC_CONFIGS, acl.ALTER_CLUSTER_CONFIGS)


async def altered(
    context: RequestContext, request: AnyAlterConfigs, server: Ledger, alteration: Callable[[Any], Alteration]
) -> Any:
    """The response once each resource's configs are what ``alteration``, given the entries of the request, makes of
    them."""
    wanted = [(Resource(r.resource_type, r.resource_name), alteration(r.configs)) for r in request.resources]
    refused = {resource: error for resource, _ in wanted if (error := _refusal(context, resource)) is not None}
    allowed = [(resource, change) for resource, change in wanted if resource not in refused]
    outcomes: dict[Resource, KafkaError | None] = dict(refused)
    if allowed:
        outcomes |= await alter_configs(server, allowed, validate_only=request.validate_only)
    return _response(context, [(resource, outcomes[resource]) for resource, _ in wanted])


def _refusal(context: RequestContext, resource: Resource) -> KafkaError | None:
    """A topic's configs are the topic's; all others, of whatever kind, are the cluster's."""
    try:
        if resource.kind == ResourceType.TOPIC:
            context.require(acl.ALTER_TOPIC_CONFIGS, resource.name)
        else:
            context.require(acl.ALTER_CLUSTER_CONFIGS, acl.CLUSTER_NAME)
    except KafkaError as error:
        return error
    return None


def error_response(context: RequestContext, request: AnyAlterConfigs, error: KafkaError) -> Any:
    return _response(context, [(Resource(r.resource_type, r.resource_name), error) for r in request.resources])


def _response(context: RequestContext, outcomes: Iterable[tuple[Resource, KafkaError | None]]) -> Any:
    m = response_module(context.api_key, context.api_version)
    responses = tuple(
        build(
            m.AlterConfigsResourceResponse,
            error_code=error.code if error else ErrorCode.NONE,
            error_message=(error.message or None) if error else None,
            resource_type=resource.kind,
            resource_name=resource.name,
        )
        for resource, error in outcomes
    )
    whole = response_class(context.api_key, context.api_version)
    return build(whole, throttle_time=NO_THROTTLE, responses=responses)
