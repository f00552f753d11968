"""Metadata: brokers, topics and who leads which partition, as a client needs them to begin.

Versions: 0-12.
v0: no topics named means all; replicas that are down are left out and told by REPLICA_NOT_AVAILABLE.
v1: null means all topics, an empty list none; controller id, racks, internal flag. v2: cluster id. v3: throttle time.
v4: the client says whether topics may be created. v5: offline replicas. v6: a leader without the client's listener is
LISTENER_NOT_FOUND. v7: leader epochs. v8: authorized operations (the cluster's until v10). v10: topic ids are answered.
v12: topics may be asked for by id.

A partition whose leader seems to have died a moment ago is answered without one (LEADER_NOT_AVAILABLE), so that the
client asks again soon. A topic that auto-creation makes is answered with its leaders, where Kafka answers
LEADER_NOT_AVAILABLE first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from raykafka.cluster.image import ClusterImage, PartitionState, Topic
from raykafka.cluster.topic_names import check_name
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.front.api.endpoints import alive_endpoints
from raykafka.front.serving import ClusterServer
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, encode_response, response_module
from raykafka.protocol.context import RequestContext
from raykafka.types import INTERNAL_TOPICS, NO_LEADER

if TYPE_CHECKING:
    from kio.schema.metadata.v12.request import MetadataRequest

API_KEY = 3
VERSIONS = (0, 12)
NEEDS = (acl.DESCRIBE_TOPIC, acl.CREATE_TOPIC, acl.CREATE_IN_CLUSTER, acl.DESCRIBE_CLUSTER)


# more than this takes milliseconds to answer
_MANY_PARTITIONS = 300
# what else a request asks for
_FLAGS = ("include_cluster_authorized_operations", "include_topic_authorized_operations")
# what may be told apart in the table of answers: a longer list is unlikely to be asked for twice
_MOST_NAMED = 1000


async def handle(context: RequestContext, request: MetadataRequest, server: ClusterServer) -> Any:
    version = context.api_version
    asked = request.topics or ()
    every_topic = request.topics is None or (version == 0 and not asked)
    failed: dict[str, ErrorCode] = {}
    if not every_topic and getattr(request, "allow_auto_topic_creation", True):
        failed = await _create_missing(context, [t.name for t in asked if t.name is not None], server)
    image: ClusterImage = server.image
    suspects = server.suspects

    def slow() -> bool:
        if every_topic:
            return sum(len(topic.partitions) for topic in image.topics.values()) > _MANY_PARTITIONS
        return len(asked) + sum(_partition_count(image, wanted) for wanted in asked) > _MANY_PARTITIONS

    def response() -> Any:
        return _response(context, request, every_topic, failed, image, suspects)

    # what a client may see is its own, and what could not be created now may be the next time
    if failed or context.throttle_ms or len(asked) > _MOST_NAMED or not context.is_open_to_all:
        return await asyncio.to_thread(response) if slow() else response()
    named = None if every_topic else tuple((wanted.name, getattr(wanted, "topic_id", None)) for wanted in asked)
    alike = (version, context.listener, named, *(getattr(request, flag, False) for flag in _FLAGS))
    return await server.image_answers.answer(
        image, suspects, alike, lambda: encode_response(API_KEY, version, response()), slow=slow
    )


def _partition_count(image: ClusterImage, wanted: Any) -> int:
    name = wanted.name if wanted.name is not None else image.names_by_id.get(wanted.topic_id)
    topic = image.topics.get(name) if name is not None else None
    return len(topic.partitions) if topic is not None else 0


def _response(
    context: RequestContext,
    request: MetadataRequest,
    every_topic: bool,
    failed: Mapping[str, ErrorCode],
    image: ClusterImage,
    suspects: Collection[int],
) -> Any:
    """Of the image alone: also made in a thread."""
    m = response_module(API_KEY, context.api_version)
    asked = request.topics or ()
    reachable = {broker.id for broker in image.brokers.values() if broker.endpoint(context.listener) is not None}
    with_operations = getattr(request, "include_topic_authorized_operations", False)

    def answer(name: str | None, topic_id: Any, topic: Topic | None, error: ErrorCode = ErrorCode.NONE) -> Any:
        operations = acl.NOT_ASKED
        if with_operations and topic is not None:
            operations = context.authorized_operations(acl.ResourceType.TOPIC, topic.name)
        return build(
            m.MetadataResponseTopic,
            error_code=error,
            name=name,
            topic_id=topic_id,
            is_internal=name in INTERNAL_TOPICS,
            partitions=tuple(_partitions(m, image, topic, context, suspects, reachable)) if topic else (),
            topic_authorized_operations=operations,
        )

    def may_describe(name: str) -> bool:
        return context.allows(acl.DESCRIBE_TOPIC, name)

    topics = []
    if every_topic:
        topics = [answer(t.name, t.id, t) for _, t in sorted(image.topics.items()) if may_describe(t.name)]
    for wanted in () if every_topic else asked:
        name: str | None = wanted.name
        if name is None:
            by_id = wanted.topic_id
            name = None if by_id is None else image.names_by_id.get(by_id)
            if name is None or not may_describe(name):
                topics.append(answer(None, by_id, None, ErrorCode.UNKNOWN_TOPIC_ID))
                continue
        topic = image.topics.get(name)
        if not may_describe(name):
            topics.append(answer(name, None, None, ErrorCode.TOPIC_AUTHORIZATION_FAILED))
        elif topic is None:
            topics.append(answer(name, None, None, failed.get(name) or _missing_error(name)))
        else:
            topics.append(answer(name, topic.id, topic))

    cluster_operations = acl.NOT_ASKED
    if getattr(request, "include_cluster_authorized_operations", False):
        cluster_operations = acl.NONE
        if context.allows(acl.DESCRIBE_CLUSTER, acl.CLUSTER_NAME):
            cluster_operations = context.authorized_operations(acl.ResourceType.CLUSTER, acl.CLUSTER_NAME)
    return build(
        m.MetadataResponse,
        throttle_time=NO_THROTTLE,
        brokers=tuple(
            build(m.MetadataResponseBroker, node_id=broker.id, host=at.host, port=at.port, rack=broker.rack)
            for broker, at in alive_endpoints(image, context.listener)
        ),
        cluster_id=image.cluster_id,
        controller_id=image.controller_id,
        topics=tuple(topics),
        cluster_authorized_operations=cluster_operations,
    )


async def _create_missing(context: RequestContext, names: Iterable[str], server: ClusterServer) -> dict[str, ErrorCode]:
    """Create those of the named topics that don't exist, where config allows it. Returns the errors of what failed."""
    missing = [
        name
        for name in dict.fromkeys(names)
        if name not in server.image.topics and context.allows(acl.DESCRIBE_TOPIC, name)
    ]
    if not missing:
        return {}
    permitted = [
        name
        for name in missing
        if context.allows(acl.CREATE_IN_CLUSTER, acl.CLUSTER_NAME) or context.allows(acl.CREATE_TOPIC, name)
    ]
    outcome = {name: ErrorCode.TOPIC_AUTHORIZATION_FAILED for name in missing if name not in permitted}
    outcome |= await server.auto_create(permitted)
    return {name: code for name, code in outcome.items() if code is not ErrorCode.NONE}


