"""What a cluster file means for each actor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raykafka.broker.settings import EACH, BrokerSettings, ListenerAddress
from raykafka.config.cluster import ClusterConfig, parse_cluster_config
from raykafka.deploy.cores import quota_cores, usable_cores
from raykafka.deploy.folder import ClusterFolder
from raykafka.deploy.placement import Placement, place, replica_actors, seats_on_one_node, zookeeper_settings


def _config(data: dict[str, Any]) -> ClusterConfig:
    return parse_cluster_config(data, "file.yaml")


def _place_here(config: ClusterConfig, folder: ClusterFolder) -> list[Placement]:
    return place(config, folder, seats_on_one_node(config, "here", "10.0.0.1"), folder.secret())


@pytest.mark.parametrize(
    ("zookeeper", "hosts", "auth"),
    [
        ({"managed": {"client_port": 3000}}, "127.0.0.1:3000/c", True),
        ({"managed": {"servers": 3}}, "127.0.0.1:2181,127.0.0.1:2182,127.0.0.1:2183/c", True),
        ({"connect": "a:1,b:2/my/root"}, "a:1,b:2/my/root", False),
        ({"connect": "a:1"}, "a:1/c", False),
    ],
)
def test_each_cluster_has_a_chroot_of_its_own(zookeeper: dict[str, Any], hosts: str, auth: bool) -> None:
    config = _config({"cluster": "c", "zookeeper": zookeeper})
    settings = zookeeper_settings(config, seats_on_one_node(config, "here", "10.0.0.1"))
    assert (settings.hosts, settings.auth, settings.session_timeout_ms) == (hosts, auth, 6000)


def test_brokers_differ_in_ports_and_folders_only(tmp_path: Path) -> None:
    folder = ClusterFolder(tmp_path)
    config = _config({"brokers": {"count": 2, "advertised.listeners": "INSIDE://in:1,OUTSIDE://out:2"}})
    brokers = [BrokerSettings.from_json(p.settings) for p in _place_here(config, folder) if p.role == "broker"]
    assert [broker.data_dir for broker in brokers] == [str(tmp_path / "broker-0"), str(tmp_path / "broker-1")]
    assert [broker.link_port for broker in brokers] == [9292, 9293]
    assert [broker.metrics_port for broker in brokers] == [9392, 9393]
    assert brokers[1].listeners == (
        ListenerAddress("INSIDE", "127.0.0.1", 9093),
        ListenerAddress("OUTSIDE", "127.0.0.1", 9193),
    )
    assert brokers[1].advertised == (ListenerAddress("INSIDE", "in", 2), ListenerAddress("OUTSIDE", "out", 3))
    assert brokers[0].secret == brokers[1].secret == folder.secret()
    assert [broker.controller_first for broker in brokers] == [True, False]


@pytest.mark.parametrize(
    ("asked", "cores", "brokers", "number"),
    [
        ("auto", 16, 3, 5),
        ("auto", 2, 3, 1),
        ("auto", 8, 1, 8),
        ("auto", 96, 1, 16),
        ("each", 16, 3, EACH),
        (7, 2, 3, 7),
    ],
)
def test_a_broker_gets_its_share_of_the_cores_unless_told_otherwise(
    asked: Any, cores: int, brokers: int, number: int
) -> None:
    assert replica_actors(asked, cores, brokers) == number


def test_the_cores_are_those_of_the_node_and_shared_by_its_brokers(tmp_path: Path) -> None:
    def settings(cores: int, **brokers: Any) -> list[int]:
        config = _config({"brokers": brokers})
        seats = seats_on_one_node(config, "here", "10.0.0.1", cores)
        placements = place(config, ClusterFolder(tmp_path), seats, b"s" * 32)
        return [BrokerSettings.from_json(p.settings).replica_actors for p in placements if p.role == "broker"]

    assert settings(9, count=3) == [3, 3, 3]
    assert settings(9, count=1) == [9]
    assert settings(9, count=2, **{"replica.actors": 2}) == [2, 2]
    assert settings(9, count=2, **{"replica.actors": "each"}) == [EACH, EACH]


def test_usable_cores_are_those_that_a_process_may_run_on() -> None:
    one = min(os.sched_getaffinity(0))
    asked = "import os; os.sched_setaffinity(0, {%d}); from raykafka.deploy.cores import usable_cores as u; print(u())"
    answer = subprocess.run([sys.executable, "-c", asked % one], capture_output=True, text=True, check=True)
    assert int(answer.stdout) == 1
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


def test_the_least_quota_of_the_control_groups_around_a_process_counts(tmp_path: Path) -> None:
    own = "1:cpu:/other\n0::/outer/inner\n"
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    assert quota_cores(tmp_path, own) is None
    (inner / "cpu.max").write_text("max 100000\n")
    assert quota_cores(tmp_path, own) is None
    (inner.parent / "cpu.max").write_text("250000 100000\n")
    assert quota_cores(tmp_path, own) == 2.5
    (inner / "cpu.max").write_text("50000 100000\n")
    assert quota_cores(tmp_path, own) == 0.5
    assert quota_cores(tmp_path, "0::/\n") is None
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    assert quota_cores(tmp_path, "0::/\n") == 4
    assert quota_cores(tmp_path, "1:cpu:/outer\n") is None


def test_settings_that_differ_in_replica_actors_alone_are_told_from_others(tmp_path: Path) -> None:
    def settings(**more: Any) -> BrokerSettings:
        config = _config({"brokers": {"count": 1, **more}})
        (broker,) = (p for p in _place_here(config, ClusterFolder(tmp_path)) if p.role == "broker")
        return BrokerSettings.from_json(json.loads(json.dumps(broker.settings)))

    plain, more = settings(), settings(**{"replica.actors": 3})
    assert plain.differs_in_actors_alone(more) and more.differs_in_actors_alone(plain)
    assert not plain.differs_in_actors_alone(settings())
    assert not plain.differs_in_actors_alone(settings(**{"replica.actors": 3, "metrics_port": 0}))
    assert not plain.differs_in_actors_alone(settings(metrics_port=0))


def test_a_cluster_that_an_earlier_version_deployed_is_still_read(tmp_path: Path) -> None:
    folder = ClusterFolder(tmp_path)
    config = _config({"brokers": {"count": 2, "config": {"num.partitions": 4}}})
    folder.write_deployed(config)
    record = json.loads((tmp_path / "cluster.json").read_text())
    brokers = record["config"]["brokers"]
    brokers["spare_replicas"] = 1
    brokers["config"] |= {"replica.idle.ms": "5000", "spare.replicas": "2"}
    del brokers["replica.actors"]
    (tmp_path / "cluster.json").write_text(json.dumps(record))
    assert folder.deployed() == config
    (tmp_path / "cluster.json").write_text(json.dumps(record["config"]))
    assert folder.deployed() == config


def test_the_secret_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    folder = ClusterFolder(tmp_path)
    secret = folder.secret()
    assert len(secret) == 32
    assert ClusterFolder(tmp_path).secret() == secret
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_an_ensemble_names_all_its_members(tmp_path: Path) -> None:
    config = _config({"zookeeper": {"managed": {"servers": 3}}})
    servers = [p.settings for p in _place_here(config, ClusterFolder(tmp_path)) if p.role == "zookeeper"]
    assert [server["my_id"] for server in servers] == [1, 2, 3]
    assert servers[0]["servers"] == {1: "127.0.0.1:2888:3888", 2: "127.0.0.1:2889:3889", 3: "127.0.0.1:2890:3890"}


def test_deleting_a_folder_spares_what_is_not_raykafkas(tmp_path: Path) -> None:
    folder = ClusterFolder(tmp_path / "data")
    folder.make()
    folder.secret()
    folder.broker(0).mkdir()
    (tmp_path / "data" / "mine.txt").write_text("kept")
    folder.delete()
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["mine.txt"]
