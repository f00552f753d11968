"""The Supervisor: makes what Ray runs equal to what was deployed, and keeps it so.

It holds no truth. The deployed config is in the cluster's data folder (of each node, where there are several), the
actors are in Ray; a new life of the Supervisor finds both and goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from raykafka.deploy import ray_access
from raykafka.deploy.actor_reconciler import ActorReconciler, stop_actor
from raykafka.deploy.folder import ClusterFolder
from raykafka.deploy.names import BROKER, NAMESPACE, SUPERVISOR, ZOOKEEPER, actor_name, split_actor_name
from raykafka.deploy.placement import Placement, bootstrap
from raykafka.deploy.watch import NodeWatch
from raykafka.errors import ConfigError, DeployError, RaykafkaError
from raykafka.metrics.targets import targets_of, write_targets
from raykafka.process.priority import take_normal_priority

_LOOK_EVERY_S = 1.0

logger = logging.getLogger(__name__)


class SupervisorActor:
    """The one Supervisor of ``cluster``, whose nodes keep their data in ``data_dir``."""

    def __init__(self, cluster: str, data_dir: str) -> None:
        take_normal_priority()
        self._cluster = cluster
        self._folder = ClusterFolder(data_dir)
        self._reconcilers: dict[tuple[str, int], ActorReconciler] = {}
        self._opened = {ZOOKEEPER: asyncio.Event(), BROKER: asyncio.Event()}
        self._opened[ZOOKEEPER].set()
        self._nodes = NodeWatch(cluster, self._folder)
        self._known: set[tuple[str, int]] | None = None
        self._error = ""
        self._applying = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._looked = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def apply(self) -> None:
        """Read the deployed config again, now. Raises RaykafkaError when it can't be."""
        await self._apply(fresh=True)

    async def _apply(self, fresh: bool) -> None:
        async with self._applying:
            placements = await asyncio.to_thread(self._nodes.placements, fresh)
            wanted = {(placement.role, placement.actor_id): placement for placement in placements}
            await asyncio.to_thread(self._tell_prometheus, placements)
            if self._known is None or self._known != set(wanted):
                await self._retire(set(self._reconcilers) - set(wanted))
                await self._retire_strangers(wanted)
                self._known = set(wanted)
            for key, placement in wanted.items():
                if key in self._reconcilers:
                    self._reconcilers[key].want(placement)
                else:
                    opened = self._opened[placement.role]
                    self._reconcilers[key] = ActorReconciler(self._cluster, placement, opened, self._turn, self._open)
            self._open()

    async def progress(self) -> list[dict[str, Any]]:
        """Phase, error and failures of every actor; cheap."""
        await self._looked.wait()
        return [
            {
                "role": role,
                "id": actor_id,
                "phase": reconciler.phase,
                "error": reconciler.error,
                "failures": reconciler.failures,
                "pid": reconciler.state.pid if reconciler.state else 0,
            }
            for (role, actor_id), reconciler in self._reconcilers.items()
        ]

    async def stop_broker(self, broker_id: int) -> None:
        """Stop a broker in order: its leaderships move first. It stays down, over restarts of everything, until
        ``start_broker``. Raises DeployError."""
        await (await self._broker(broker_id)).ask("halt")

    async def start_broker(self, broker_id: int) -> dict[str, Any]:
        """Start a broker that ``stop_broker`` stopped; returns its status. Raises DeployError."""
        return await (await self._broker(broker_id)).ask("resume")

    async def _broker(self, broker_id: int) -> ActorReconciler:
        await self._looked.wait()
        reconciler = self._reconcilers.get((BROKER, broker_id))
        if reconciler is None:
            ids = ", ".join(str(i) for role, i in sorted(self._reconcilers) if role == BROKER)
            raise DeployError(f"Cluster {self._cluster} has no broker {broker_id}; it has {ids}.")
        return reconciler

    async def status(self, partitions: bool = False) -> dict[str, Any]:
        """The whole cluster: every actor as its reconciler, Ray and itself see it; with ``partitions`` also a row for
        each partition of each broker."""
        await self._looked.wait()
        details = {BROKER: (partitions,)}
        rows = await asyncio.gather(
            *(reconciler.status(*details.get(role, ())) for (role, _), reconciler in self._reconcilers.items())
        )
        return {
            "cluster": self._cluster,
            "data_dir": str(self._folder.path),
            "prometheus_targets": str(self._folder.metrics_targets),
            "error": self._error,
            "node_problems": list(self._nodes.problems),
            "supervisor": await asyncio.to_thread(self._own_status),
            "zookeeper": sorted((row for row in rows if row["role"] == ZOOKEEPER), key=lambda row: row["id"]),
            "brokers": sorted((row for row in rows if row["role"] == BROKER), key=lambda row: row["id"]),
        }

    async def bootstrap(self, listener: str | None = None) -> str:
        """``host:port,...`` of the deployed brokers on ``listener`` (None: the inter-broker listener)."""
        await self._looked.wait()
        if not self._reconcilers:
            raise RaykafkaError(f"Cluster {self._cluster} is not deployed.")
        found = bootstrap((reconciler.placement for reconciler in self._reconcilers.values()), listener)
        if not found:
            raise ConfigError(f"Cluster {self._cluster} has no listener {listener}.")
        return found

    async def _run(self) -> None:
        while True:
            try:
                await self._apply(fresh=False)
                self._error = ""
            except Exception as error:  # the next round reads everything again; status shows the reason meanwhile
                logger.exception("the deployed config could not be applied")
                self._error = ray_access.first_sentence(error)
            self._looked.set()
            await asyncio.sleep(_LOOK_EVERY_S)

    def _tell_prometheus(self, placements: list[Placement]) -> None:
        brokers = [placement for placement in placements if placement.role == BROKER]
        places = [(b.actor_id, b.settings["link_host"], b.settings["metrics_port"]) for b in brokers]
        write_targets(self._folder.metrics_targets, targets_of(self._cluster, places))

    def _open(self) -> None:
        """Let brokers be configured once a majority of the managed ZooKeeper servers runs (or none is managed)."""
        servers = [reconciler for (role, _), reconciler in self._reconcilers.items() if role == ZOOKEEPER]
        running = sum(reconciler.running.is_set() for reconciler in servers)
        if not self._opened[BROKER].is_set() and running >= (len(servers) + 1) // 2:
            self._opened[BROKER].set()
            for reconciler in self._reconcilers.values():
                reconciler.poke()

    async def _retire(self, keys: set[tuple[str, int]]) -> None:
        leaving = [self._reconcilers.pop(key) for key in keys]
        await asyncio.gather(*(reconciler.retire() for reconciler in leaving))

    async def _retire_strangers(self, wanted: dict[tuple[str, int], Placement]) -> None:
        """Stop actors that an earlier config asked for, and an earlier life of this Supervisor kept."""
        for name in await asyncio.to_thread(ray_access.named_actors, self._cluster):
            _, role, actor_id = split_actor_name(name)
            if role == SUPERVISOR or (role, actor_id) in wanted:
                continue
            handle = await asyncio.to_thread(ray_access.find_actor, self._cluster, role, actor_id)
            if handle is not None:
                await stop_actor(handle, name)

    def _own_status(self) -> dict[str, Any]:
        import ray

        state = ray_access.actor_state(ray.get_runtime_context().get_actor_id() or "")
        return {
            "name": actor_name(self._cluster, SUPERVISOR, 0),
            "actor_id": state.actor_id if state else "",
            "node": state.node_ip if state else "",
            "node_id": state.node_id if state else "",
            "pid": os.getpid(),
            "ray_state": state.state if state else "MISSING",
            "restarts": state.restarts if state else 0,
        }


def start_supervisor(cluster: str, data_dir: str, pinned: bool) -> Any:
    """The cluster's Supervisor actor, started on this node unless it runs already.

    ``pinned``: the cluster's data is on this node alone, so that the Supervisor has no place elsewhere.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node: dict[str, Any] = {"resources": {f"node:{ray_access.this_node_ip()}": 0.001}}
    if not pinned:
        node = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=ray_access.this_node_id(), soft=True)}
    return (
        ray.remote(SupervisorActor)
        .options(
            name=actor_name(cluster, SUPERVISOR, 0),
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            max_restarts=-1,
            max_task_retries=0,
            num_cpus=0,
            **node,
        )
        .remote(cluster, data_dir)
    )
