"""What `raykafka status` shows: the Supervisor's and the brokers' own words put together, and what is wrong."""

from __future__ import annotations

from typing import Any

from raykafka.config.cluster import ClusterConfig
from raykafka.deploy import ray_access
from raykafka.deploy.supervision import ask_supervisor

_SUPERVISOR_WITHIN_S = 15.0
_CHILD_STARTS_WITHIN_S = 30.0
# what ended so often, and lately, is about to end again
_MANY_RESTARTS = 3
_LATELY_S = 60.0
_NAMED = 3
_REPLICA = "replica"
_OF_REPLICA_ACTORS = ("number", "replicas", "leaders", "connections", "busy")


def cluster_status(config: ClusterConfig, *, partitions: bool = False) -> dict[str, Any]:
    """The state of the cluster as plain data. Raises DeployError when it is not deployed or Ray does not answer.

    ``actors`` holds a row for each actor: role, id (broker or server id), actor_id, node, pid, state, restarts; and of
    a replica actor (role "replica") its number in its broker, replicas, leaders, connections of clients, and busy: the
    share of a core that it used of late. ``brokers`` holds a row for each broker. ``summary`` is
    ``raykafka.cluster.summary``'s. ``partitions`` has a row for each local one by broker id, if asked for. ``problems``
    holds a sentence for each thing that is amiss.
    """
    address = ray_access.attach_running(config)
    try:
        found = ask_supervisor(config.cluster, "status", partitions, within_s=_SUPERVISOR_WITHIN_S)
    finally:
        ray_access.detach()
    return {"ray": address, **summarize(found)}


def summarize(found: dict[str, Any]) -> dict[str, Any]:
    """The Supervisor's status as ``cluster_status`` gives it. Pure."""
    actors = [_supervisor_row(found["supervisor"])]
    for row in [*found["zookeeper"], *found["brokers"]]:
        actors.append(_server_row(row))
        actors += _child_rows(row)
    return {
        "cluster": found["cluster"],
        "data_dir": found["data_dir"],
        "controller": _controller(found["brokers"]),
        "listeners": _listeners(found["brokers"]),
        "metrics": _metrics(found["brokers"]),
        "prometheus_targets": found["prometheus_targets"],
        "actors": actors,
        "brokers": [_broker_row(row, found["brokers"]) for row in found["brokers"]],
        "summary": _summary(found["brokers"]),
        "partitions": _partitions(found["brokers"]),
        "problems": _problems(found),
    }


def _supervisor_row(row: dict[str, Any]) -> dict[str, Any]:
    return _row("supervisor", 0, row, "running" if row["ray_state"] == "ALIVE" else row["ray_state"].lower())


def _server_row(row: dict[str, Any]) -> dict[str, Any]:
    detail = row["detail"] or {}
    state = detail.get("state") if row["phase"] == "running" else row["phase"]
    return _row(row["role"], row["id"], row, state or "silent")


def _row(role: str, actor_id: int, row: dict[str, Any], state: str) -> dict[str, Any]:
    return {
        "role": role,
        "id": actor_id,
        "actor_id": row["actor_id"],
        "node": row["node"],
        "pid": row["pid"],
        "state": state,
        "restarts": row["restarts"],
        **{what: row.get(what) if role == _REPLICA else None for what in _OF_REPLICA_ACTORS},
    }


def _child_rows(broker: dict[str, Any]) -> list[dict[str, Any]]:
    """The replica actors by their numbers, those that have none yet, then the others. Nobody is restarted in a replica
    actor's place."""
    detail = broker["detail"] or {}
    actors = detail.get("replica_actors", [])
    known, restarts = {actor["pid"] for actor in actors}, detail.get("restarts", {})
    rows = [
        _row(_REPLICA, broker["id"], {**actor, "node": broker["node"], "restarts": None}, "running") for actor in actors
    ]
    for child in sorted(detail.get("children", []), key=lambda child: child["role"] != _REPLICA):
        if child["role"] != _REPLICA or child["pid"] not in known:
            times = None if child["role"] == _REPLICA else restarts.get(child["role"])
            state = "running" if child["state"] == "connected" else child["state"]
            rows.append(_row(child["role"], broker["id"], {**child, "node": broker["node"], "restarts": times}, state))
    return rows


