"""DescribeLogDirs: what lies in this broker's data directory, and how large each partition is.

Versions: 1-4.
v2: flexible. v3: an error for the whole request. v4: size and room of the volume.
A broker has one directory. Null topics ask for every partition on it; the size counts the segments, without indexes. A
partition that was never written has size 0. There are no future logs: it has no other directory.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raykafka.broker.serving import LogDirsPartition, LogDirsServer
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.log.files import LOG
from raykafka.protocol import acl
from raykafka.protocol.codec import NO_THROTTLE, build, response_module
from raykafka.protocol.context import RequestContext

if TYPE_CHECKING:
    from kio.schema.describe_log_dirs.v4.request import DescribeLogDirsRequest

API_KEY = 35
VERSIONS = (1, 4)
NEEDS = (acl.DESCRIBE_CLUSTER,)


async def handle(context: RequestContext, request: DescribeLogDirsRequest, server: LogDirsServer) -> Any:
    m = response_module(API_KEY, context.api_version)
    context.require(acl.DESCRIBE_CLUSTER, acl.CLUSTER_NAME)
    hosts = list(server.partitions)
    if request.topics is not None:
        asked = {(topic.topic, p) for topic in request.topics for p in topic.partitions}
        hosts = [host for host in hosts if host.tp in asked]
    data_dir: Path = server.data_dir
    try:
        sizes, total, usable = await asyncio.to_thread(_measure, data_dir, hosts)
        error = ErrorCode.NONE
    except OSError:
        sizes, total, usable, error = {}, -1, -1, ErrorCode.KAFKA_STORAGE_ERROR
    by_topic: dict[str, list[Any]] = {}
    for host in sorted(hosts, key=lambda host: host.tp):
        if host.tp in sizes:
            by_topic.setdefault(host.tp.topic, []).append(
                build(
                    m.DescribeLogDirsPartition,
                    partition_index=host.tp.partition,
                    partition_size=sizes[host.tp],
                    offset_lag=_lag(host),
                    is_future_key=False,
                )
            )
    result = build(
        m.DescribeLogDirsResult,
        error_code=error,
        log_dir=str(data_dir),
        topics=tuple(build(m.DescribeLogDirsTopic, name=n, partitions=tuple(p)) for n, p in by_topic.items()),
        total_bytes=total,
        usable_bytes=usable,
    )
    return build(m.DescribeLogDirsResponse, throttle_time=NO_THROTTLE, error_code=ErrorCode.NONE, results=(result,))


def _measure(data_dir: Path, hosts: list[LogDirsPartition]) -> tuple[dict[Any, int], int, int]:
    """Bytes of segments by partition, and of the volume: in all, and free."""
    sizes = {host.tp: _size(host.directory) if host.has_files else 0 for host in hosts}
    volume = os.statvfs(data_dir)
    return sizes, volume.f_frsize * volume.f_blocks, volume.f_frsize * volume.f_bavail


def _size(directory: Path) -> int:
    total = 0
    try:
        for entry in os.scandir(directory):
            if entry.name.endswith(LOG):
                total += entry.stat().st_size
    except FileNotFoundError:
        return total  # segments and whole logs are deleted meanwhile
    return total


def _lag(host: LogDirsPartition) -> int:
    ends = host.ends
    return 0 if ends is None else max(0, ends.high_watermark - ends.log_end_offset)


def error_response(context: RequestContext, request: DescribeLogDirsRequest, error: KafkaError) -> Any:
    m = response_module(API_KEY, context.api_version)
    return build(m.DescribeLogDirsResponse, throttle_time=NO_THROTTLE, error_code=error.code, results=())
