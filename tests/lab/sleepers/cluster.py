"""The cluster whose partitions sleep: its topics, who leads what, and waiting until all is well or quiet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator

from confluent_kafka import ElectionType, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.lab.clusters.systems import BROKERS, System
from tests.lab.clusters.topic import wait_all_brokers
from tests.lab.cpu import cpu_seconds
from tests.lab.sleepers.probes import Place, spares
from tests.lab.waiting import until
from tests.lab.wire import WireConnection

WRITTEN = "written"
WRITTEN_PARTITIONS = 10
CREATE_WITHIN_S = 300.0
QUIET_CORES = 0.35
QUIET_WITHIN_S = 120.0
RECORDS_EACH = 20


class Cluster:
    """``partitions`` in all, over ``topics`` topics that sleep and one, of ten partitions, that is written."""

    def __init__(self, system: System, partitions: int, topics: int, replication: int) -> None:
        self.system, self.replication = system, replication
        count, extra = divmod(partitions - WRITTEN_PARTITIONS, topics)
        self.sleeping = {f"sleeping-{i}": count + (i < extra) for i in range(topics)}
        self.partitions = partitions
        self._client: AdminClient | None = None

    @property
    def _admin(self) -> AdminClient:
        if self._client is None:
            self._client = AdminClient({"bootstrap.servers": self.system.bootstrap, "log_level": 0})
        return self._client

    def address(self, broker: int) -> str:
        return self.system.bootstrap.split(",")[broker]

    @contextlib.contextmanager
    def wires(self) -> Iterator[list[WireConnection]]:
        """A connection to each broker."""
        made = [WireConnection(self.address(broker)) for broker in range(BROKERS)]
        try:
            yield made
        finally:
            for wire in made:
                wire.socket.close()

    def create(self) -> float:
        """All topics, by one request; how long its answer took."""
        wait_all_brokers(self._admin, CREATE_WITHIN_S)
        settings = {"min.insync.replicas": "2"} if self.replication > 1 else {}
        sizes = {WRITTEN: WRITTEN_PARTITIONS, **self.sleeping}
        new = [NewTopic(name, count, self.replication, config=settings) for name, count in sizes.items()]
        began = time.monotonic()
        for future in self._admin.create_topics(new, operation_timeout=CREATE_WITHIN_S).values():
            future.result(CREATE_WITHIN_S)
        return time.monotonic() - began

    def places(self) -> list[Place]:
        """The sleeping partitions."""
        return [Place(topic, partition) for topic, count in self.sleeping.items() for partition in range(count)]

    def controller(self) -> int:
        return int(self._admin.describe_cluster(request_timeout=10).result(10).controller.id)

    def elect_preferred(self) -> None:
        """Have every sleeping partition led by its first replica again."""
        every = [TopicPartition(*place) for place in self.places()]
        self._admin.elect_leaders(ElectionType.PREFERRED, every).result(60)

    def write(self, places: Iterable[Place]) -> None:
        """Some records to each of ``places``, acks=all."""
        failed: list[object] = []
        producer = Producer({"bootstrap.servers": self.system.bootstrap, "log_level": 0, "linger.ms": 1})
        for topic, partition in places:
            for number in range(RECORDS_EACH):
                producer.produce(
                    topic, b"%d" % number, partition=partition, on_delivery=lambda e, _: failed.append(e) if e else None
                )
        if producer.flush(CREATE_WITHIN_S) or failed:
            raise RuntimeError(f"records were not acknowledged: {failed[:3]}")

    def wait_spares(self, at_least: int = 1) -> None:
        """Until every broker has spare replicas. Raises TimeoutError."""
        until(
            lambda: all(spares(port) >= at_least for port in self.system.metrics_ports),
            "every broker has a spare replica",
            QUIET_WITHIN_S,
            look_every_s=0.1,
        )

    def wait_awake(self, replicas: int) -> None:
        """Until so many replicas have a process."""
        what = f"{replicas} replicas are awake"
        until(lambda: self._awake() >= replicas, what, QUIET_WITHIN_S, look_every_s=1)

    def wait_asleep(self) -> None:
        """Until every replica sleeps and the processes are quiet."""
        until(lambda: not self._awake(), "every replica sleeps", QUIET_WITHIN_S * 3, look_every_s=1)
        self.wait_quiet()

    def _awake(self) -> int:
        return sum(role == "replica" for role in self.system.roles().values())

    def wait_quiet(self) -> None:
        """Until the cluster's processes take little of the processors."""
        deadline = time.monotonic() + QUIET_WITHIN_S
        while time.monotonic() < deadline:
            pids = self.system.pids()
            before, began = cpu_seconds(pids), time.monotonic()
            time.sleep(1)
            after = cpu_seconds(pids)
            used = sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())
            if used / (time.monotonic() - began) < QUIET_CORES:
                return
