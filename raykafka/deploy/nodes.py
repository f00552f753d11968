"""What deploy and the Supervisor do on other nodes: short Ray tasks, each pinned to the node that it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raykafka.deploy import checks
from raykafka.deploy.cores import usable_cores
from raykafka.deploy.folder import ClusterFolder, Deployed
from raykafka.deploy.left_behind import end_left_behind
from raykafka.deploy.names import BROKER, ZOOKEEPER
from raykafka.deploy.ray_access import RayNode, first_sentence
from raykafka.deploy.roster import Visit
from raykafka.errors import DeployError, RaykafkaError

ANSWER_WITHIN_S = 40.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a visit found: the node, and what was last deployed there (None: nothing)."""

    visit: Visit
    record: Deployed | None
    has_secret: bool


def ask_nodes(
    function: Callable[..., Any], calls: Mapping[str, Sequence[Any]], within_s: float = ANSWER_WITHIN_S
) -> tuple[dict[str, Any], dict[str, str]]:
    """Run ``function`` on each node of ``calls`` (Ray's node id: arguments), all at once.

    Returns the results, and for nodes without one a sentence that says why. Blocks.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(function)
    running = {}
    for node_id, arguments in calls.items():
        pinned = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
        running[node_id] = task.options(num_cpus=0, max_retries=0, scheduling_strategy=pinned).remote(*arguments)
    answers: dict[str, Any] = {}
    failures: dict[str, str] = {}
    if not running:
        return answers, failures
    done, _ = ray.wait(list(running.values()), num_returns=len(running), timeout=within_s)
    for node_id, result in running.items():
        if result not in done:
            ray.cancel(result, force=True)
            failures[node_id] = f"it gave no answer for {within_s:.0f} s."
            continue
        try:
            answers[node_id] = ray.get(result)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            failures[node_id] = str(cause) if isinstance(cause, RaykafkaError) else first_sentence(error)
    return answers, failures


def visit(
    cluster: str,
    data_dir: str,
    nodes: Iterable[RayNode],
    marked: Callable[[RayNode], bool],
    within_s: float = ANSWER_WITHIN_S,
) -> tuple[dict[str, Found], dict[str, str]]:
    """Look at the data folder of each node; those for which ``marked`` is true have theirs made, and named.

    Returns what was found by node id, and why other nodes were not seen. Blocks.
    """
    by_id = {node.node_id: node for node in nodes}
    answers, failures = ask_nodes(_look, {i: (cluster, data_dir, marked(node)) for i, node in by_id.items()}, within_s)
    found = {}
    for node_id, seen in answers.items():
        node = by_id[node_id]
        record = seen["record"]
        found[node_id] = Found(
            Visit(
                node_id,
                node.ip,
                seen["mark"],
                seen["brokers"],
                seen["zookeepers"],
                node.resources,
                node.labels,
                seen["cores"],
            ),
            Deployed.from_json(record, f"cluster.json of {node.ip}") if record is not None else None,
            seen["has_secret"],
        )
    return found, failures


def newest(found: Iterable[Found]) -> Found | None:
    """Of all that has a record, the one with the highest generation."""
    return max(
        (f for f in found if f.record is not None),
        key=lambda f: f.record.generation if f.record is not None else 0,
        default=None,
    )


def _look(cluster: str, data_dir: str, make: bool) -> dict[str, Any]:
    folder = ClusterFolder(data_dir)
    if make:
        folder.make()
    record = folder.record()
    if record is not None:
        checks.check_cluster(cluster, folder, record.config)
    return {
        "mark": folder.mark(make),
        "brokers": folder.server_ids(BROKER),
        "zookeepers": folder.server_ids(ZOOKEEPER),
        "record": record.to_json() if record is not None else None,
        "has_secret": folder.has_secret(),
        "cores": usable_cores(),
    }


def write(data_dir: str, record: dict[str, Any] | None, secret: bytes) -> None:
    """Make ``record`` the deployed one here, and ``secret`` the secret; None forgets what was deployed. On the node.

    Raises DeployError when the folder has another secret, or a newer record.
    """
    folder = ClusterFolder(data_dir)
    folder.make()
    with folder.changing():
        if not folder.has_secret():
            folder.write_secret(secret)
        elif folder.secret() != secret:
            raise DeployError(
                f"{folder.path} has the secret of another cluster: move it away, or choose another data_dir."
            )
        if record is None:
            folder.write_record(None)
            return
        wanted, held = Deployed.from_json(record, "the deployed cluster"), folder.record()
        if held is not None and held.generation > wanted.generation:
            raise DeployError("another deploy has changed the cluster meanwhile: run this one again.")
        if held != wanted:
            folder.write_record(wanted)


def read_secret(data_dir: str) -> bytes:
    """On the node."""
    return ClusterFolder(data_dir).secret()


def check(data_dir: str, ports: Sequence[tuple[str, int, str]], zookeeper: bool) -> None:
    """What must hold on a node before servers are started there. Raises DeployError. On the node."""
    if zookeeper:
        checks.check_java_and_jar()
    checks.check_ports(ports, ClusterFolder(data_dir))


def clean(data_dir: str, delete_data: bool) -> None:
    """End what outlived its actors, and delete the data when asked to. On the node."""
    folder = ClusterFolder(data_dir)
    if folder.path.exists():
        end_left_behind(folder)
        if delete_data:
            folder.delete()
