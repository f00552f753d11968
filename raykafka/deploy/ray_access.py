"""Attaching this process to a Ray cluster, and what raykafka asks of Ray: its actors' states, its nodes.

Ray is imported late and quietly: a deploy's terminal shows raykafka's sentences, Ray's logs stay in its session folder.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raykafka.config.cluster import ClusterConfig
from raykafka.deploy.names import NAMESPACE, actor_name
from raykafka.errors import DeployError

QUIET_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
}
_CONNECT_TIMEOUT_S = 3.0
_HTTP2_SETTINGS = 4
_HTTP2_FRAME_HEAD_BYTES = 9
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, _HTTP2_SETTINGS, 0, 0, 0, 0, 0))


@dataclass(frozen=True, slots=True)
class ActorState:
    """What Ray knows of one actor. ``state`` is Ray's word: ALIVE, RESTARTING, PENDING_CREATION, DEAD..."""

    actor_id: str
    state: str
    pid: int
    node_id: str
    node_ip: str
    restarts: int
    death_cause: str


@dataclass(frozen=True, slots=True)
class RayNode:
    """A node of a Ray cluster; ``node_id`` is that of this life of it."""

    node_id: str
    ip: str
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def listens(address: str) -> bool:
    """Whether something takes connections at ``host:port``."""
    try:
        _connect(address).close()
    except OSError:
        return False
    return True


def answers(address: str) -> bool:
    """Whether something that may be a Ray cluster answers at ``host:port``: a gRPC server, which begins with settings.

    Ray itself would wait for minutes on a server of another kind.
    """
    if os.environ.get("RAY_USE_TLS", "0") not in ("0", ""):
        return listens(address)
    try:
        with _connect(address) as connection:
            connection.sendall(_HTTP2_HELLO)
            head = connection.recv(_HTTP2_FRAME_HEAD_BYTES, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(head) == _HTTP2_FRAME_HEAD_BYTES and head[3] == _HTTP2_SETTINGS


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S)


def running_address(config: ClusterConfig) -> str | None:
    """The address of the Ray cluster that ``config`` means, if one answers there."""
    if config.ray.address != "auto":
        return config.ray.address if answers(config.ray.address) else None
    asked = os.environ.get("RAY_ADDRESS")
    if asked and asked != "auto":
        if not answers(asked):
            raise DeployError(
                f"RAY_ADDRESS is {asked}, and no Ray cluster answers there: start it or unset RAY_ADDRESS."
            )
        return asked
    try:
        found = (config.ray.temp_dir / "ray_current_cluster").read_text().strip()
    except OSError:
        return None
    return found if found and answers(found) else None


def import_ray() -> None:
    """Import Ray, set to keep its voice down. It takes half a second."""
    os.environ.update(QUIET_ENVIRONMENT)
    importlib.import_module("ray")
    logging.getLogger("ray").setLevel(logging.CRITICAL)


def attach(address: str) -> None:
    """Make this process a driver of the Ray cluster at ``address``. Raises DeployError when that can't be.

    A token of Ray's (``~/.ray/auth_token``) is shown where it exists; RAY_AUTH_MODE, where set, decides alone.
    """
    import_ray()
    import ray
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    if ray.is_initialized():
        return
    try:
        # Ray itself uses a token file that exists only where it found the cluster by itself, not for a given address.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise DeployError(f"The Ray cluster at {address} cannot be used: {first_sentence(error)}") from None


def detach() -> None:
    """End this process's session with Ray; the cluster and detached actors go on."""
    import ray

    ray.shutdown()


def attach_running(config: ClusterConfig) -> str:
    """Attach to the Ray cluster of ``config`` and return its address. Raises DeployError when none answers."""
    address = running_address(config)
    if address is None:
        raise unreachable(config)
    attach(address)
    return address


def unreachable(config: ClusterConfig) -> DeployError:
    """The error of a command that finds no Ray cluster."""
    where = f"at {config.ray.address}" if config.ray.address != "auto" else "on this machine"
    return DeployError(
        f"No Ray cluster answers {where}: start one (ray start --head), correct ray.address in the cluster file,"
        " or set ray.start_local: true."
    )


def find_actor(cluster: str, role: str, actor_id: int) -> Any | None:
    """A handle on one of raykafka's named actors, or None when Ray has none of that name."""
    import ray

    try:
        return ray.get_actor(actor_name(cluster, role, actor_id), namespace=NAMESPACE)
    except ValueError:
        return None


def named_actors(cluster: str) -> list[str]:
    """The names of the cluster's living named actors."""
    from ray.util import list_named_actors

    found = list_named_actors(all_namespaces=True)
    return [a["name"] for a in found if a["namespace"] == NAMESPACE and a["name"].startswith(f"{cluster}/")]


def actor_state(actor_id: str) -> ActorState | None:
    """What Ray's GCS says of the actor; None when it has forgotten it. One small blocking call."""
    from ray._private import state

    row = state.actors(actor_id)
    if not row:
        return None
    context = row["DeathCause"].actor_died_error_context if row["State"] == "DEAD" else None
    return ActorState(
        actor_id=row["ActorID"],
        state=row["State"],
        pid=row["Pid"],
        node_id=row["Address"]["NodeID"],
        node_ip=row["Address"]["IPAddress"],
        restarts=row["NumRestarts"],
        death_cause=context.error_message if context is not None else "",
    )


def live_nodes() -> list[RayNode]:
    """The nodes of the attached Ray cluster that are alive."""
    import ray

    return [
        RayNode(node["NodeID"], node["NodeManagerAddress"], node["Resources"], node.get("Labels") or {})
        for node in ray.nodes()
        if node["Alive"]
    ]


def this_node_ip() -> str:
    """The address by which Ray knows the node that this process runs on."""
    import ray

    return ray.util.get_node_ip_address()


def this_node_id() -> str:
    """Ray's id of the node that this process runs on."""
    import ray

    return ray.get_runtime_context().get_node_id()


def node_memory_bytes() -> float:
    """What Ray's scheduler may set aside on the node of this process."""
    import ray

    ip = this_node_ip()
    return sum(node["Resources"].get("memory", 0.0) for node in ray.nodes() if node["NodeManagerAddress"] == ip)


def end_actor(handle: Any) -> None:
    """Kill an actor for good."""
    import ray

    with suppress(ray.exceptions.RayError, ValueError):
        ray.kill(handle, no_restart=True)


def first_sentence(error: BaseException) -> str:
    """The line of ``error`` that says most, without tracebacks and with an end."""
    error = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines and lines[0].startswith(("Traceback", "\x1b[36mray::", "ray::")) else (lines or [""])[0]
    _, _, tail = text.rpartition("Error: ")
    text = tail or text or type(error).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."


def session_folder(temp_dir: Path) -> Path | None:
    """The folder of the newest Ray session under ``temp_dir``."""
    link = temp_dir / "session_latest"
    return link.resolve() if link.exists() else None
