"""What the partitions of a broker use of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raykafka.broker.partitions.replica_process import ReplicaSource
from raykafka.broker.partitions.replication_throttle import ReplicationThrottle
from raykafka.cluster.image import BrokerInfo, PartitionState
from raykafka.types import TopicPartition


@dataclass(slots=True)
class BrokerParts:
    """Shared by all partitions of a broker.

    ``report_failed(tp, state, reason)`` returns once the controller knows that the leadership ``state`` has ended;
    ``propose(tp, topic id, proposal)`` asks the controller for an ISR (rule 7); ``wake_followers(tp, topic id, state)``
    tells the followers' brokers that the leader wakes. ``brokers`` are those that are alive; ``replica_failures``
    counts replica processes that ended before they were let go; ``cold_reads`` runs reads that wait for the disk.
    """

    broker_id: int
    log_dir: Path
    replicas: ReplicaSource
    report_failed: Callable[[TopicPartition, PartitionState, str], Coroutine[Any, Any, None]]
    propose: Callable[[TopicPartition, uuid.UUID, dict[str, Any]], Coroutine[Any, Any, None]]
    wake_followers: Callable[[TopicPartition, uuid.UUID, PartitionState], None]
    throttle: ReplicationThrottle = field(default_factory=ReplicationThrottle)
    brokers: Mapping[int, BrokerInfo] = field(default_factory=dict)
    replica_failures: int = 0
    cold_reads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=4, thread_name_prefix="cold-read")
    )
