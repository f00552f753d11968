"""What a broker tells people of itself, as plain data: its row in ``raykafka status``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

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


class ActorRow(NamedTuple):
    """A replica actor as its broker knows it, by its last report. ``pid`` and ``actor_id`` (Ray's) are those of its
    process, ``replicas`` and ``leaders`` what it has open and leads, ``connections`` how many of clients it serves, by
    listener, ``busy`` the share of a core that it used of late (0 to 1), ``age_s`` seconds since it was started."""

    number: int
    pid: int
    actor_id: str
    replicas: int
    leaders: int
    connections: Mapping[str, int]
    busy: float
    age_s: float


class ActorRows(Protocol):
    """The replica actors of a broker."""

    def rows(self) -> Sequence[ActorRow]:
        """One for each that lives, in the order of their numbers."""


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
    def replica_actors(self) -> ActorRows: ...
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
    image, now, ports, actors = broker.image, boot_clock(), broker.ports, broker.replica_actors.rows()

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
            {
                "name": e.listener,
                "host": e.host,
                "port": e.port,
                "connections": sum(actor.connections.get(e.listener, 0) for actor in actors),
            }
            for e in broker.registration.endpoints
        ],
        "link_port": ports.link_port,
        "metrics": {"host": ports.metrics.host, "port": ports.metrics.port} if ports.metrics else None,
        "controller_id": image.controller_id,
        "controller_epoch": image.controller_epoch,
        "lease_age_s": round(broker.session.lease.age_s(now), 3),
        "holds_lease": broker.holds_lease(),
        "children": [_child_row(child, now) for child in broker.children.living()],
        "replica_actors": [described(actor) for actor in actors],
        "restarts": dict(broker.children.restarts),
        "age_s": round(now - broker.started_at, 1),
        "summary": partition_summary(image, min_insync),
        "troubled": [host.describe() for host in broker.partitions if host.failures.count],
        "partitions": broker.partitions.status() if partitions else None,
    }


def _child_row(child: Child, now: float) -> dict[str, Any]:
    return {
        "role": child.role,
        "pid": child.pid,
        "actor_id": child.actor_id,
        "state": "connected" if child.is_connected else "starting",
        "age_s": round(now - child.started_at, 1),
    }


def described(actor: ActorRow) -> dict[str, Any]:
    """A replica actor as plain data, with its connections in all."""
    rounded = {"busy": round(actor.busy, 3), "age_s": round(actor.age_s, 1)}
    return {**actor._asdict(), "connections": sum(actor.connections.values()), **rounded}
