"""Which actors a cluster consists of, on which node, with which settings. Pure: config and nodes in, placements out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raykafka.broker.settings import BrokerSettings, ListenerAddress, ZooKeeperSettings
from raykafka.config.cluster import ClusterConfig
from raykafka.deploy.folder import ClusterFolder
from raykafka.deploy.names import BROKER, ZOOKEEPER

INTERNAL_TOPIC_REPLICAS = 3


@dataclass(frozen=True, slots=True)
class Placement:
    """One actor: its role and id, the node it is pinned to, its settings, and the memory Ray sets aside for it."""

    role: str
    actor_id: int
    node_ip: str
    settings: dict[str, Any]
    memory_bytes: int = 0


def zookeeper_settings(config: ClusterConfig) -> ZooKeeperSettings:
    """How brokers reach ZooKeeper: below the chroot that was asked for, else below the cluster's name."""
    managed = config.zookeeper.managed
    if managed is not None:
        servers = ",".join(f"{managed.host}:{managed.client_port + index}" for index in range(managed.servers))
        chroot = ""
    else:
        servers, _, chroot = (config.zookeeper.connect or "").partition("/")
    return ZooKeeperSettings(
        hosts=f"{servers}/{chroot.strip('/') or config.cluster}",
        auth=managed is not None,
        session_timeout_ms=config.zookeeper.session_timeout_ms,
    )


def place(config: ClusterConfig, folder: ClusterFolder, node_ip: str) -> list[Placement]:
    """All of the cluster's servers, on the one node at ``node_ip``."""
    return [*place_zookeeper(config, folder, node_ip), *_brokers(config, folder, node_ip)]


def place_zookeeper(config: ClusterConfig, folder: ClusterFolder, node_ip: str) -> list[Placement]:
    """The managed ZooKeeper servers; their settings are ZooKeeperProcess's arguments."""
    managed = config.zookeeper.managed
    if managed is None:
        return []
    ensemble: dict[int, str] = {}
    if managed.servers > 1:
        for index in range(managed.servers):
            peer, election = managed.peer_port + index, managed.election_port + index
            ensemble[index + 1] = f"{managed.host}:{peer}:{election}"
    return [
        Placement(
            ZOOKEEPER,
            index + 1,
            node_ip,
            {
                "data_dir": str(folder.zookeeper(index + 1)),
                "client_port": managed.client_port + index,
                "host": managed.host,
                "tick_time_ms": managed.tick_time_ms,
                "heap_mb": managed.heap_mb,
                "servers": ensemble,
                "my_id": index + 1,
            },
        )
        for index in range(managed.servers)
    ]


def _brokers(config: ClusterConfig, folder: ClusterFolder, node_ip: str) -> list[Placement]:
    brokers = config.brokers
    secret = folder.secret()
    placements = []
    for broker_id in range(brokers.count):
        settings = BrokerSettings(
            cluster=config.cluster,
            broker_id=broker_id,
            secret_hex=secret.hex(),
            data_dir=str(folder.broker(broker_id)),
            zookeeper=zookeeper_settings(config),
            listeners=_shifted(brokers.parsed_listeners, broker_id),
            advertised=_shifted(brokers.parsed_advertised, broker_id),
            link_host=brokers.link_host,
            link_port=brokers.link_port + broker_id,
            inter_broker_listener_name=brokers.inter_broker_listener,
            protocol_map=brokers.protocols,
            rack=brokers.rack,
            config={**_internal_topics(brokers.count), **brokers.config},
            spare_replicas=brokers.spare_replicas,
            controller_first=broker_id == 0,
        )
        placements.append(Placement(BROKER, broker_id, node_ip, settings.to_json(), brokers.memory_mb << 20))
    return placements


def _internal_topics(brokers: int) -> dict[str, str]:
    """Internal topics get three replicas where there are three brokers: a smaller cluster keeps offsets too."""
    factor = str(min(brokers, INTERNAL_TOPIC_REPLICAS))
    return {"offsets.topic.replication.factor": factor, "transaction.state.log.replication.factor": factor}


def _shifted(addresses: tuple[Any, ...], by: int) -> tuple[ListenerAddress, ...]:
    return tuple(ListenerAddress(name, host, port + by) for name, host, port in addresses)
