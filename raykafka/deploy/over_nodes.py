"""Deploying over several nodes of a Ray cluster: which, what each must have, and what is written on each.

Runs on any node of that cluster. The record of what is deployed, and the cluster secret, go to every node that has a
part in it: whichever is left knows the cluster.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from raykafka.config.cluster import ClusterConfig
from raykafka.deploy import nodes, ray_access
from raykafka.deploy.folder import ClusterFolder, Deployed
from raykafka.deploy.names import ZOOKEEPER
from raykafka.deploy.placement import Placement, place, seats_of_roster
from raykafka.deploy.ray_access import RayNode
from raykafka.deploy.roster import Roster, Visit, one_for_each, plan_brokers, plan_zookeepers
from raykafka.deploy.watch import has_a_part
from raykafka.errors import DeployError

NODES_WITHIN_S = 180.0
_POLL_S = 0.5
_SECRET_BYTES = 32

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a deploy is about to write, ``record`` where ``before`` was, on the nodes of ``found``; what it means."""

    folder: ClusterFolder
    before: Deployed | None
    record: Deployed
    secret: bytes
    found: Mapping[str, nodes.Found]
    placements: Sequence[Placement]


def plan(config: ClusterConfig, folder: ClusterFolder, say: Say) -> Plan:
    """Wait for the nodes, look at them, and decide who gets what. Raises DeployError."""
    living = _await_nodes(config, say)
    found = _visit_all(config, folder, living)
    latest = nodes.newest(found.values())
    before = latest.record if latest is not None else None
    roster = before.roster if before is not None and before.roster is not None else Roster()
    visits, problems = one_for_each((f.visit for f in found.values()), roster)
    if problems:
        raise DeployError(problems[0])
    _check_addresses(visits)
    roster = plan_zookeepers(config, plan_brokers(config, roster, visits), visits)
    record = before
    if before is None or before.config != config or before.roster != roster:
        record = Deployed(config, (before.generation if before is not None else 0) + 1, roster)
    assert record is not None
    secret = _secret(folder, found)
    placements = place(config, folder, seats_of_roster(roster, visits), secret)
    return Plan(folder, before, record, secret, found, placements)


def check(plan: Plan) -> None:
    """Raise DeployError, naming the node, unless every node can run what the plan puts there."""
    calls: dict[str, tuple[Any, ...]] = {}
    memory_mb = plan.record.config.brokers.memory_mb
    for node_id, found in plan.found.items():
        here = [placement for placement in plan.placements if placement.node_id == node_id]
        total_mb = int(found.visit.resources.get("memory", 0)) >> 20
        if memory_mb > total_mb and any(placement.memory_bytes for placement in here):
            raise DeployError(
                f"A broker of {memory_mb} MB does not fit in the {total_mb} MB that Ray has on node {found.visit.ip}:"
                " lower brokers.memory_mb."
            )
        ports = [port for placement in here for port in placement.ports()]
        calls[node_id] = (str(plan.folder.path), ports, any(placement.role == ZOOKEEPER for placement in here))
    _, failures = nodes.ask_nodes(nodes.check, calls)
    _raise_first(failures, plan.found)


def write(plan: Plan, undo: ExitStack) -> None:
    """Make the plan the deployed state on every node that has a part; ``undo`` puts the old one back, as newer."""
    undo.callback(_write_back, plan)
    _write_on_all(plan, plan.record)


def clean(config: ClusterConfig, folder: ClusterFolder, delete_data: bool, say: Say) -> None:
    """End what was left behind on every node, and delete the data there when asked to."""
    living = {node.node_id: node for node in ray_access.live_nodes()}
    found, failures = nodes.visit(config.cluster, str(folder.path), living.values(), lambda node: False)
    record = nodes.newest(found.values())
    _, more = nodes.ask_nodes(nodes.clean, {node_id: (str(folder.path), delete_data) for node_id in found})
    for node_id, reason in (failures | more).items():
        say(f"Node {living[node_id].ip} was not cleaned: {reason}")
    if delete_data:
        say(f"Deleted the data in {folder.path} of {len(found) - len(more)} nodes")
    if record is not None and record.record is not None and record.record.roster is not None:
        here = {node.ip for node in living.values()}
        for address in sorted(set(record.record.roster.addresses.values()) - here):
            say(f"Node {address} is away: what it holds in {folder.path} is as it was")


