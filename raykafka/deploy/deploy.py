"""What `raykafka deploy` and `raykafka undeploy` do, from the first check to the last process.

Deploying the same file again changes nothing; a changed file is applied. A deploy that fails leaves things as they were
before it: what it started is ended, what ran before runs on with its old config.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from raykafka.config.cluster import ClusterConfig
from raykafka.deploy import checks, local_ray, ray_access
from raykafka.deploy.folder import ClusterFolder
from raykafka.deploy.left_behind import end_left_behind
from raykafka.deploy.names import BROKER, SUPERVISOR, ZOOKEEPER, split_actor_name
from raykafka.deploy.placement import place_zookeeper, seats_on_one_node
from raykafka.deploy.supervision import ask_supervisor
from raykafka.deploy.zookeeper_process import ZooKeeperProcess
from raykafka.errors import DeployError

READY_WITHIN_S = 120.0
_POLL_S = 0.1
_STOP_WITHIN_S = 40.0
_HOPELESS_AFTER = 3
_APPLY_WITHIN_S = 90.0

Say = Callable[[str], None]


def deploy(config: ClusterConfig, say: Say) -> dict[str, str]:
    """Bring up ``config``, or bring a running cluster to it; returns when every broker serves clients: the bootstrap
    addresses, by listener.

    ``say`` gets a short line at each step. Raises DeployError or ConfigError with one sentence; nothing is left
    half-started then.
    """
    folder = ClusterFolder(config.data_dir)
    with folder.exclusive(), ExitStack() as undo:
        checks.check_folder(config, folder)
        if config.brokers.nodes is not None:
            return _deploy_over_nodes(config, folder, undo, say)
        checks.check_zookeeper(config)
        checks.check_ports(config.ports(), folder)
        address = ray_access.running_address(config)
        if address is None:
            if not config.ray.start_local:
                raise ray_access.unreachable(config)
            local_ray.free_start_port(config)
            # All three take seconds, and none needs another: ZooKeeper's actor adopts the server later.
            with ThreadPoolExecutor() as side:
                importing = side.submit(ray_access.import_ray)
                _start_zookeeper(config, folder, undo)
                address = _start_ray(config, folder, undo, say)
                importing.result()
        else:
            say(f"Ray runs at {address}")
        ray_access.attach(address)
        undo.callback(ray_access.detach)
        _check_memory(config)
        _bring_up(config, folder, undo, say)
        return _done(config, undo)


def _deploy_over_nodes(config: ClusterConfig, folder: ClusterFolder, undo: ExitStack, say: Say) -> dict[str, str]:
    from raykafka.deploy import over_nodes
    from raykafka.deploy.supervisor import start_supervisor

    if config.zookeeper.managed is None:
        checks.check_zookeeper(config)
    address = ray_access.attach_running(config)
    say(f"Ray runs at {address}")
    undo.callback(ray_access.detach)
    plan = over_nodes.plan(config, folder, say)
    runs = ray_access.find_actor(config.cluster, SUPERVISOR, 0) is not None
    if runs and plan.record == plan.before:
        say("The cluster file is the deployed one")
    else:
        over_nodes.check(plan)
        say("Applying the changed cluster file" if runs else f"Starting cluster {config.cluster}")
    if runs and plan.before is not None:
        undo.callback(ask_supervisor, config.cluster, "apply")
    over_nodes.write(plan, undo)
    if not runs:
        undo.callback(stop_actors, config.cluster)
    start_supervisor(config.cluster, str(folder.path), pinned=False)
    ask_supervisor(config.cluster, "apply", within_s=_APPLY_WITHIN_S)
    _wait_ready(config, say)
    return _done(config, undo)


def _done(config: ClusterConfig, undo: ExitStack) -> dict[str, str]:
    """Keep what the deploy did; where clients find it."""
    names = [listener.name for listener in config.brokers.parsed_listeners]
    addresses = {name: ask_supervisor(config.cluster, "bootstrap", name) for name in names}
    undo.pop_all()
    ray_access.detach()
    return addresses


def undeploy(config: ClusterConfig, say: Say, *, delete_data: bool = False) -> None:
    """Stop every actor and process of the cluster, and the Ray that its deploy started when nobody else uses it.

    With ``delete_data`` its data folder goes too. Nothing running is no error.
    """
    folder = ClusterFolder(config.data_dir)
    with folder.exclusive():
        checks.check_folder(config, folder)
        deployed = folder.deployed() or config
        address = ray_access.running_address(deployed)
        if address is not None:
            ray_access.attach(address)
            try:
                stopped = stop_actors(config.cluster)
                say(f"Stopped {stopped} actors" if stopped else "No actor of the cluster runs")
                shared = _others_use_ray()
                if deployed.brokers.nodes is not None:
                    from raykafka.deploy import over_nodes

                    over_nodes.clean(deployed, folder, delete_data, say)
            finally:
                ray_access.detach()
            _stop_own_ray(folder, address, shared, say)
        end_left_behind(folder)
        if delete_data:
            folder.delete()
            say(f"Deleted the data in {folder.path}")


def stop_actors(cluster: str) -> int:
    """Stop the cluster's named actors, the Supervisor first, so that nothing comes back. Returns how many."""
    import ray

    by_role: dict[str, list[Any]] = {SUPERVISOR: [], BROKER: [], ZOOKEEPER: []}
    for name in ray_access.named_actors(cluster):
        _, role, actor_id = split_actor_name(name)
        handle = ray_access.find_actor(cluster, role, actor_id)
        if handle is not None:
            by_role[role].append(handle)
    for handle in by_role[SUPERVISOR]:
        ray_access.end_actor(handle)
    for role in (BROKER, ZOOKEEPER):
        stops = [handle.stop.remote() for handle in by_role[role]]
        if stops:
            ray.wait(stops, num_returns=len(stops), timeout=_STOP_WITHIN_S)
        for handle in by_role[role]:
            ray_access.end_actor(handle)
    return sum(len(handles) for handles in by_role.values())


