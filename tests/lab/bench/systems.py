"""The systems that race: how each is started, stopped, and which of its processes plays which role."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tests.lab.clusters.actors import AUTO, Actors
from tests.lab.clusters.deployed import RaykafkaCluster
from tests.lab.clusters.peer import Peer
from tests.lab.clusters.systems import RAY, CountedCluster
from tests.lab.peer.kafka import VERSIONS

# A row's files are gone before the next row begins: nobody's disk is busy with what another system has left.
SOON_DELETED = {"log.segment.delete.delay.ms": "1000"}


class Raykafka:
    def __init__(self, actors: Actors, brokers: int) -> None:
        self.name = raykafka_name(actors)
        config = {"group.initial.rebalance.delay.ms": 0, **SOON_DELETED}
        self._cluster = RaykafkaCluster(brokers=brokers, config=config, actors=actors)

    @property
    def bootstrap(self) -> str:
        return self._cluster.bootstrap

    def start(self) -> None:
        self._cluster.deploy()

    def stop(self) -> None:
        self._cluster.take_down()

    def pids(self) -> list[int]:
        return [process.pid for process in self._cluster.processes()]

    def roles(self) -> dict[int, str]:
        roles = {actor["pid"]: actor["role"] for actor in self._cluster.status()["actors"] if actor["pid"]}
        for process in self._cluster.processes():
            roles.setdefault(process.pid, "zookeeper" if process.name() == "java" else RAY)
        return roles


RAYKAFKA = "raykafka"
KAFKAS = {f"kafka-{version}": version for version in VERSIONS}
SYSTEMS = (RAYKAFKA, *KAFKAS)


def raykafka_name(actors: Actors) -> str:
    return "raykafka" if actors == AUTO else f"raykafka, replica.actors: {actors}"


def systems(chosen: Sequence[str], actors: Sequence[Actors]) -> dict[str, Callable[[int], CountedCluster]]:
    """Those of ``SYSTEMS`` that are chosen, raykafka once for each of ``actors``, by the name under which figures are
    shown; each is called with the number of brokers."""
    found: dict[str, Callable[[int], CountedCluster]] = {}
    if RAYKAFKA in chosen:
        found |= {raykafka_name(count): partial(Raykafka, count) for count in actors}
    return found | {
        f"Kafka {KAFKAS[name]}": partial(Peer, KAFKAS[name], settings=SOON_DELETED) for name in chosen if name in KAFKAS
    }