def _await_nodes(config: ClusterConfig, say: Say) -> list[RayNode]:
    """The nodes that may have a part, once as many as asked for are there; `ray up` returns before its workers are."""
    choice = config.brokers.nodes
    assert choice is not None
    deadline = time.monotonic() + NODES_WITHIN_S
    said = -1
    while True:
        living = [node for node in ray_access.live_nodes() if has_a_part(config, node)]
        count = len({node.ip for node in living if choice.takes(node.resources, node.labels)})
        if count >= config.brokers.count:
            say(f"{count} nodes for brokers")
            return living
        if time.monotonic() > deadline:
            raise DeployError(
                f"brokers.count asks for {config.brokers.count} nodes, and after {NODES_WITHIN_S:.0f} s the Ray cluster"
                f" has {count} for brokers: start more, or correct brokers.nodes."
            )
        if count != said:
            say(f"Waiting for nodes: {count} of {config.brokers.count} are there")
            said = count
        time.sleep(_POLL_S)


def _visit_all(config: ClusterConfig, folder: ClusterFolder, living: list[RayNode]) -> dict[str, nodes.Found]:
    found, failures = nodes.visit(config.cluster, str(folder.path), living, lambda node: True)
    if failures:
        # A node that just died is in Ray's list a while longer; it does no harm where its next life is there as well.
        reached = {f.visit.ip for f in found.values()}
        left = {node.node_id: node for node in living if node.node_id in failures and node.ip not in reached}
        for node_id, node in left.items():
            raise DeployError(f"Node {node.ip} can't be used: {failures[node_id]}")
    return found


def _check_addresses(visits: list[Visit]) -> None:
    """Raise DeployError where two nodes of the Ray cluster are one machine: their servers would want the same ports."""
    ips = sorted(visit.ip for visit in visits)
    if len(set(ips)) != len(ips):
        raise DeployError(
            f"Two nodes of the Ray cluster have the address {ips[0]}: raykafka needs one for each machine."
        )


def _secret(folder: ClusterFolder, found: Mapping[str, nodes.Found]) -> bytes:
    holders = {node_id: (str(folder.path),) for node_id, f in found.items() if f.has_secret}
    if not holders:
        return secrets.token_bytes(_SECRET_BYTES)
    answers, failures = nodes.ask_nodes(nodes.read_secret, holders)
    _raise_first(failures, found)
    if len(set(answers.values())) > 1:
        raise DeployError(
            f"Nodes hold secrets of different clusters in {folder.path}: give each cluster its own data_dir."
        )
    return next(iter(answers.values()))


def _write_on_all(plan: Plan, record: Deployed | None) -> None:
    data = record.to_json() if record is not None else None
    calls = {node_id: (str(plan.folder.path), data, plan.secret) for node_id in plan.found}
    _, failures = nodes.ask_nodes(nodes.write, calls)
    _raise_first(failures, plan.found)


def _write_back(plan: Plan) -> None:
    before = plan.before
    if before is not None:
        # The Supervisor may have planned on since: what is put back has to count as newer than that.
        latest = nodes.newest(
            nodes.visit(
                before.config.cluster,
                str(plan.folder.path),
                [RayNode(f.visit.node_id, f.visit.ip) for f in plan.found.values()],
                lambda node: True,
            )[0].values()
        )
        generation = latest.record.generation if latest is not None and latest.record is not None else 0
        before = dataclasses.replace(before, generation=max(generation, plan.record.generation) + 1)
    _write_on_all(plan, before)


def _raise_first(failures: Mapping[str, str], found: Mapping[str, nodes.Found]) -> None:
    for node_id, reason in failures.items():
        raise DeployError(f"Node {found[node_id].visit.ip}: {reason}")
