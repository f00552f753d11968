"""The cluster of many partitions: its topics, who leads what, and waiting until all is well or quiet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator

from confluent_kafka import ElectionType, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.lab.clusters.systems import BROKERS, Restartable
from tests.lab.clusters.topic import wait_all_brokers
from tests.lab.cpu import cpu_seconds, used_s
from tests.lab.many_partitions.probes import Place, states
from tests.lab.waiting import until
from tests.lab.wire import WireConnection

WRITTEN = "written"
CREATE_WITHIN_S = 300.0
QUIET_CORES = 0.35
QUIET_WITHIN_S = 120.0
RECORDS_EACH = 20
# of the time that a look at all partitions takes, how long the next one waits: looking must not be most of the load
REST = 3


class Cluster:
    """``partitions`` in all, each with a replica on every broker: ``written`` of one topic, which is written, and the
    others over ``topics`` topics that rest."""

    def __init__(self, system: Restartable, partitions: int, written: int, topics: int) -> None:
        self.system, self.partitions, self.written = system, partitions, written
        count, extra = divmod(partitions - written, topics)
        self.resting = {f"resting-{i}": count + (i < extra) for i in range(topics)}
        self._client: AdminClient | None = None

    @property
    def _admin(self) -> AdminClient:
        if self._client is None:
            self._client = AdminClient({"bootstrap.servers": self.system.bootstrap, "log_level": 0})
        return self._client

    def address(self, broker: int) -> str:
        return self.system.bootstrap.split(",")[broker]

    @contextlib.contextmanager
    def wire(self, broker: int) -> Iterator[WireConnection]:
        with WireConnection(self.address(broker), timeout_s=CREATE_WITHIN_S) as wire:
            yield wire

    def create(self) -> tuple[float, float]:
        """All topics, by one request: how long its answer took, and how long it took until all replicas of all
        partitions were in sync."""
        wait_all_brokers(self._admin, CREATE_WITHIN_S)
        sizes = {WRITTEN: self.written, **self.resting}
        new = [NewTopic(name, count, BROKERS, config={"min.insync.replicas": "2"}) for name, count in sizes.items()]
        began = time.monotonic()
        for future in self._admin.create_topics(new, operation_timeout=CREATE_WITHIN_S).values():
            future.result(CREATE_WITHIN_S)
        answered = time.monotonic()
        with self.wire(0) as wire:
            self.wait_in_sync(wire, CREATE_WITHIN_S)
        return answered - began, time.monotonic() - began

    def places(self) -> list[Place]:
        """The resting partitions."""
        return [Place(topic, partition) for topic, count in self.resting.items() for partition in range(count)]

    def wait_in_sync(self, wire: WireConnection, within_s: float) -> float:
        """Until every partition has a leader and all of its replicas in sync; the moment (``time.time``) at which it
        was asked that said so. Raises TimeoutError."""
        return self._wait(wire, lambda leader, isr: leader >= 0 and isr == BROKERS, "in sync", within_s)

    def wait_led(self, wire: WireConnection, within_s: float) -> float:
        """Until every partition has a leader, as ``wait_in_sync``."""
        return self._wait(wire, lambda leader, _: leader >= 0, "led", within_s)

    def _wait(self, wire: WireConnection, holds: Callable[[int, int], bool], what: str, within_s: float) -> float:
        deadline = time.monotonic() + within_s
        while True:
            asked, began = time.time(), time.monotonic()
            found = states(wire, [WRITTEN, *self.resting])
            so = sum(holds(*state) for state in found.values())
            if so == self.partitions:
                return asked
            if time.monotonic() > deadline:
                raise TimeoutError(f"{so} of {self.partitions} partitions are {what} after {within_s:.0f} s")
            time.sleep(max(0.1, REST * (time.monotonic() - began)))

    def controller(self) -> int:
        return int(self._admin.describe_cluster(request_timeout=10).result(10).controller.id)

    def elect_preferred(self) -> None:
        """Have every resting partition led by its first replica again."""
        every = [TopicPartition(*place) for place in self.places()]
        self._admin.elect_leaders(ElectionType.PREFERRED, every).result(CREATE_WITHIN_S)

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

    def wait_quiet(self) -> None:
        """Until the cluster's processes take little of the processors; not for ever, where they always take more."""
        with contextlib.suppress(TimeoutError):
            until(self._quiet, "the processes are quiet", QUIET_WITHIN_S)

    def _quiet(self) -> bool:
        pids = self.system.pids()
        before, began = cpu_seconds(pids), time.monotonic()
        time.sleep(1)
        return used_s(before, cpu_seconds(pids)) / (time.monotonic() - began) < QUIET_CORES