def _newest(brokers: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What the broker says of itself that has heard of the newest controller."""
    known = [detail for row in brokers if (detail := row["detail"]) and detail.get("controller_id", -1) >= 0]
    return max(known, key=lambda detail: detail["controller_epoch"]) if known else None


def _controller(brokers: list[dict[str, Any]]) -> int | None:
    """The active controller in the eyes of the broker that has heard of the newest one."""
    newest = _newest(brokers)
    return newest["controller_id"] if newest else None


def _summary(brokers: list[dict[str, Any]]) -> dict[str, Any] | None:
    newest = _newest(brokers)
    return newest.get("summary") if newest else None


def _broker_row(row: dict[str, Any], brokers: list[dict[str, Any]]) -> dict[str, Any]:
    detail = row["detail"] or {}
    held = (_summary(brokers) or {}).get("brokers", {}).get(str(row["id"]), {})
    return {
        "id": row["id"],
        "state": _server_row(row)["state"],
        "node": row["node"],
        "pid": row["pid"],
        "is_controller": row["id"] == _controller(brokers),
        "listeners": {at["name"]: f"{at['host']}:{at['port']}" for at in detail.get("listeners", [])},
        "data_dir": detail.get("data_dir"),
        "broker_epoch": detail.get("broker_epoch"),
        "age_s": detail.get("age_s"),
        "leaders": held.get("leaders"),
        "replicas": held.get("replicas"),
        "replica_actors": len(detail["replica_actors"]) if "replica_actors" in detail else None,
        "restarts": row["restarts"],
        "child_restarts": detail.get("restarts", {}),
        "troubled": detail.get("troubled", []),
    }


def _listeners(brokers: list[dict[str, Any]]) -> dict[str, str]:
    addresses: dict[str, list[str]] = {}
    for row in brokers:
        for listener in (row["detail"] or {}).get("listeners", []):
            addresses.setdefault(listener["name"], []).append(f"{listener['host']}:{listener['port']}")
    return {name: ",".join(found) for name, found in addresses.items()}


def _metrics(brokers: list[dict[str, Any]]) -> list[str]:
    """Where Prometheus reads the brokers."""
    places = [(row["detail"] or {}).get("metrics") for row in brokers]
    return [f"http://{place['host']}:{place['port']}/metrics" for place in places if place]


def _partitions(brokers: list[dict[str, Any]]) -> dict[str, Any]:
    return {str(row["id"]): (row["detail"] or {}).get("partitions") for row in brokers}


def _problems(found: dict[str, Any]) -> list[str]:
    problems = [f"The Supervisor cannot apply the deployed config: {found['error']}"] if found["error"] else []
    problems += found.get("node_problems", [])
    for row in found["zookeeper"]:
        problems += _server_problems(f"ZooKeeper server {row['id']}", row)
    for row in found["brokers"]:
        problems += _server_problems(f"Broker {row['id']}", row)
        detail = row["detail"]
        if detail and detail["state"] == "running":
            if not detail["holds_lease"]:
                problems.append(
                    f"Broker {row['id']} has had no answer from ZooKeeper for {detail['lease_age_s']:.0f} s."
                )
            for role in ("coordinator", "controller"):
                if not any(child["role"] == role and _is_well(child) for child in detail["children"]):
                    problems.append(f"Broker {row['id']} has no {role}.")
            if not detail["replica_actors"] and detail["age_s"] >= _CHILD_STARTS_WITHIN_S:
                problems.append(f"Broker {row['id']} has no replica actor.")
            problems += _crash_loops(row, detail)
    if found["brokers"] and _controller(found["brokers"]) is None:
        problems.append("No broker knows an active controller.")
    return problems + _partition_problems(_summary(found["brokers"]) or {})


def _crash_loops(row: dict[str, Any], detail: dict[str, Any]) -> list[str]:
    """What keeps ending in a broker that runs now."""
    label, problems = f"Broker {row['id']}", []
    if row["restarts"] >= _MANY_RESTARTS and detail["age_s"] < _LATELY_S:
        problems.append(f"{label} has been restarted {row['restarts']} times, last {detail['age_s']:.0f} s ago.")
    for role, times in sorted(detail["restarts"].items()):
        ages = [child["age_s"] for child in detail["children"] if child["role"] == role]
        if times >= _MANY_RESTARTS and min(ages, default=0.0) < _LATELY_S:
            what = "replica actors have" if role == _REPLICA else f"{role} has"
            problems.append(f"{label}: its {what} ended {times} times.")
    for replica in detail["troubled"]:
        if replica["restarts"] >= _MANY_RESTARTS and replica["since_restart_s"] < _LATELY_S:
            name = f"{replica['topic']}-{replica['partition']}"
            problems.append(f"{label}: the replica of {name} has failed {replica['restarts']} times.")
    return problems


_AMISS = {
    "offline": "without a leader",
    "under_min_isr": "with fewer in-sync replicas than min.insync.replicas: acks=all is refused",
    "under_replicated": "under-replicated",
}


def _partition_problems(summary: dict[str, Any]) -> list[str]:
    problems = []
    for kind, words in _AMISS.items():
        rows = summary.get(kind, [])
        if rows:
            names = ", ".join(f"{row['topic']}-{row['partition']}" for row in rows[:_NAMED])
            more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
            count = "1 partition is" if len(rows) == 1 else f"{len(rows)} partitions are"
            problems.append(f"{count} {words}: {names}{more}.")
    return problems


def _is_well(child: dict[str, Any]) -> bool:
    return child["state"] == "connected" or child["age_s"] < _CHILD_STARTS_WITHIN_S


def _server_problems(label: str, row: dict[str, Any]) -> list[str]:
    if row["phase"] != "running":
        return [f"{label} is {row['phase']}: {row['error']}" if row["error"] else f"{label} is {row['phase']}."]
    if row["detail"] is None:
        return [f"{label} does not answer: {row['error'] or row['ray_state'].lower()}"]
    if row["detail"]["state"] == "halted":
        return [f"{label} was stopped with `raykafka brokers stop`; `raykafka brokers start {row['id']}` starts it."]
    if row["detail"]["state"] != "running":
        return [f"{label} is {row['detail']['state']}." + (f" {row['detail'].get('error', '')}".rstrip())]
    return []
