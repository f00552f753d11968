"""A deployed cluster: what its commands do, and how it comes back when its processes are killed.

One cluster of two brokers, with a Ray of its own, serves all tests of this file; they run in order.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import yaml

import raykafka
from raykafka.config.cluster import load_cluster_config
from raykafka.deploy import local_ray, ray_access
from raykafka.deploy.checks import own_processes
from raykafka.deploy.folder import ClusterFolder
from tests.lab.clusters.files import cluster_file
from tests.lab.waiting import until
from tests.node.status_feed import StatusFeed

_T = TypeVar("_T")
pytestmark = pytest.mark.timeout(300)


def _command(*words: str, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "raykafka", *words], input=stdin, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _until_status(file: Path, what: str, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The first status of which that holds."""
    last: dict[str, Any] = {}

    def look() -> bool:
        last.clear()
        last.update(feed.status())
        return bool(holds(last))

    with StatusFeed(file) as feed:
        try:
            until(look, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; amiss: {last['problems']}") from None
    return last


def _well(file: Path) -> dict[str, Any]:
    """The status, once nothing is amiss and every actor has begun."""
    return _until_status(
        file,
        "everything is as it should be",
        lambda found: not found["problems"] and all(row["state"] == "running" for row in found["actors"]),
    )


def _pids(status: dict[str, Any], role: str) -> dict[int, int]:
    return {row["id"]: row["pid"] for row in status["actors"] if row["role"] == role}


def _zookeeper_pid(file: Path) -> int:
    """The pid of the ZooKeeper server; 0 while there is none."""
    try:
        return int(ClusterFolder(_data(file)).zookeeper(1).joinpath("zookeeper.pid").read_text())
    except FileNotFoundError:
        return 0


def _data(file: Path) -> Path:
    return Path(yaml.safe_load(file.read_text())["data_dir"])


def _kill_and_await_end(pid: int) -> None:
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    process.wait(30)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of a cluster that is up."""
    folder = tmp_path_factory.mktemp("deploy")
    file = cluster_file(folder, "deploytest", brokers=2, config={"group.initial.rebalance.delay.ms": 0})
    try:
        out = _command("deploy", "-f", str(file))
        assert "Cluster deploytest is ready" in out
        yield file
    finally:
        subprocess.run([sys.executable, "-m", "raykafka", "undeploy", "-f", str(file)], timeout=200)
        temp_dir = load_cluster_config(file).ray.temp_dir
        local_ray.stop(ray_access.session_folder(temp_dir))
        shutil.rmtree(temp_dir, ignore_errors=True)


@pytest.fixture
def cluster(deployed: Path) -> raykafka.Cluster:
    return raykafka.connect(load_cluster_config(deployed).bootstrap())


def _values(cluster: raykafka.Cluster, topic: str, count: int) -> list[str]:
    with cluster.consumer(topic) as consumer:
        found: list[str] = []
        deadline = time.monotonic() + 60
        while len(found) < count and time.monotonic() < deadline:
            found += [record.text() for record in consumer.consume(count, 1.0)]
        return found


def test_status_shows_every_actor(deployed: Path) -> None:
    _well(deployed)
    status = json.loads(_command("status", "--json", "-f", str(deployed)))
    assert set(_pids(status, "broker")) == {0, 1}
    for role in ("supervisor", "zookeeper", "broker", "replica", "coordinator", "controller"):
        rows = [row for row in status["actors"] if row["role"] == role]
        assert rows, role
        for row in rows:
            assert psutil.pid_exists(row["pid"])
            assert row["state"] == "running"
            assert len(row["actor_id"]) == 32
    assert status["controller"] in (0, 1)
    assert status["listeners"]["INSIDE"] == load_cluster_config(deployed).bootstrap("INSIDE")
    assert "Everything is as it should be" in _command("status", "-f", str(deployed))


def test_prometheus_finds_every_broker(deployed: Path) -> None:
    status = _well(deployed)
    targets = json.loads(Path(status["prometheus_targets"]).read_text())
    assert [target["labels"] for target in targets] == [{"cluster": "deploytest", "broker": str(b)} for b in (0, 1)]
    addresses = [f"http://{target['targets'][0]}/metrics" for target in targets]
    assert addresses == status["metrics"]
    for address in addresses:
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert "raykafka_leaders " in answer.read().decode()
    assert status["prometheus_targets"] in _command("status", "-f", str(deployed))


def test_only_raykafkas_own_lines_reach_the_terminal(deployed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "raykafka", "deploy", "-f", str(deployed)], capture_output=True, text=True, timeout=200
    )
    assert done.stderr == ""
    for line in done.stdout.splitlines():
        assert line.lstrip()[0].isdigit() or line.startswith("  "), line


def test_the_same_file_again_changes_nothing(deployed: Path) -> None:
    before = _well(deployed)
    assert "The cluster file is the deployed one" in _command("deploy", "-f", str(deployed))
    assert [row["pid"] for row in _well(deployed)["actors"]] == [row["pid"] for row in before["actors"]]


def test_topics_and_records_by_the_command_line(deployed: Path) -> None:
    file = ("-f", str(deployed))
    _command("topics", "create", "lines", "-p", "3", "-c", "retention.ms=86400000", *file)
    assert _command("topics", "list", *file).split() == ["lines"]
    assert _command("topics", "describe", "lines", *file).startswith("lines: 3 partitions, retention.ms=86400000")
    _command("produce", "lines", "--key-separator", ":", *file, stdin="a:1\nb:2\nc:3\n")
    out = _command("consume", "lines", "--from-beginning", "-n", "3", "--format", "%k=%v", *file)
    assert sorted(out.split()) == ["a=1", "b=2", "c=3"]
    _command("topics", "alter", "lines", "-p", "4", *file)
    assert _command("topics", "describe", "lines", *file).startswith("lines: 4 partitions")
    _command("topics", "delete", "lines", *file)
    assert _command("topics", "list", *file).split() == []


def test_handles_go_through_pickle_and_into_ray_tasks(deployed: Path, cluster: raykafka.Cluster) -> None:
    import ray

    cluster.admin().create_topic("handles", partitions=2)
    producer = pickle.loads(pickle.dumps(cluster.producer()))
    with producer:
        assert producer.send("handles", {"n": 1}).result(30).offset == 0
    config = load_cluster_config(deployed)
    ray_access.attach_running(config)
    try:
        by_name = raykafka.connect("deploytest", listener="OUTSIDE")
        assert by_name.bootstrap == config.bootstrap("OUTSIDE")
        with pytest.raises(raykafka.ClientError, match="no raykafka cluster named nobody"):
            raykafka.connect("nobody")

        def send(producer: raykafka.Producer, number: int) -> int:
            with producer:
                return producer.send_object("handles", (number, "of a task")).result(30).offset

        def read(consumer: raykafka.Consumer) -> list[object]:
            with consumer:
                found: list[raykafka.Record] = []
                while len(found) < 3:
                    found += consumer.consume(10, 1.0)
                return [record.object() for record in found if record.value and record.value[:1] == b"\x80"]

        inside = raykafka.connect("deploytest")
        sends = [ray.remote(send).options(num_cpus=0.1).remote(inside.producer(), number) for number in (1, 2)]
        ray.get(sends, timeout=60)
        trusting = inside.consumer("handles", group="readers", allow_pickle=True)
        found = ray.get(ray.remote(read).options(num_cpus=0.1).remote(trusting), timeout=60)
        assert sorted(found) == [(1, "of a task"), (2, "of a task")]
    finally:
        ray_access.detach()
    with cluster.consumer("handles") as wary, pytest.raises(raykafka.ClientError, match="allow_pickle=True"):
        until(wary.poll, "a record").object()


def test_a_killed_supervisor_comes_back_and_a_killed_broker_with_its_records(
    deployed: Path, cluster: raykafka.Cluster
) -> None:
    cluster.admin().create_topic("kept", partitions=4)
    with cluster.producer() as producer:
        sent = [producer.send("kept", str(number), partition=number % 4) for number in range(100)]
        assert all(metadata.result(60).offset >= 0 for metadata in sent)
    before = _well(deployed)
    _kill_and_await_end(_pids(before, "supervisor")[0])
    after = _well(deployed)
    assert _pids(after, "supervisor") != _pids(before, "supervisor")
    brokers = _pids(before, "broker")
    assert _pids(after, "broker") == brokers
    _kill_and_await_end(brokers[0])
    _until_status(deployed, "another broker 0", lambda found: _pids(found, "broker").get(0) not in (brokers[0], None))
    after = _well(deployed)
    assert _pids(after, "broker")[1] == brokers[1]
    assert next(row for row in after["actors"] if (row["role"], row["id"]) == ("broker", 0))["restarts"] >= 1
    assert sorted(map(int, _values(cluster, "kept", 100))) == list(range(100))


def test_a_stopped_broker_stays_down_until_it_is_started(deployed: Path, cluster: raykafka.Cluster) -> None:
    before = _well(deployed)
    out = _command("brokers", "stop", "1", "-f", str(deployed))
    assert "`raykafka brokers start 1` starts it again" in out
    os.kill(_pids(before, "broker")[1], signal.SIGKILL)
    _kill_and_await_end(_pids(before, "supervisor")[0])

    def stopped(found: dict[str, Any]) -> bool:
        states = {row["id"]: (row["state"], row["pid"]) for row in found["actors"] if row["role"] == "broker"}
        anew = states.get(1, ("", 0))
        return anew[0] == "halted" and anew[1] not in (0, _pids(before, "broker")[1]) and states[0][0] == "running"

    found = _until_status(deployed, "broker 1 is another process, and halted", stopped)
    assert any("was stopped with `raykafka brokers stop`" in problem for problem in found["problems"])
    _command("deploy", "-f", str(deployed))
    assert list(cluster.admin().describe_cluster().brokers) == [0]
    listed = json.loads(_command("brokers", "list", "--json", "-f", str(deployed)))
    assert [(row["id"], row["state"]) for row in listed] == [(0, "running"), (1, "halted")]
    _command("brokers", "start", "1", "-f", str(deployed))
    _well(deployed)
    assert list(cluster.admin().describe_cluster().brokers) == [0, 1]
    assert "running" in _command("brokers", "describe", "1", "-f", str(deployed))


def test_a_killed_zookeeper_is_started_again_and_brokers_wait(deployed: Path) -> None:
    before = _well(deployed)
    pid = _zookeeper_pid(deployed)
    _kill_and_await_end(pid)
    until(lambda: _zookeeper_pid(deployed) not in (0, pid), "another ZooKeeper")
    assert _pids(_well(deployed), "broker") == _pids(before, "broker")


def test_zookeeper_outlives_its_actor(deployed: Path) -> None:
    before = _pids(_well(deployed), "zookeeper")
    pid = _zookeeper_pid(deployed)
    _kill_and_await_end(before[1])
    _until_status(deployed, "another actor", lambda found: _pids(found, "zookeeper").get(1) not in (before[1], None))
    _well(deployed)
    assert _zookeeper_pid(deployed) == pid


def test_a_changed_file_is_applied(deployed: Path) -> None:
    data = yaml.safe_load(deployed.read_text())
    before = _well(deployed)
    data["zookeeper"]["managed"]["heap_mb"] = 160
    deployed.write_text(yaml.safe_dump(data))
    assert "Applying the changed cluster file" in _command("deploy", "-f", str(deployed))
    assert b"-Xmx160m" in Path(f"/proc/{_zookeeper_pid(deployed)}/cmdline").read_bytes()
    assert _pids(_well(deployed), "broker") == _pids(before, "broker")


def test_a_changed_broker_config_is_in_force_after_the_deploy(deployed: Path, cluster: raykafka.Cluster) -> None:
    data = yaml.safe_load(deployed.read_text())
    data["brokers"]["config"]["num.partitions"] = 5
    deployed.write_text(yaml.safe_dump(data))
    _command("deploy", "-f", str(deployed))
    cluster.admin().create_topic("five")
    assert len(cluster.admin().describe_topic("five").partitions) == 5
    assert sorted(map(int, _values(cluster, "kept", 100))) == list(range(100))


def test_a_changed_file_that_fails_leaves_the_old_one_running(deployed: Path) -> None:
    good = deployed.read_text()
    data = yaml.safe_load(good)
    data["brokers"]["memory_mb"] = 1 << 30
    deployed.write_text(yaml.safe_dump(data))
    done = subprocess.run(
        [sys.executable, "-m", "raykafka", "deploy", "-f", str(deployed)], capture_output=True, text=True, timeout=200
    )
    deployed.write_text(good)
    assert done.returncode == 1
    assert "do not fit" in done.stderr
    assert "The cluster file is the deployed one" in _command("deploy", "-f", str(deployed))


def test_everything_killed_and_deployed_again(deployed: Path, cluster: raykafka.Cluster) -> None:
    session = ray_access.session_folder(load_cluster_config(deployed).ray.temp_dir)
    assert session is not None
    before = _pids(_well(deployed), "broker")
    daemons = [
        process
        for process in psutil.process_iter()
        if process.name() in ("raylet", "gcs_server") and any(str(session) in word for word in _words(process))
    ]
    assert {process.name() for process in daemons} == {"raylet", "gcs_server"}
    for process in daemons:
        process.kill()
    _kill_and_await_end(_zookeeper_pid(deployed))
    assert "Starting Ray on this machine" in _command("deploy", "-f", str(deployed))
    assert not set(_pids(_well(deployed), "broker").values()) & set(before.values())
    assert sorted(map(int, _values(cluster, "kept", 100))) == list(range(100))


def test_undeploy_leaves_nothing_but_the_data(deployed: Path) -> None:
    session = ray_access.session_folder(load_cluster_config(deployed).ray.temp_dir)
    folder = ClusterFolder(_data(deployed))
    out = _command("undeploy", "-f", str(deployed))
    assert "Cluster deploytest is down" in out
    assert own_processes(folder) == set()
    assert session is not None
    assert not [p for p in psutil.process_iter() if any(str(session) in word for word in _words(p))]
    assert folder.broker(0).joinpath("meta.properties").exists()
    _command("undeploy", "-f", str(deployed), "--delete-data")
    assert not folder.path.exists()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
