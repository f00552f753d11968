"""What `raykafka status` makes of what Supervisor and brokers say."""

from __future__ import annotations

import io
import re
from typing import Any

from raykafka.broker.status import ActorRow, described
from raykafka.cli.brokers import overview
from raykafka.cli.console import console_on
from raykafka.cli.status import show, show_partitions
from raykafka.deploy.status import summarize

SUMMARY: dict[str, Any] = {
    "topics": 1,
    "partitions": 4,
    "replicas": 8,
    "offline": [],
    "under_min_isr": [],
    "under_replicated": [],
    "moving": [],
    "brokers": {"0": {"leaders": 4, "replicas": 4}},
}


def replica_actor(number: int = 0, pid: int = 10, **more: Any) -> dict[str, Any]:
    row = ActorRow(number, pid, "r", 12, 5, {"INSIDE": 3, "OUTSIDE": 30}, 0.3461, 500.04)._replace(**more)
    return described(row)


def broker(broker_id: int = 0, restarts: int = 0, **detail: Any) -> dict[str, Any]:
    children = [
        {"role": role, "pid": pid, "actor_id": "c", "state": "connected", "age_s": 500.0}
        for role, pid in (("coordinator", 9), ("replica", 10), ("controller", 11))
    ]
    said = {
        "state": "running",
        "age_s": 500.0,
        "controller_id": 0,
        "controller_epoch": 1,
        "broker_epoch": 1,
        "data_dir": "/data",
        "holds_lease": True,
        "lease_age_s": 0.1,
        "listeners": [{"name": "INSIDE", "host": "h", "port": 9092, "connections": 0}],
        "children": children,
        "replica_actors": [replica_actor()],
        "restarts": {"replica": 0, "coordinator": 0, "controller": 0},
        "summary": SUMMARY,
        "troubled": [],
        "partitions": None,
    }
    return {
        "role": "broker",
        "id": broker_id,
        "phase": "running",
        "error": "",
        "actor_id": "a",
        "node": "n",
        "pid": 1,
        "ray_state": "ALIVE",
        "restarts": restarts,
        "detail": {**said, **detail},
    }


def status(*brokers: dict[str, Any]) -> dict[str, Any]:
    supervisor = {**broker(), "role": "supervisor"}
    found = {"cluster": "c", "data_dir": "/d", "error": "", "supervisor": supervisor, "zookeeper": []}
    found["prometheus_targets"] = ""
    return {"ray": "here", **summarize({**found, "brokers": list(brokers)})}


def problems(*brokers: dict[str, Any]) -> list[str]:
    return status(*brokers)["problems"]


def test_a_cluster_that_is_well_has_no_problems() -> None:
    assert problems(broker()) == []


def test_partitions_that_are_not_well_are_counted_and_some_named() -> None:
    rows = [{"topic": "t", "partition": p} for p in range(5)]
    summary = {**SUMMARY, "offline": rows[:1], "under_replicated": rows}
    assert problems(broker(summary=summary)) == [
        "1 partition is without a leader: t-0.",
        "5 partitions are under-replicated: t-0, t-1, t-2 and 2 more.",
    ]


def test_what_keeps_ending_is_told_and_what_ended_long_ago_is_not() -> None:
    replica = {"topic": "t", "partition": 7, "restarts": 4, "since_restart_s": 3.0}
    long_ago = {"topic": "u", "partition": 0, "restarts": 9, "since_restart_s": 4000.0}
    young = [{"role": "controller", "pid": 9, "actor_id": "", "state": "connected", "age_s": 5.0}]
    steady = broker()["detail"]["children"][:1]
    new_actor = [{"role": "replica", "pid": 10, "actor_id": "", "state": "connected", "age_s": 5.0}]
    loops = problems(
        broker(
            restarts=5,
            age_s=12.0,
            children=[*young, *steady],
            troubled=[replica, long_ago],
        )
    )
    assert loops == [
        "Broker 0 has been restarted 5 times, last 12 s ago.",
        "Broker 0: the replica of t-7 has failed 4 times.",
    ]
    children = {"replica": 0, "coordinator": 3, "controller": 6}
    loops = problems(_with(broker(children=[*young, *steady]), restarts=children))
    assert loops == ["Broker 0: its controller has ended 6 times."]
    children = {"replica": 3, "coordinator": 0, "controller": 0}
    loops = problems(_with(broker(children=[*steady, *new_actor, *broker()["detail"]["children"]]), restarts=children))
    assert loops == ["Broker 0: its replica actors have ended 3 times."]


