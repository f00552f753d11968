"""A deploy that can't be is refused in one sentence before anything is started."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from raykafka.config.cluster import load_cluster_config
from raykafka.deploy import checks
from raykafka.deploy.folder import ClusterFolder
from raykafka.errors import DeployError
from tests.lab.clusters.files import cluster_file
from tests.lab.free_ports import free_port


def _deploy(file: Path, **environment: str) -> str:
    """Run `raykafka deploy`, which must fail; returns its one sentence."""
    done = subprocess.run(
        [sys.executable, "-m", "raykafka", "deploy", "-f", str(file)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    return sentence.removeprefix("raykafka: ")


def _nothing_was_started(file: Path) -> None:
    data = yaml.safe_load(file.read_text())
    folder = Path(data["data_dir"])
    assert not [entry for entry in folder.glob("*") if entry.name not in ("deploy.lock", "deploy.log")]
    assert not Path(data["ray"]["temp_dir"], "session_latest").exists()


def _changed(file: Path, **sections: dict[str, Any]) -> Path:
    data = yaml.safe_load(file.read_text())
    for name, values in sections.items():
        data[name] = {**data.get(name, {}), **values}
    file.write_text(yaml.safe_dump(data))
    return file


def test_a_missing_zookeeper_is_named(tmp_path: Path) -> None:
    file = cluster_file(tmp_path)
    assert _deploy(file, RAYKAFKA_ZOOKEEPER_JAR="/nowhere/zookeeper.jar") == (
        "ZooKeeper is not installed (looked for /nowhere/zookeeper.jar): install it (Debian: apt install zookeeper),"
        " or set zookeeper.connect in the cluster file to a server of yours."
    )
    _nothing_was_started(file)


def test_a_missing_java_is_named(tmp_path: Path) -> None:
    file = cluster_file(tmp_path)
    assert _deploy(file, PATH="/nowhere", JAVA_HOME="").startswith(
        "ZooKeeper needs Java, and no java command was found"
    )
    _nothing_was_started(file)


def test_a_zookeeper_that_does_not_answer_is_named(tmp_path: Path) -> None:
    file = cluster_file(tmp_path)
    data = yaml.safe_load(file.read_text())
    port = free_port()
    data["zookeeper"] = {"connect": f"127.0.0.1:{port}"}
    file.write_text(yaml.safe_dump(data))
    assert _deploy(file).startswith(f"No ZooKeeper server answers at 127.0.0.1:{port}")
    _nothing_was_started(file)


def test_a_port_in_use_is_named_with_its_holder(tmp_path: Path) -> None:
    file = cluster_file(tmp_path)
    host, port = _address(file, "listener OUTSIDE of broker 2")
    with socket.create_server((host, port)):
        said = _deploy(file)
    assert said.startswith(
        f"Port {port} on 127.0.0.1 for listener OUTSIDE of broker 2 is in use by process {os.getpid()} ("
    )
    _nothing_was_started(file)


@pytest.mark.parametrize("owner", ["ZooKeeper server 1", "listener INSIDE of broker 0", "the link port of broker 1"])
def test_every_port_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: str) -> None:
    monkeypatch.setattr(checks, "_PORT_FREE_WITHIN_S", 0.0)
    file = cluster_file(tmp_path)
    host, port = _address(file, owner)
    ports, folder = list(load_cluster_config(file).ports()), ClusterFolder(tmp_path / "data")
    checks.check_ports(ports, folder)
    with (
        socket.create_server((host, port)),
        pytest.raises(DeployError, match=f"Port {port} on 127.0.0.1 for {owner} is"),
    ):
        checks.check_ports(ports, folder)


def _address(file: Path, owner: str) -> tuple[str, int]:
    ((host, port),) = [(host, port) for host, port, name in load_cluster_config(file).ports() if name == owner]
    return host, port


def test_a_ray_port_in_use_is_named(tmp_path: Path) -> None:
    file = cluster_file(tmp_path)
    port = yaml.safe_load(file.read_text())["ray"]["port"]
    with socket.create_server(("127.0.0.1", port)):
        assert _deploy(file).startswith(f"Port {port}, on which Ray is to start, is in use")
    _nothing_was_started(file)


def test_a_bad_value_is_named(tmp_path: Path) -> None:
    file = _changed(cluster_file(tmp_path), brokers={"count": "three"})
    assert _deploy(file) == f"{file}: brokers.count must be a whole number, not 'three'."


def test_an_unreachable_ray_is_named(tmp_path: Path) -> None:
    file = _changed(cluster_file(tmp_path), ray={"start_local": False})
    assert _deploy(file).startswith("No Ray cluster answers on this machine: start one (ray start --head)")
    _nothing_was_started(file)
    port = free_port()
    _changed(file, ray={"address": f"127.0.0.1:{port}"})
    assert _deploy(file).startswith(f"No Ray cluster answers at 127.0.0.1:{port}")
    _nothing_was_started(file)


def test_a_server_that_is_no_ray_is_not_waited_for(tmp_path: Path, zookeeper: str) -> None:
    file = _changed(cluster_file(tmp_path), ray={"start_local": False, "address": zookeeper})
    assert _deploy(file).startswith(f"No Ray cluster answers at {zookeeper}")
    _nothing_was_started(file)


def test_a_wrong_ray_address_in_the_environment_is_named(tmp_path: Path) -> None:
    file = cluster_file(tmp_path)
    port = free_port()
    assert _deploy(file, RAY_ADDRESS=f"127.0.0.1:{port}").startswith(f"RAY_ADDRESS is 127.0.0.1:{port}, and no Ray")
    _nothing_was_started(file)


def test_a_data_folder_of_another_cluster_is_refused(tmp_path: Path) -> None:
    file = cluster_file(tmp_path)
    folder = ClusterFolder(tmp_path / "data")
    with folder.exclusive():
        folder.write_deployed(load_cluster_config(file).model_copy(update={"cluster": "other"}))
    assert _deploy(file).startswith(f"The data folder {tmp_path}/data holds the data of cluster other")


def test_only_one_deploy_works_at_a_time(tmp_path: Path) -> None:
    file = cluster_file(tmp_path)
    with ClusterFolder(tmp_path / "data").exclusive():
        assert _deploy(file) == f"Another deploy or undeploy works on {tmp_path}/data just now."


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    file = cluster_file(tmp_path)
    (tmp_path / "data").write_text("a file")
    assert _deploy(file) == f"The data folder {tmp_path}/data cannot be made: File exists."


@pytest.mark.timeout(300)
def test_a_broker_that_cannot_start_ends_the_deploy_and_all_that_it_started(tmp_path: Path) -> None:
    file = cluster_file(tmp_path, brokers=1)
    folder = ClusterFolder(tmp_path / "data")
    folder.broker(0).mkdir(parents=True)
    folder.broker(0).joinpath("meta.properties").write_text(
        "version=0\nbroker.id=7\ncluster.id=aaaaaaaaaaaaaaaaaaaaaa\ndirectory.id=bbbbbbbbbbbbbbbbbbbbbb\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "raykafka", "deploy", "-f", str(file)], capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("raykafka: Broker 0 does not start: ")
    assert "meta.properties" in sentence
    assert checks.own_processes(folder) == set()
    assert folder.deployed() is None
    assert folder.started_ray() is None
    temp_dir = yaml.safe_load(file.read_text())["ray"]["temp_dir"]
    assert not [process for process in psutil.process_iter(["cmdline"]) if temp_dir in str(process.info["cmdline"])]
    shutil.rmtree(temp_dir)
