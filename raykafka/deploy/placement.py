"""Which actors a cluster consists of, on which node, with which settings. Pure: config and nodes in, placements out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raykafka.broker.settings import EACH, BrokerSettings, ListenerAddress, ZooKeeperSettings
from raykafka.config.cluster import ClusterConfig, ReplicaActors
from raykafka.deploy.folder import ClusterFolder
from raykafka.deploy.names import BROKER, ZOOKEEPER
from raykafka.deploy.roster import Roster, Visit

INTERNAL_TOPIC_REPLICAS = 3
# an automatic number of replica actors is at most this: they speak to one another, each with all others
MOST_AUTOMATIC_ACTORS = 16


@dataclass(frozen=True, slots=True)
class Seat:
    """A node as actors are placed on it. ``node_id`` is Ray's, of this life of the node; empty while it is away.
    ``cores``: how many cores a process of it may use."""

    node_id: str
    ip: str
    labels: Mapping[str, str] = field(default_factory=dict)
    cores: int = 1


@dataclass(frozen=True, slots=True)
class Seats:
    """The node of each broker and of each managed ZooKeeper server."""

    brokers: Mapping[int, Seat]
    zookeepers: Mapping[int, Seat]


@dataclass(frozen=True, slots=True)
class Placement:
    """One actor: its role and id, the node it is pinned to, its settings, and the memory Ray sets aside for it."""

    role: str
    actor_id: int
    node_id: str
    node_ip: str
    settings: dict[str, Any]
    memory_bytes: int = 0

    def ports(self) -> list[tuple[str, int, str]]:
        """Every (host, port, owner) that the actor's server listens on."""
        settings = self.settings
        if self.role == BROKER:
            owner = f"broker {self.actor_id}"
            found = [(host, port, f"listener {name} of {owner}") for name, host, port in settings["listeners"]]
            found.append((settings["link_host"], settings["link_port"], f"the link port of {owner}"))
            if settings["metrics_port"]:
                found.append((settings["link_host"], settings["metrics_port"], f"the metrics port of {owner}"))
            return found
        owner = f"ZooKeeper server {self.actor_id}"
        found = [(settings["host"], settings["client_port"], owner)]
        if own := settings["servers"].get(self.actor_id):
            _, peer, election = own.rsplit(":", 2)
            found.append((settings["host"], int(peer), f"the peer port of {owner}"))
            found.append((settings["host"], int(election), f"the election port of {owner}"))
        return found


def seats_on_one_node(config: ClusterConfig, node_id: str, node_ip: str, cores: int = 1) -> Seats:
    """The seats where one node has everything."""
    seat = Seat(node_id, node_ip, cores=cores)
    servers = config.zookeeper.managed.servers if config.zookeeper.managed is not None else 0
    return Seats(
        {broker_id: seat for broker_id in range(config.brokers.count)},
        {server_id: seat for server_id in range(1, servers + 1)},
    )


def seats_of_roster(roster: Roster, visits: Iterable[Visit]) -> Seats:
    """The seats that ``roster`` gives, on nodes as ``visits`` found them; the others are away."""
    present = {visit.mark: Seat(visit.node_id, visit.ip, visit.labels, visit.cores) for visit in visits}

    def seat(mark: str) -> Seat:
        return present.get(mark) or Seat("", roster.addresses[mark])

    return Seats(
        {broker_id: seat(mark) for broker_id, mark in roster.brokers.items()},
        {server_id: seat(mark) for server_id, mark in roster.zookeepers.items()},
    )


def zookeeper_settings(config: ClusterConfig, seats: Seats, broker_id: int = 0) -> ZooKeeperSettings:
    """How a broker reaches ZooKeeper: below the chroot that was asked for, else below the cluster's name.

    It tries the servers in the order given. The one on its own node comes first, so that the loss of another node does
    not touch its session; without one, brokers begin at different servers.
    """
    managed = config.zookeeper.managed
    if managed is not None:
        addresses = [
            (seat.node_id, f"{managed.host or seat.ip}:{_client_port(config, server_id)}")
            for server_id, seat in seats.zookeepers.items()
        ]
        chroot = ""
    else:
        servers, _, chroot = (config.zookeeper.connect or "").partition("/")
        addresses = [("", server) for server in servers.split(",")]
    turn = broker_id % len(addresses)
    own = seats.brokers.get(broker_id, Seat("", ""))
    ordered = sorted(addresses[turn:] + addresses[:turn], key=lambda found: not own.node_id or found[0] != own.node_id)
    return ZooKeeperSettings(
        hosts=f"{','.join(address for _, address in ordered)}/{chroot.strip('/') or config.cluster}",
        auth=managed is not None,
        session_timeout_ms=config.zookeeper.session_timeout_ms,
    )