def test_a_broker_without_a_replica_actor_is_told_once_it_had_time_for_one() -> None:
    assert problems(broker(replica_actors=[])) == ["Broker 0 has no replica actor."]
    assert problems(broker(replica_actors=[], age_s=5.0)) == []


def test_each_replica_actor_stands_under_its_broker() -> None:
    children = broker()["detail"]["children"]
    starting = {"role": "replica", "pid": None, "actor_id": "s", "state": "starting", "age_s": 0.1}
    actors = [replica_actor(), replica_actor(4, 12, connections={}, busy=1.0)]
    found = status(broker(children=[starting, *children], replica_actors=actors), broker(1))
    rows = [(row["role"], row["id"], row["number"], row["pid"], row["state"]) for row in found["actors"]]
    assert rows == [
        ("supervisor", 0, None, 1, "running"),
        ("broker", 0, None, 1, "running"),
        ("replica", 0, 0, 10, "running"),
        ("replica", 0, 4, 12, "running"),
        ("replica", 0, None, None, "starting"),
        ("coordinator", 0, None, 9, "running"),
        ("controller", 0, None, 11, "running"),
        ("broker", 1, None, 1, "running"),
        ("replica", 1, 0, 10, "running"),
        ("coordinator", 1, None, 9, "running"),
        ("controller", 1, None, 11, "running"),
    ]
    assert [row["replica_actors"] for row in found["brokers"]] == [2, 1]
    text = shown(lambda to: show(found, to))
    assert re.search(r"role +id +number +state +pid +restarts +replicas +leaders +connections +busy +node +actor", text)
    assert re.search(r"replica +0 +0 +running +10 +12 +5 +33 +35% +n +r\b", text)
    assert re.search(r"replica +0 +4 +running +12 +12 +5 +0 +100% +n +r\b", text)
    assert re.search(r"controller +0 +running +11 +0 +n +c\b", text)


def _with(row: dict[str, Any], **detail: Any) -> dict[str, Any]:
    return {**row, "detail": {**row["detail"], **detail}}


def test_a_broker_that_was_stopped_on_purpose_is_told_as_such() -> None:
    stopped = {**broker(1), "detail": {"state": "halted", "pid": 1}}
    assert problems(broker(), stopped) == [
        "Broker 1 was stopped with `raykafka brokers stop`; `raykafka brokers start 1` starts it."
    ]


def shown(*printed: Any) -> str:
    out = io.StringIO()
    for thing in printed:
        if callable(thing):
            thing(console_on(out))
        else:
            console_on(out).print(thing)
    return out.getvalue()


def test_people_see_sums_moves_and_if_they_ask_every_partition() -> None:
    move = {"topic": "t", "partition": 1, "replicas": [2, 0, 1], "removing": [0], "adding": [2], "isr": [0, 1]}
    row = {"topic": "t", "partition": 1, "life": "open", "leader": 0, "leader_epoch": 3, "actor": 6, "restarts": 2}
    offsets = {"log_start_offset": 0, "high_watermark": 17, "log_end_offset": None}
    found = status(broker(summary={**SUMMARY, "moving": [move]}, partitions=[{**row, **offsets}]))
    text = shown(lambda to: show(found, to), lambda to: show_partitions(found["partitions"], to))
    assert "1 topic, 4 partitions, 8 replicas, 1 moving" in text
    assert "t-1 moves to [2, 1], in sync [0, 1]" in text
    assert re.search(r"0 +t-1 +open +0 +3 +0 +17 +6 +2", text)


def test_the_list_of_brokers_says_what_each_does() -> None:
    found = status(broker(restarts=2), {**broker(1), "detail": {"state": "halted", "pid": 1}})
    text = shown(overview(found["brokers"]))
    assert re.search(r"0 +running +active +4 +4 +2 +8 min +n +INSIDE=h:9092", text)
    assert re.search(r"1 +halted +0 +n", text)
