"""What a cluster file means for each actor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raykafka.broker.settings import BrokerSettings, ListenerAddress
from raykafka.config.cluster import ClusterConfig, parse_cluster_config
from raykafka.deploy.folder import ClusterFolder
from raykafka.deploy.placement import Placement, place, seats_on_one_node, zookeeper_settings


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