def place(config: ClusterConfig, folder: ClusterFolder, seats: Seats, secret: bytes) -> list[Placement]:
    """All of the cluster's servers."""
    return [*place_zookeeper(config, folder, seats), *_brokers(config, folder, seats, secret)]


def place_zookeeper(config: ClusterConfig, folder: ClusterFolder, seats: Seats) -> list[Placement]:
    """The managed ZooKeeper servers; their settings are ZooKeeperProcess's arguments."""
    managed = config.zookeeper.managed
    if managed is None:
        return []
    ensemble: dict[int, str] = {}
    if managed.servers > 1:
        for server_id, seat in seats.zookeepers.items():
            shift = _shift(config, server_id)
            peer, election = managed.peer_port + shift, managed.election_port + shift
            ensemble[server_id] = f"{managed.host or seat.ip}:{peer}:{election}"
    return [
        Placement(
            ZOOKEEPER,
            server_id,
            seat.node_id,
            seat.ip,
            {
                "data_dir": str(folder.zookeeper(server_id)),
                "client_port": _client_port(config, server_id),
                "host": managed.host or seat.ip,
                "tick_time_ms": managed.tick_time_ms,
                "sync_limit": managed.sync_limit,
                "heap_mb": managed.heap_mb,
                "servers": ensemble,
                "my_id": server_id,
            },
        )
        for server_id, seat in seats.zookeepers.items()
    ]


def replica_actors(asked: ReplicaActors, cores: int, brokers: int) -> int:
    """How many replica actors a broker has on a node of ``cores`` cores and ``brokers`` brokers, as
    ``BrokerSettings.replica_actors`` says it."""
    if asked == "auto":
        return min(max(cores // brokers, 1), MOST_AUTOMATIC_ACTORS)
    return EACH if asked == "each" else int(asked)


def bootstrap(placements: Iterable[Placement], listener: str | None) -> str:
    """``host:port,...`` of the brokers on ``listener`` (None: the inter-broker listener); empty where none has it."""
    found = []
    for placement in placements:
        if placement.role == BROKER:
            wanted = listener or placement.settings["inter_broker_listener_name"]
            found += [f"{host}:{port}" for name, host, port in placement.settings["advertised"] if name == wanted]
    return ",".join(found)


def _brokers(config: ClusterConfig, folder: ClusterFolder, seats: Seats, secret: bytes) -> list[Placement]:
    brokers = config.brokers
    placements = []
    on_node = Counter((seat.node_id, seat.ip) for seat in seats.brokers.values())
    for broker_id, seat in seats.brokers.items():
        shift = brokers.port_shift(broker_id)
        settings = BrokerSettings(
            cluster=config.cluster,
            broker_id=broker_id,
            secret_hex=secret.hex(),
            data_dir=str(folder.broker(broker_id)),
            zookeeper=zookeeper_settings(config, seats, broker_id),
            listeners=_on_node(brokers.parsed_listeners, seat.ip, shift),
            advertised=_on_node(brokers.parsed_advertised, seat.ip, shift),
            link_host=brokers.link_host or seat.ip,
            link_port=brokers.link_port + shift,
            metrics_port=brokers.metrics_port + shift if brokers.metrics_port else None,
            inter_broker_listener_name=brokers.inter_broker_listener,
            protocol_map=brokers.protocols,
            rack=seat.labels.get(brokers.rack_label) if brokers.rack_label else brokers.rack,
            config={**_internal_topics(brokers.count), **brokers.config},
            replica_actors=replica_actors(brokers.replica_actors, seat.cores, on_node[seat.node_id, seat.ip]),
            controller_first=broker_id == 0,
        )
        memory = brokers.memory_mb << 20
        placements.append(Placement(BROKER, broker_id, seat.node_id, seat.ip, settings.to_json(), memory))
    return placements


def _shift(config: ClusterConfig, server_id: int) -> int:
    """Servers of one machine need ports of their own."""
    return 0 if config.brokers.nodes is not None else server_id - 1


def _client_port(config: ClusterConfig, server_id: int) -> int:
    assert config.zookeeper.managed is not None
    return config.zookeeper.managed.client_port + _shift(config, server_id)


def _internal_topics(brokers: int) -> dict[str, str]:
    """Internal topics get three replicas where there are three brokers: a smaller cluster keeps offsets too."""
    factor = str(min(brokers, INTERNAL_TOPIC_REPLICAS))
    return {"offsets.topic.replication.factor": factor, "transaction.state.log.replication.factor": factor}


def _on_node(addresses: tuple[Any, ...], ip: str, shift: int) -> tuple[ListenerAddress, ...]:
    return tuple(ListenerAddress(name, host or ip, port + shift) for name, host, port in addresses)