def _start_zookeeper(config: ClusterConfig, folder: ClusterFolder, undo: ExitStack) -> None:
    undo.callback(end_left_behind, folder)
    for placement in place_zookeeper(config, folder, seats_on_one_node(config, "", "")):
        ZooKeeperProcess(**placement.settings).start()


def _start_ray(config: ClusterConfig, folder: ClusterFolder, undo: ExitStack, say: Say) -> str:
    say("Starting Ray on this machine")
    if (dead := folder.started_ray()) is not None:
        local_ray.stop(Path(dead["session"]))
    note = local_ray.start(config)
    folder.write_started_ray(note)
    undo.callback(folder.write_started_ray, None)
    undo.callback(local_ray.stop, Path(note["session"]))
    return note["address"]


def _check_memory(config: ClusterConfig) -> None:
    total_mb = int(ray_access.node_memory_bytes()) >> 20
    wanted_mb = config.brokers.count * config.brokers.memory_mb
    if wanted_mb > total_mb:
        raise DeployError(
            f"{config.brokers.count} brokers of {config.brokers.memory_mb} MB do not fit in the {total_mb} MB that Ray"
            " has on this node: lower brokers.memory_mb or brokers.count."
        )


def _bring_up(config: ClusterConfig, folder: ClusterFolder, undo: ExitStack, say: Say) -> None:
    from raykafka.deploy.supervisor import start_supervisor

    before = folder.deployed()
    runs = ray_access.find_actor(config.cluster, SUPERVISOR, 0) is not None
    if runs and before == config:
        say("The cluster file is the deployed one")
    else:
        say("Applying the changed cluster file" if runs else f"Starting cluster {config.cluster}")
    folder.secret()
    folder.write_deployed(config)
    undo.callback(folder.write_deployed, before)
    if not runs:
        undo.callback(end_left_behind, folder)
        undo.callback(stop_actors, config.cluster)
    start_supervisor(config.cluster, str(folder.path), pinned=True)
    if runs and before is not None:
        undo.callback(ask_supervisor, config.cluster, "apply")
        undo.callback(folder.write_deployed, before)
    ask_supervisor(config.cluster, "apply")
    _wait_ready(config, say)


def _wait_ready(config: ClusterConfig, say: Say) -> None:
    """Wait until every server runs, every broker serves and one of them is known as the controller."""
    deadline = time.monotonic() + READY_WITHIN_S
    missing = "the Supervisor"
    said: set[str] = set()
    while True:
        rows = ask_supervisor(config.cluster, "progress")
        _give_up_on_hopeless(rows)
        for row in rows:
            label = _label(row)
            if row["phase"] == "running" and label not in said:
                said.add(label)
                say(f"{label} {'is registered' if row['role'] == BROKER else 'runs'}")
            if row["phase"] == "away" and label not in said:
                said.add(label)
                say(f"{label} is away: {row['error']}")
        waiting = [row for row in rows if row["phase"] not in ("running", "away")]
        if rows and not waiting:
            status = ask_supervisor(config.cluster, "status")
            missing = _not_serving(status)
            if not missing:
                for row in filter(_is_halted, status["brokers"]):
                    say(f"Broker {row['id']} stays down: it was stopped with `raykafka brokers stop`")
                return
        elif waiting:
            missing = f"{_label(waiting[0])} ({waiting[0]['error'] or waiting[0]['phase']})"
        if time.monotonic() > deadline:
            raise DeployError(f"The cluster was not ready after {READY_WITHIN_S:.0f} s: still waiting for {missing}.")
        time.sleep(_POLL_S)


def _give_up_on_hopeless(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["failures"] >= _HOPELESS_AFTER:
            raise DeployError(f"{_label(row)} does not start: {row['error']}")


def _label(row: dict[str, Any]) -> str:
    return f"{'Broker' if row['role'] == BROKER else 'ZooKeeper server'} {row['id']}"


def _not_serving(status: dict[str, Any]) -> str:
    """What of a cluster whose actors all run is not there for clients yet; empty when all is."""
    for row in status["brokers"]:
        if row["phase"] == "away" or _is_halted(row):
            continue
        detail = row["detail"] or {}
        if detail.get("state") != "running":
            return f"broker {row['id']} ({row['error'] or detail.get('state', 'unknown')})"
        if detail["controller_id"] < 0:
            return f"an active controller for broker {row['id']}"
    return ""


def _is_halted(row: dict[str, Any]) -> bool:
    return (row["detail"] or {}).get("state") == "halted"


def _others_use_ray() -> bool:
    """Whether the attached Ray cluster has other actors, or other drivers, than raykafka's."""
    import ray
    from ray._private import state
    from ray.util import list_named_actors

    if any(actor["name"] for actor in list_named_actors(all_namespaces=True)):
        return True
    own_job = ray.get_runtime_context().get_job_id()
    return any(not job["IsDead"] and job["JobID"] != own_job for job in state.jobs())


def _stop_own_ray(folder: ClusterFolder, address: str, shared: bool, say: Say) -> None:
    note = folder.started_ray()
    if note is None or note["address"] != address:
        return
    if ray_access.session_folder(Path(note["temp_dir"])) != Path(note["session"]):
        return  # another Ray was started at that address since
    if shared:
        say(f"Ray at {address} goes on: others use it")
        return
    local_ray.stop(Path(note["session"]))
    folder.write_started_ray(None)
    say("Stopped the Ray that deploy had started")
