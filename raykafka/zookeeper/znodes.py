"""What the nodes in ZooKeeper hold: JSON from and to the values that the rest works with. Pure.

The fields are Kafka's (3.9, ZooKeeper mode), so that its tools and its people find what they expect; ours live in a
``raykafka`` object beside them. Every value carries a format number. ``paths`` says where each node is.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from raykafka.cluster.changes import Changes, Stored
from raykafka.cluster.image import BrokerInfo, Endpoint, PartitionState

FORMAT = 1
PRODUCER_ID_BLOCK_SIZE = 1000


def _pack(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def new_kafka_uuid() -> uuid.UUID:
    """A random UUID whose base64 text does not start with "-", as Kafka makes them for topics and clusters."""
    while True:
        made = uuid.uuid4()
        if not kafka_uuid_text(made).startswith("-"):
            return made


def kafka_uuid_text(value: uuid.UUID) -> str:
    """Kafka's text form of a UUID: URL-safe base64 without padding, 22 characters."""
    return base64.urlsafe_b64encode(value.bytes).decode().rstrip("=")


def kafka_uuid(text: str) -> uuid.UUID:
    return uuid.UUID(bytes=base64.urlsafe_b64decode(text + "=="))


def now_text() -> str:
    """Milliseconds of the wall clock, as Kafka writes timestamps into its nodes."""
    return str(int(time.time() * 1000))


# /cluster/id


def pack_cluster_id(cluster_id: str) -> bytes:
    return _pack({"version": "1", "id": cluster_id})


def unpack_cluster_id(data: bytes) -> str:
    return str(json.loads(data)["id"])


# /brokers/ids/N


@dataclass(frozen=True, slots=True)
class Registration:
    """A life of a broker as ZooKeeper has it.

    ``incarnation`` names the writer, so that it knows its own node again after a lost connection. ``directory_since``
    and ``intact_since`` are broker epochs: the first life on this data directory, and the first since which no log of
    this broker can have lost a tail, since every stop was clean or left the machine running (rule 18).
    """

    info: BrokerInfo
    incarnation: str
    directory_since: int
    intact_since: int


def pack_registration(registration: Registration) -> bytes:
    broker = registration.info
    first = broker.endpoints[0] if broker.endpoints else None
    value: dict[str, Any] = {
        "features": {},
        "listener_security_protocol_map": {e.listener: e.security_protocol for e in broker.endpoints},
        "endpoints": [f"{e.listener}://{e.host}:{e.port}" for e in broker.endpoints],
        "jmx_port": -1,
        "port": first.port if first else -1,
        "host": first.host if first else None,
        "version": 5,
        "timestamp": now_text(),
        "raykafka": {
            "format": FORMAT,
            "broker_epoch": broker.epoch,
            "link": [broker.link_host, broker.link_port],
            "directory_id": broker.directory_id,
            "boot_id": broker.boot_id,
            "clean_shutdown": broker.clean_shutdown,
            "incarnation": registration.incarnation,
            "directory_since": registration.directory_since,
            "intact_since": registration.intact_since,
        },
    }
    if broker.rack is not None:
        value["rack"] = broker.rack
    return _pack(value)


def unpack_registration(broker_id: int, data: bytes) -> Registration:
    value = json.loads(data)
    ours = value["raykafka"]
    protocols = value["listener_security_protocol_map"]
    endpoints = []
    for text in value["endpoints"]:
        listener, _, address = text.partition("://")
        host, _, port = address.rpartition(":")
        endpoints.append(Endpoint(listener, host.strip("[]"), int(port), protocols[listener]))
    info = BrokerInfo(
        id=broker_id,
        epoch=ours["broker_epoch"],
        endpoints=tuple(endpoints),
        link_host=ours["link"][0],
        link_port=ours["link"][1],
        directory_id=ours["directory_id"],
        boot_id=ours["boot_id"],
        clean_shutdown=ours["clean_shutdown"],
        rack=value.get("rack"),
    )
    return Registration(info, ours["incarnation"], ours["directory_since"], ours["intact_since"])


# /brokers/epochs/N


def pack_epoch(registration: Registration) -> bytes:
    """What the next life of this broker has to know of this one."""
    info = registration.info
    return _pack(
        {
            "format": FORMAT,
            "incarnation": registration.incarnation,
            "directory_id": info.directory_id,
            "boot_id": info.boot_id,
            "directory_since": registration.directory_since,
            "intact_since": registration.intact_since,
        }
    )


def next_registration(info: BrokerInfo, incarnation: str, last: bytes) -> Registration:
    """The registration of a life that follows the one that left ``last`` in ``/brokers/epochs/N`` (empty: none)."""
    before = json.loads(last) if last else {}
    same_directory = before.get("directory_id") == info.directory_id
    nothing_lost = same_directory and (info.clean_shutdown or before["boot_id"] == info.boot_id)
    return Registration(
        info,
        incarnation,
        directory_since=before["directory_since"] if same_directory else info.epoch,
        intact_since=before["intact_since"] if nothing_lost else info.epoch,
    )


# /controller, /controller_epoch


@dataclass(frozen=True, slots=True)
class ControllerNode:
    """Who is the active controller, and where standbys hold a socket to it (rule 16)."""

    broker_id: int
    link_host: str
    link_port: int
    incarnation: str

    def pack(self) -> bytes:
        ours = {"format": FORMAT, "link": [self.link_host, self.link_port], "incarnation": self.incarnation}
        return _pack(
            {
                "version": 2,
                "brokerid": self.broker_id,
                "timestamp": now_text(),
                "kraftControllerEpoch": -1,
                "raykafka": ours,
            }
        )

    @staticmethod
    def unpack(data: bytes) -> ControllerNode:
        value = json.loads(data)
        ours = value["raykafka"]
        return ControllerNode(value["brokerid"], ours["link"][0], ours["link"][1], ours["incarnation"])


