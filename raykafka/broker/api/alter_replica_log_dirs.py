"""AlterReplicaLogDirs: move replicas to another directory of their broker.

Versions: 1-2. A broker has one data directory: what is to be there is there, and any other is LOG_DIR_NOT_FOUND.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from raykafka.broker.serving import LogDirsServer
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.alter_replica_log_dirs.v2.request import AlterReplicaLogDirsRequest

API_KEY = 34
VERSIONS = (1, 2)
NEEDS = (acl.ALTER_CLUSTER,)


async def handle(context: RequestContext, request: AlterReplicaLogDirsRequest, server: LogDirsServer) -> Any:
    context.require(acl.ALTER_CLUSTER, acl.CLUSTER_NAME)
    here = {host.tp for host in server.partitions}
    found: dict[str, dict[int, ErrorCode]] = {}
    for asked in request.dirs:
        is_ours = Path(asked.path) == server.data_dir
        for topic in asked.topics:
            for partition in topic.partitions:
                error = ErrorCode.NONE if is_ours else ErrorCode.LOG_DIR_NOT_FOUND
                if is_ours and (topic.name, partition) not in here:
                    error = ErrorCode.REPLICA_NOT_AVAILABLE
                found.setdefault(topic.name, {})[partition] = error
    return _response(context, found)


def error_response(context: RequestContext, request: AlterReplicaLogDirsRequest, error: KafkaError) -> Any:
    named = [topic for asked in request.dirs for topic in asked.topics]
    return _response(context, {topic.name: dict.fromkeys(topic.partitions, error.code) for topic in named})


def _response(context: RequestContext, found: dict[str, dict[int, ErrorCode]]) -> Any:
    m = response_module(API_KEY, context.api_version)
    results = tuple(
        build(
            m.AlterReplicaLogDirTopicResult,
            topic_name=topic,
            partitions=tuple(
                build(m.AlterReplicaLogDirPartitionResult, partition_index=partition, error_code=error)
                for partition, error in partitions.items()
            ),
        )
        for topic, partitions in found.items()
    )
    return build(m.AlterReplicaLogDirsResponse, throttle_time=NO_THROTTLE, results=results)
