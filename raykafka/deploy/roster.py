"""Which broker and which ZooKeeper server has its data on which node. Pure: what was, and what nodes show, in.

A broker id belongs to a data folder, and so to the node that has it: a node that comes back, under another Ray id or
another address, is known by the mark in its data folder, and gets its broker again (rule 26). An id whose node is away
stays that node's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raykafka.config.cluster import ClusterConfig
from raykafka.errors import DeployError


@dataclass(frozen=True, slots=True)
class Visit:
    """What a visit to a node showed: Ray's id of it, its address, the server ids whose data its data folder holds, and
    how many cores a process may use there. ``mark`` names that folder, "" where there is none."""

    node_id: str
    ip: str
    mark: str
    brokers: tuple[int, ...] = ()
    zookeepers: tuple[int, ...] = ()
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    cores: int = 1

    @property
    def order(self) -> tuple[bool, int, str]:
        """Nodes are taken in the order of their addresses."""
        try:
            return False, int(ipaddress.ip_address(self.ip)), self.ip
        except ValueError:
            return True, 0, self.ip


@dataclass(frozen=True, slots=True)
class Roster:
    """Broker ids and ZooKeeper server ids, each with the mark of its node; and the address of each node when it was
    last seen."""

    brokers: Mapping[int, str] = field(default_factory=dict)
    zookeepers: Mapping[int, str] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data, as it stands in the record of what is deployed."""
        return {
            "brokers": {str(key): mark for key, mark in self.brokers.items()},
            "zookeepers": {str(key): mark for key, mark in self.zookeepers.items()},
            "addresses": dict(self.addresses),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Roster:
        """The inverse of ``to_json``."""
        return Roster(
            {int(key): mark for key, mark in data["brokers"].items()},
            {int(key): mark for key, mark in data["zookeepers"].items()},
            dict(data["addresses"]),
        )


def chosen(config: ClusterConfig, visits: Iterable[Visit]) -> list[Visit]:
    """The nodes that are to have a broker, in order."""
    choice = config.brokers.nodes
    assert choice is not None
    return sorted((v for v in visits if choice.takes(v.resources, v.labels)), key=lambda v: v.order)


def plan_brokers(config: ClusterConfig, before: Roster, visits: Iterable[Visit]) -> Roster:
    """``before`` with a broker for each chosen node that has none, and none for a present node that is not chosen.

    A node without one gets the broker whose data it holds, if nobody else has that one, else the least new id.
    """
    visits = list(visits)
    wanted = chosen(config, visits)
    present = {visit.mark for visit in visits}
    keep = {visit.mark for visit in wanted}
    brokers = {i: mark for i, mark in before.brokers.items() if mark in keep or mark not in present}
    on_disk = {broker_id for visit in visits for broker_id in visit.brokers}
    for visit in wanted:
        if visit.mark in brokers.values():
            continue
        own = [broker_id for broker_id in visit.brokers if broker_id not in brokers]
        broker_id = own[0] if own else _least_free(set(brokers) | set(before.brokers) | on_disk)
        brokers[broker_id] = visit.mark
    return Roster(dict(sorted(brokers.items())), before.zookeepers, _addresses(before, brokers, visits))


def plan_zookeepers(config: ClusterConfig, before: Roster, visits: Iterable[Visit]) -> Roster:
    """``before`` with a node of its own for each managed ZooKeeper server.

    Servers stay where they are; their number can't change, since an ensemble that forgets loses what it acknowledged.
    Raises DeployError when it would, or when there are too few nodes.
    """
    managed = config.zookeeper.managed
    visits = list(visits)
    if managed is None:
        return Roster(before.brokers, {}, _addresses(before, before.brokers, visits))
    ids = range(1, managed.servers + 1)
    servers = dict(before.zookeepers)
    if servers:
        if set(servers) != set(ids):
            raise DeployError(
                f"The cluster has {len(servers)} ZooKeeper servers, and their number can't be changed to"
                f" {managed.servers}: set zookeeper.managed.servers back."
            )
    else:
        choice = managed.nodes or config.brokers.nodes
        assert choice is not None
        free = sorted((v for v in visits if choice.takes(v.resources, v.labels)), key=lambda v: v.order)
        if len(free) < managed.servers:
            raise DeployError(
                f"{managed.servers} ZooKeeper servers need {managed.servers} nodes, and there are {len(free)}:"
                " start more nodes, or lower zookeeper.managed.servers."
            )
        for server_id in ids:  # data that is there already decides
            owner = next((visit for visit in free if server_id in visit.zookeepers), None)
            if owner is not None:
                servers[server_id] = owner.mark
                free.remove(owner)
        for server_id in ids:
            if server_id not in servers:
                servers[server_id] = free.pop(0).mark
    return Roster(before.brokers, dict(sorted(servers.items())), _addresses(before, before.brokers, visits, servers))


def one_for_each(visits: Iterable[Visit], before: Roster) -> tuple[list[Visit], list[str]]:
    """One visit for each data folder, and a sentence for each that two nodes claim.

    A node that began anew is in Ray's list twice for a while, with one address: the later visit is its life. Where two
    nodes at two addresses have the same mark, one is a copy, and the one that is known stays in its place.
    """
    found: dict[str, Visit] = {}
    problems = []
    for visit in visits:
        if not visit.mark:
            continue
        other = found.get(visit.mark)
        if other is not None and other.ip != visit.ip:
            stays, goes = (other, visit) if before.addresses.get(visit.mark) != visit.ip else (visit, other)
            problems.append(
                f"The nodes {stays.ip} and {goes.ip} have data folders of one mark, and {goes.ip} is left out:"
                " stop one, or delete the file `mark` in the data folder of the one that is a copy."
            )
            visit = stays
        found[visit.mark] = visit
    return list(found.values()), problems


def _addresses(
    before: Roster, brokers: Mapping[int, str], visits: Iterable[Visit], zookeepers: Mapping[int, str] | None = None
) -> dict[str, str]:
    """Where each node that has something was last seen."""
    now = {visit.mark: visit.ip for visit in visits}
    servers = before.zookeepers if zookeepers is None else zookeepers
    marks = sorted({*brokers.values(), *servers.values()})
    return {mark: now.get(mark) or before.addresses[mark] for mark in marks}


def _least_free(taken: set[int]) -> int:
    return next(broker_id for broker_id in range(len(taken) + 1) if broker_id not in taken)