def _missing_error(name: str) -> ErrorCode:
    try:
        check_name(name, ())
    except KafkaError as error:
        return error.code
    return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def _partitions(
    m: Any, image: ClusterImage, topic: Topic, context: RequestContext, suspects: Collection[int], reachable: set[int]
) -> Iterable[Any]:
    for index in sorted(topic.partitions):
        state = topic.partitions[index]
        replicas, isr = state.replicas, state.isr
        if context.api_version == 0:
            replicas = tuple(b for b in replicas if b in reachable)
            isr = tuple(b for b in isr if b in reachable)
        if state.leader in suspects:
            error, leader = ErrorCode.LEADER_NOT_AVAILABLE, NO_LEADER
        else:
            error, leader = _leader(image, state, reachable, context.api_version)
        if error is ErrorCode.NONE and (len(replicas) < len(state.replicas) or len(isr) < len(state.isr)):
            error = ErrorCode.REPLICA_NOT_AVAILABLE
        yield build(
            m.MetadataResponsePartition,
            error_code=error,
            partition_index=index,
            leader_id=leader,
            leader_epoch=state.leader_epoch,
            replica_nodes=replicas,
            isr_nodes=isr,
            offline_replicas=tuple(b for b in state.replicas if b not in image.brokers),
        )


def _leader(image: ClusterImage, state: PartitionState, reachable: set[int], version: int) -> tuple[ErrorCode, int]:
    if state.leader in reachable:
        return ErrorCode.NONE, state.leader
    if state.leader in image.brokers and version >= 6:
        return ErrorCode.LISTENER_NOT_FOUND, NO_LEADER
    return ErrorCode.LEADER_NOT_AVAILABLE, NO_LEADER
