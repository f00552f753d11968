"""The Supervisor's view of the nodes: which are there, what was deployed, and so which server belongs where."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable

from raykafka.config.cluster import ClusterConfig
from raykafka.deploy import nodes, ray_access
from raykafka.deploy.cores import usable_cores
from raykafka.deploy.folder import ClusterFolder, Deployed
from raykafka.deploy.placement import Placement, place, seats_of_roster, seats_on_one_node
from raykafka.deploy.ray_access import RayNode
from raykafka.deploy.roster import Roster, one_for_each, plan_brokers
from raykafka.errors import DeployError

_VISIT_WITHIN_S = 20.0
_VISIT_AGAIN_S = 5.0

logger = logging.getLogger(__name__)


def has_a_part(config: ClusterConfig, node: RayNode) -> bool:
    """Whether the node may have a broker or a ZooKeeper server of this cluster."""
    managed = config.zookeeper.managed
    choices = [config.brokers.nodes, managed.nodes if managed is not None else None]
    return any(choice is not None and choice.takes(node.resources, node.labels) for choice in choices)


class NodeWatch:
    """Visits each node once in each of its lives. Everything here blocks; one caller at a time."""

    def __init__(self, cluster: str, folder: ClusterFolder) -> None:
        self._cluster = cluster
        self._folder = folder
        self._found: dict[str, nodes.Found] = {}
        self._again_at: dict[str, float] = {}
        self._record: Deployed | None = None
        self.problems: list[str] = []

    def placements(self, fresh: bool) -> list[Placement]:
        """What is to run where, now. With ``fresh`` every node is asked anew what was deployed."""
        own = self._folder.record()
        if own is not None and own.roster is None:
            node_id, ip = ray_access.this_node_id(), ray_access.this_node_ip()
            seats = seats_on_one_node(own.config, node_id, ip, usable_cores())
            return place(own.config, self._folder, seats, self._folder.secret())
        if fresh:
            self._found.clear()
            self._again_at.clear()
            self._record = None
        self._look()
        record = self._record
        if record is None:
            return []
        before = record.roster or Roster()
        visits, problems = one_for_each((found.visit for found in self._found.values()), before)
        self.problems += problems
        roster = plan_brokers(record.config, before, visits)
        if roster != record.roster:
            record = dataclasses.replace(record, roster=roster, generation=record.generation + 1)
        secret = self._secret()
        self._spread(record, secret)
        self._record = record
        visits = [visit for visit in visits if visit.node_id in self._found]
        return place(record.config, self._folder, seats_of_roster(roster, visits), secret)

    def _look(self) -> None:
        alive = {node.node_id: node for node in ray_access.live_nodes()}
        self._found = {node_id: found for node_id, found in self._found.items() if node_id in alive}
        self._again_at = {node_id: at for node_id, at in self._again_at.items() if node_id in alive}
        self.problems = []
        self._visit(node for node in alive.values() if node.node_id not in self._found)
        latest = nodes.newest(self._found.values())
        found = latest.record if latest is not None else None
        if found is not None and (self._record is None or found.generation > self._record.generation):
            self._record = found
        if self._record is not None:  # only now is it known who has a part: those get a data folder with a name
            config = self._record.config
            self._visit(
                node
                for i, node in alive.items()
                if i in self._found and self._lacks_mark(i) and has_a_part(config, node)
            )

    def _visit(self, candidates: Iterable[RayNode]) -> None:
        now = time.monotonic()
        due = [node for node in candidates if self._again_at.get(node.node_id, 0.0) <= now]
        if not due:
            return
        config = self._record.config if self._record is not None else None
        found, failures = nodes.visit(
            self._cluster,
            str(self._folder.path),
            due,
            lambda node: config is not None and has_a_part(config, node),
            _VISIT_WITHIN_S,
        )
        self._found |= found
        for node in due:
            if node.node_id in failures:
                self._fail(node.node_id, node.ip, failures[node.node_id])

    def _spread(self, record: Deployed, secret: bytes) -> None:
        """Have the record on every node that has a part: whichever is left knows it."""
        stale = {
            node_id: (str(self._folder.path), record.to_json(), secret)
            for node_id, found in self._found.items()
            if found.visit.mark and (found.record != record or not found.has_secret)
        }
        written, failures = nodes.ask_nodes(nodes.write, stale, _VISIT_WITHIN_S)
        for node_id in written:
            self._found[node_id] = dataclasses.replace(self._found[node_id], record=record, has_secret=True)
        for node_id, reason in failures.items():
            self._fail(node_id, self._found.pop(node_id).visit.ip, reason)

    def _secret(self) -> bytes:
        if self._folder.has_secret():
            return self._folder.secret()
        holders = {node_id: (str(self._folder.path),) for node_id, found in self._found.items() if found.has_secret}
        secrets, failures = nodes.ask_nodes(nodes.read_secret, holders, _VISIT_WITHIN_S)
        if not secrets:
            raise DeployError(
                f"No node has the secret of the cluster: {next(iter(failures.values()), 'none was seen.')}"
            )
        return next(iter(secrets.values()))

    def _lacks_mark(self, node_id: str) -> bool:
        return not self._found[node_id].visit.mark

    def _fail(self, node_id: str, ip: str, reason: str) -> None:
        logger.warning("node %s: %s", ip, reason)
        self.problems.append(f"Node {ip} can't be used: {reason}")
        self._again_at[node_id] = time.monotonic() + _VISIT_AGAIN_S
