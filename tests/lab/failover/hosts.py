"""Faults of whole hosts: a cluster over three that are simulated on this machine, as tests/multihost has it."""

from __future__ import annotations

import random
from pathlib import Path

from tests.lab.client_settings import QUICK_TO_NOTICE
from tests.lab.clusters.actors import AUTO, Actors
from tests.lab.clusters.topic import Topic
from tests.lab.failover.faults import Measured, Outcome
from tests.lab.failover.load import SETTINGS, Load
from tests.lab.hosts.cluster import IN_SYNC_WITHIN_S as HOSTS_IN_SYNC_WITHIN_S
from tests.lab.hosts.cluster import Cluster as HostedCluster
from tests.lab.hosts.cluster import started
from tests.lab.hosts.netlab import Host

CLIENT_SETTINGS = {**SETTINGS, **QUICK_TO_NOTICE, "request.timeout.ms": 2000}
ROLES = ("follower", "controller", "ZooKeeper's leader")
_WATCH_S = 8.0


class Hosts:
    """`ray up` and `raykafka deploy` over three hosts; the producer is this machine. Ray's head is the first host."""

    name = "raykafka on three simulated hosts"

    def __init__(self, actors: Actors = AUTO) -> None:
        self._context = started(actors)
        self.hosted: HostedCluster

    @property
    def bootstrap(self) -> str:
        return self.hosted.outside

    def start(self) -> None:
        self.hosted = self._context.__enter__()

    def stop(self) -> None:
        self._context.__exit__(None, None, None)

    def logs(self) -> list[Path]:
        folders = [host.tmp / "ray" for host in self.hosted.hosts]
        return sorted(log for folder in folders for log in folder.glob("session_2*/logs/worker-*.err"))


class HostsTopic(Topic):
    """Asks every host: one that was cut off takes everything to be well until it hears otherwise."""

    def __init__(self, hosts: Hosts, name: str, partitions: int) -> None:
        super().__init__(hosts, name, partitions)
        self._hosted = hosts.hosted

    def wait_in_sync(self, within_s: float = HOSTS_IN_SYNC_WITHIN_S) -> None:
        self._hosted.await_in_sync("the fault", within_s)


class HostFaults(Measured):
    """Faults of the hosts of ``hosts``: one that leads partitions, and has a given role besides."""

    def __init__(self, hosts: Hosts, topic: Topic, load: Load, rng: random.Random, show_timeline: bool) -> None:
        super().__init__(topic, load, rng, show_timeline)
        self._hosted = hosts.hosted

    def cut(self, role: str) -> Outcome:
        """Take the cable out of a host, and put it back once writes go on."""
        host = self._host(role, self._hosted.hosts)
        what = self._hosted.described(host)
        return self._measure("link of a host cut", what, host.cut, host.heal, _WATCH_S)

    def power_off(self, role: str) -> Outcome:
        """Pull the cord of a host that is not the head of the Ray cluster; power comes back once writes go on."""
        host = self._host(role, self._hosted.hosts[1:])
        what = self._hosted.described(host)
        return self._measure("power cut of a host", what, host.power_off, host.power_on, _WATCH_S)

    def _host(self, role: str, choices: list[Host]) -> Host:
        """Of the hosts whose broker leads, one with ``role``, else one with any, else any; a follower has none."""
        leaders = set(self.topic.leaders().values())
        roles = {host: self._hosted.roles(host) for host in choices}

        def fitness(host: Host) -> tuple[bool, bool, int, float]:
            fits = not roles[host] if role == "follower" else any(role in found for found in roles[host])
            return self._hosted.broker_of(host) in leaders, fits, len(roles[host]), self.rng.random()

        return max(choices, key=fitness)
