"""What a broker tells people of itself, as plain data: its row in ``raykafka status``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from raykafka.broker.children.child import Child
from raykafka.broker.children.children import Children
from raykafka.broker.configs import Configs
from raykafka.broker.life import BrokerState
from raykafka.broker.partitions.partitions import Partitions
from raykafka.broker.ports import Ports
from raykafka.broker.zookeeper_session import ZooKeeperSession
from raykafka.cluster.image import BrokerInfo, ClusterImage, Topic
from raykafka.cluster.summary import partition_summary
from raykafka.process.clock import boot_clock

_MIN_INSYNC = "min.insync.replicas"


class StatusSource(Protocol):
    """What a status is made of. ``started_at`` is a moment of ``boot_clock``."""

    broker_id: int
    started_at: float
    state: BrokerState
    registration: BrokerInfo
    configs: Configs
    session: ZooKeeperSession
    ports: Ports
    children: Children
    partitions: Partitions

    @property
    def image(self) -> ClusterImage: ...
    @property
    def data_dir(self) -> Path: ...

    def holds_lease(self) -> bool:
        """Whether the lease of rule 15 has not run out."""


def status_of(broker: StatusSource, partitions: bool) -> dict[str, Any]:
    """``state`` and ``pid`` alone of a broker that is not registered; else also what it serves, where, and in which
    shape the cluster is as far as it knows. With ``partitions`` a row for each local one. Ages are in seconds."""
    if broker.state in (BrokerState.STOPPED, BrokerState.STARTING):
        return {"state": broker.state.value, "pid": os.getpid()}
    image, now, ports = broker.image, boot_clock(), broker.ports

    def min_insync(topic: Topic) -> int:
        return int(topic.config.get(_MIN_INSYNC) or broker.configs.texts[_MIN_INSYNC])

    return {
        "state": broker.state.value,
        "pid": os.getpid(),
        "broker_id": broker.broker_id,
        "broker_epoch": broker.registration.epoch,
        "cluster_id": image.cluster_id,
        "data_dir": str(broker.data_dir),
        "listeners": [
            {"name": e.listener, "host": e.host, "port": e.port, "connections": listener.connections}
            for e, listener in zip(broker.registration.endpoints, ports.listeners, strict=True)
        ],
        "link_port": ports.link_port,
        "metrics": {"host": ports.metrics.host, "port": ports.metrics.port} if ports.metrics else None,
        "controller_id": image.controller_id,
        "controller_epoch": image.controller_epoch,
        "lease_age_s": round(broker.session.lease.age_s(now), 3),
        "holds_lease": broker.holds_lease(),
        "children": [_child_row(child, now) for child in broker.children.living()],
        "restarts": dict(broker.children.restarts),
        "age_s": round(now - broker.started_at, 1),
        "spare_replicas": broker.children.spares,
        "summary": partition_summary(image, min_insync),
        "troubled": [host.describe() for host in broker.partitions if host.failures.count],
        "partitions": broker.partitions.status() if partitions else None,
    }


def _child_row(child: Child, now: float) -> dict[str, Any]:
    return {
        "role": child.role,
        "pid": child.pid,
        "actor_id": child.actor_id,
        "for": child.note,
        "state": "connected" if child.is_connected else "starting",
        "age_s": round(now - child.started_at, 1),
    }
