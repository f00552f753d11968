"""What a broker tells of itself, to people and to Prometheus, from its image, its partitions and its replica actors."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from raykafka.broker.configs import Configs
from raykafka.broker.life import BrokerState
from raykafka.broker.status import ActorRow, status_of
from raykafka.cluster.image import BrokerInfo, ClusterImage, Endpoint, ImageDelta, PartitionState, Topic
from raykafka.metrics import catalogue
from raykafka.metrics.broker_families import add_broker
from raykafka.metrics.families import Families
from raykafka.telemetry.durations import FETCH, RequestDurations
from raykafka.telemetry.traffic import Traffic
from raykafka.types import TopicPartition

ENDPOINTS = (Endpoint("INSIDE", "in", 1), Endpoint("OUTSIDE", "out", 2))
ACTORS = [
    ActorRow(0, 71, "a", 12, 5, {"INSIDE": 3, "OUTSIDE": 30}, 0.25, 60.5),
    ActorRow(4, 72, "b", 1, 0, {"OUTSIDE": 5}, 0.5, 1.0),
]


def child(role: str, pid: int) -> Any:
    return SimpleNamespace(role=role, pid=pid, actor_id=f"actor-{pid}", is_connected=True, started_at=0.0)


class Partitions(list[Any]):
    replica_restarts = 9

    def status(self) -> list[dict[str, Any]]:
        return [host.describe() for host in self]


def partition(topic: str, *, failed: int = 0) -> Any:
    """One that broker 0 leads, alone in sync of two."""
    tp = TopicPartition(topic, 0)
    return SimpleNamespace(
        tp=tp,
        state=PartitionState((0, 1), 0, 4, (0,), 0),
        is_leader=True,
        actor=0,
        ends=(),
        follower_progress={},
        failures=SimpleNamespace(count=failed),
        describe=lambda: {"topic": topic, "restarts": failed},
    )


def broker() -> Any:
    info = BrokerInfo(0, 7, ENDPOINTS, "127.0.0.1", 9, "d", "b", False)
    configs = {"strict": {"min.insync.replicas": "2"}, "lax": {}, "single": {"min.insync.replicas": "1"}}
    topics = {
        name: Topic(name, uuid.uuid4(), {0: PartitionState((0, 1), 0, 4, (0,), 0)}, config)
        for name, config in configs.items()
    }
    traffic = Traffic()
    traffic["strict"].sent(10, 1)
    traffic["deleted"].sent(10, 1)
    durations = RequestDurations()
    durations.answered(FETCH, 1000)
    lease = SimpleNamespace(age_s=lambda now: 0.5)
    return SimpleNamespace(
        broker_id=0,
        started_at=0.0,
        state=BrokerState.RUNNING,
        registration=info,
        image=ClusterImage("c").apply(ImageDelta(brokers={0: info}, topics=topics)),
        data_dir=Path("/data"),
        configs=Configs(0, {"min.insync.replicas": "2"}),
        session=SimpleNamespace(state="connected", lease=lease),
        holds_lease=lambda: True,
        listeners=[SimpleNamespace(name=endpoint.listener) for endpoint in ENDPOINTS],
        ports=SimpleNamespace(link_port=9, metrics=None),
        children=SimpleNamespace(
            restarts={"replica": 3, "coordinator": 1, "controller": 0},
            living=lambda: [child("replica", 71), child("replica", 72), child("controller", 73)],
        ),
        replica_actors=SimpleNamespace(rows=lambda: ACTORS),
        partitions=Partitions([partition("strict"), partition("lax", failed=2), partition("single")]),
        traffic=traffic,
        durations=durations,
    )


def test_status_has_each_replica_actor_and_counts_connections_over_all_of_them() -> None:
    told = status_of(broker(), partitions=False)
    assert told["replica_actors"] == [
        {
            "number": 0,
            "pid": 71,
            "actor_id": "a",
            "replicas": 12,
            "leaders": 5,
            "connections": 33,
            "busy": 0.25,
            "age_s": 60.5,
        },
        {
            "number": 4,
            "pid": 72,
            "actor_id": "b",
            "replicas": 1,
            "leaders": 0,
            "connections": 5,
            "busy": 0.5,
            "age_s": 1.0,
        },
    ]
    assert {at["name"]: at["connections"] for at in told["listeners"]} == {"INSIDE": 3, "OUTSIDE": 35}
    assert [(row["role"], row["pid"]) for row in told["children"]] == [
        ("replica", 71),
        ("replica", 72),
        ("controller", 73),
    ]
    assert told["troubled"] == [{"topic": "lax", "restarts": 2}]
    assert told["partitions"] is None
    assert len(status_of(broker(), partitions=True)["partitions"]) == 3


def samples(families: Families) -> dict[tuple[str, ...], float]:
    """Values by name and labels."""
    return {(s.name, *s.labels.values()): s.value for metric in families.metrics() for s in metric.samples}


def test_metrics_are_counted_over_replica_actors_and_with_the_configs_of_topics() -> None:
    source, families = broker(), Families()
    asyncio.run(add_broker(families, source))
    found = samples(families)
    connections = catalogue.CONNECTIONS.name
    assert (found[connections, "INSIDE"], found[connections, "OUTSIDE"]) == (3, 35)
    assert [found[catalogue.CHILDREN.name, role] for role in catalogue.ROLES] == [2, 0, 1]
    assert [found[f"{catalogue.CHILD_RESTARTS.name}_total", role] for role in catalogue.ROLES] == [3, 1, 0]
    assert found[(f"{catalogue.REPLICA_FAILURES.name}_total",)] == 9
    assert found[catalogue.ACTOR_BUSY.name, "4"] == 0.5
    # the topic's own min.insync.replicas, else the broker's: of three with one in sync, one asks for no more
    assert (found[(catalogue.UNDER_MIN_ISR.name,)], found[(catalogue.AT_MIN_ISR.name,)]) == (2, 1)
    sent = {key[1]: value for key, value in found.items() if key[0] == f"{catalogue.BYTES_OUT.name}_total"}
    assert sent == {"strict": 10}
    assert found[f"{catalogue.REQUEST_DURATION.name}_count", "Fetch", "total"] == 1
