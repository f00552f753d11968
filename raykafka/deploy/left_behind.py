"""Ending servers that outlived their actors, or their Ray."""

from __future__ import annotations

import psutil

from raykafka.deploy import checks, local_ray
from raykafka.deploy.folder import ClusterFolder
from raykafka.deploy.zookeeper_process import ZooKeeperProcess


def end_left_behind(folder: ClusterFolder) -> None:
    """End every ZooKeeper server, broker and replica on this machine that holds data of ``folder``."""
    for path in sorted(folder.path.glob("zookeeper-*")):
        ZooKeeperProcess(path, 1).stop()
    local_ray.end_processes([psutil.Process(pid) for pid in checks.own_processes(folder) if psutil.pid_exists(pid)])
