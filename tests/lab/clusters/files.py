"""Cluster files of clusters that share nothing with any other that runs: a Ray, a ZooKeeper, ports and data of their
own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.lab.clusters.actors import AUTO, Actors
from tests.lab.free_ports import free_ports


def cluster_settings(
    name: str,
    data_dir: Path,
    brokers: int,
    config: Mapping[str, object] | None = None,
    ray_folder: Path | None = None,
    actors: Actors = AUTO,
) -> dict[str, Any]:
    """What the cluster file of ``brokers`` brokers on this machine says. ``config`` holds Kafka's broker settings,
    ``actors`` how many replica actors each broker has.

    ``ray_folder`` must be a short path: Ray makes Unix sockets below it, whose paths hold 107 bytes.
    """
    inside = free_ports(4 * brokers + 2)
    outside, link, metrics, others = (inside + brokers * i for i in range(1, 5))
    return {
        "cluster": name,
        "data_dir": str(data_dir),
        "ray": {"temp_dir": str(ray_folder or f"/tmp/rk-{os.getpid()}-{inside}"), "port": others},
        "zookeeper": {"managed": {"client_port": others + 1}},
        "brokers": {
            "count": brokers,
            "listeners": f"INSIDE://127.0.0.1:{inside},OUTSIDE://127.0.0.1:{outside}",
            "link_port": link,
            "metrics_port": metrics,
            "replica.actors": actors,
            "config": dict(config or {}),
        },
    }


def cluster_file(
    folder: Path, name: str = "test", brokers: int = 3, config: Mapping[str, object] | None = None
) -> Path:
    """A cluster file in ``folder``, and the data of its cluster beside it."""
    settings = cluster_settings(name, folder / "data", brokers, config)
    # A machine that is busy with other tests must not look like a dead one.
    settings["zookeeper"]["session_timeout_ms"] = 10_000
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file