# /brokers/topics/T


@dataclass(frozen=True, slots=True)
class TopicNode:
    """A topic's identity and assignment: replicas of each partition in order of preference, and those being moved."""

    id: uuid.UUID
    replicas: Mapping[int, tuple[int, ...]]
    adding: Mapping[int, tuple[int, ...]]
    removing: Mapping[int, tuple[int, ...]]

    def pack(self) -> bytes:
        def table(values: Mapping[int, tuple[int, ...]]) -> dict[str, list[int]]:
            return {str(p): list(values[p]) for p in sorted(values) if values[p]}

        return _pack(
            {
                "partitions": table(self.replicas),
                "topic_id": kafka_uuid_text(self.id),
                "adding_replicas": table(self.adding),
                "removing_replicas": table(self.removing),
                "version": 3,
            }
        )

    @staticmethod
    def unpack(data: bytes) -> TopicNode:
        value = json.loads(data)

        def table(name: str) -> dict[int, tuple[int, ...]]:
            return {int(p): tuple(brokers) for p, brokers in value.get(name, {}).items()}

        return TopicNode(
            kafka_uuid(value["topic_id"]), table("partitions"), table("adding_replicas"), table("removing_replicas")
        )


# /brokers/topics/T/partitions/P/state


@dataclass(frozen=True, slots=True)
class StateNode:
    """A partition's state as ZooKeeper has it; ``version`` is the node's. ``isr_epochs`` holds the broker epoch that
    each ISR member had when this was written, in the order of ``isr``: a member with another epoch now has died since
    (rule 13). ``stored`` is what this state was made from, None for a new partition."""

    leader: int
    leader_epoch: int
    isr: tuple[int, ...]
    isr_epochs: tuple[int, ...]
    controller_epoch: int
    version: int = -1
    unclean_epoch: int = -1
    stored: Stored | None = field(default=None, compare=False, repr=False)

    @property
    def changes(self) -> Changes:
        """How often this partition has changed, up to this state, if it is written over the one it was made from."""
        if self.stored is None:
            return Changes()
        assert self.stored.version == self.version, "a written state must be taken on with stored_at"
        return self.stored.followed_by(
            leader=self.leader, leader_epoch=self.leader_epoch, unclean_epoch=self.unclean_epoch, isr=self.isr
        )

    def stored_at(self, version: int) -> StateNode:
        """This state once it stands in ZooKeeper. States made from it (``dataclasses.replace``) count on from it."""
        return replace(
            self,
            version=version,
            stored=Stored(version, self.leader_epoch, self.unclean_epoch, self.isr, self.changes),
        )

    def pack(self) -> bytes:
        return _pack(
            {
                "controller_epoch": self.controller_epoch,
                "leader": self.leader,
                "version": 1,
                "leader_epoch": self.leader_epoch,
                "isr": list(self.isr),
                "raykafka": {
                    "format": FORMAT,
                    "isr_epochs": list(self.isr_epochs),
                    "unclean_epoch": self.unclean_epoch,
                    "changes": list(self.changes),
                },
            }
        )

    @staticmethod
    def unpack(data: bytes, version: int) -> StateNode:
        """``version`` is the node's version in ZooKeeper."""
        value = json.loads(data)
        ours = value["raykafka"]
        isr, leader_epoch, unclean_epoch = tuple(value["isr"]), value["leader_epoch"], ours["unclean_epoch"]
        return StateNode(
            leader=value["leader"],
            leader_epoch=leader_epoch,
            isr=isr,
            isr_epochs=tuple(ours["isr_epochs"]),
            unclean_epoch=unclean_epoch,
            controller_epoch=value["controller_epoch"],
            version=version,
            stored=Stored(version, leader_epoch, unclean_epoch, isr, Changes(*ours.get("changes", ()))),
        )

    def as_partition(
        self, replicas: tuple[int, ...], adding: tuple[int, ...] = (), removing: tuple[int, ...] = ()
    ) -> PartitionState:
        return PartitionState(
            replicas,
            self.leader,
            self.leader_epoch,
            self.isr,
            self.version,
            adding,
            removing,
            self.unclean_epoch,
        )


# /cluster/deleted_topics


def pack_deleted_topics(changes: Changes) -> bytes:
    """The changes of all partitions of topics that are no more."""
    return _pack({"format": FORMAT, "changes": list(changes)})


def unpack_deleted_topics(data: bytes) -> Changes:
    return Changes(*json.loads(data)["changes"])


# /config/*


def pack_config(config: Mapping[str, str]) -> bytes:
    return _pack({"version": 1, "config": dict(config)})


def unpack_config(data: bytes) -> dict[str, str]:
    return {str(k): str(v) for k, v in json.loads(data)["config"].items()}


# /latest_producer_id_block


def pack_producer_ids(broker_id: int, first: int, last: int) -> bytes:
    return _pack({"version": 1, "broker": broker_id, "block_start": str(first), "block_end": str(last)})


def unpack_producer_ids(data: bytes) -> tuple[int, int, int]:
    """(broker, first, last), both ends inclusive."""
    value = json.loads(data)
    return value["broker"], int(value["block_start"]), int(value["block_end"])
