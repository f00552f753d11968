"""What raykafka's actors are called in Ray: ``<cluster>/<role>/<id>`` in namespace ``raykafka`` (rule 26)."""

from __future__ import annotations

NAMESPACE = "raykafka"
SUPERVISOR = "supervisor"
ZOOKEEPER = "zookeeper"
BROKER = "broker"


def actor_name(cluster: str, role: str, actor_id: int) -> str:
    """The name of an actor; the Supervisor's id is 0."""
    return f"{cluster}/{role}/{actor_id}"


def split_actor_name(name: str) -> tuple[str, str, int]:
    """The inverse of ``actor_name``; a cluster's name holds no slash."""
    cluster, role, actor_id = name.split("/")
    return cluster, role, int(actor_id)
