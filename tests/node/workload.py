"""A produce run that goes on through an outage, and the check afterwards that nothing acknowledged was lost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from types import TracebackType

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from tests.lab.background import Background
from tests.lab.waiting import until

DEADLINE_S = 90.0
SEND_INTERVAL_S = 0.01
_RETRY = {
    "message.timeout.ms": 180_000,
    "retry.backoff.ms": 50,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 500,
    "topic.metadata.refresh.interval.ms": 1000,
}
AT_LEAST_ONCE = {"acks": 1, "enable.idempotence": False}
IDEMPOTENT = {"enable.idempotence": True}
# as Kafka's table of error codes has it, and librdkafka's own words for a connection that is being looked for
RETRIABLE = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._WAIT_COORD,
    KafkaError._ALL_BROKERS_DOWN,
}


class ProduceRun(Background):
    """Sends 0, 1, 2, ... to each partition until stopped; remembers what was acknowledged, and at which offset."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, settings: Mapping[str, object]) -> None:
        super().__init__()
        self.topic, self.partitions = topic, partitions
        self.sent = [0] * partitions
        self.acknowledged: list[list[tuple[int, int]]] = [[] for _ in range(partitions)]  # (number, offset)
        self.failures: list[str] = []
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, **_RETRY, **settings})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is not None:
            self._producer.purge()

    def _run(self) -> None:
        while not self._over.wait(SEND_INTERVAL_S):
            for partition in range(self.partitions):
                number = self.sent[partition]
                try:
                    self._producer.produce(self.topic, b"%d" % number, partition=partition, on_delivery=self._report)
                    self.sent[partition] += 1
                except BufferError:
                    pass  # the queue is full until the brokers are back
            self._producer.poll(0)

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append(f"{message.topic()}-{message.partition()} {message.value()!r}: {error}")
        else:
            self.acknowledged[message.partition()].append((int(message.value()), message.offset()))

    def count(self) -> int:
        return min(len(numbers) for numbers in self.acknowledged)

    def wait_for_more(self, count: int) -> None:
        """Wait until each partition acknowledged ``count`` records more than now."""
        target = self.count() + count
        until(lambda: self.count() >= target, lambda: f"{self.topic}: {self.count()} of {target} acknowledged")

    def finish(self) -> None:
        """Send no more and wait for the acknowledgement of all that was sent."""
        self._over.set()
        self._thread.join()
        left = self._producer.flush(DEADLINE_S)
        assert left == 0, f"{left} records of {self.topic} were not acknowledged within {DEADLINE_S:.0f} s"
        assert self.failures == []


def read_all(bootstrap: str, topic: str, partition: int) -> list[int]:
    """Every number in the partition, in order of offset; the offsets have no gap."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "checker", "enable.auto.commit": False})
    try:
        end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)[1]
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
        found: list[int] = []
        deadline = time.monotonic() + DEADLINE_S
        while len(found) < end:
            assert time.monotonic() < deadline, f"{topic}-{partition}: read {len(found)} of {end}"
            for message in consumer.consume(10_000, timeout=0.5):
                assert message.error() is None, message.error()
                assert message.offset() == len(found)
                found.append(int(message.value()))
        return found
    finally:
        consumer.close()


def check(bootstrap: str, run: ProduceRun, *, in_order: bool = True) -> None:
    """Every acknowledged record is at the offset that was acknowledged, and the records are in the order of sending.

    ``in_order=False``: without idempotence, a batch whose request failed is sent again behind those that followed it.
    """
    for partition in range(run.partitions):
        stored = read_all(bootstrap, run.topic, partition)
        where = f"{run.topic}-{partition}"
        for number, offset in run.acknowledged[partition]:
            assert 0 <= offset < len(stored), (
                f"{where}: {number} was acknowledged at {offset}, the end is {len(stored)}"
            )
            assert stored[offset] == number, (
                f"{where}: {number} was acknowledged at {offset}, there is {stored[offset]}"
            )
        if not in_order:
            assert set(stored) == set(range(run.sent[partition])), f"{where}: not what was sent"
            continue
        first_times = list(dict.fromkeys(stored))
        late = [pair for pair in itertools.pairwise(first_times) if pair[0] > pair[1]]
        assert late == [], f"{where}: records are out of order: {late[:5]}; offset, first, last: {_runs(stored)}"


def _runs(stored: list[int]) -> list[tuple[int, int, int]]:
    """What is stored, as runs of consecutive numbers: where each begins, its first and its last number."""
    starts = [0, *(at for at in range(1, len(stored)) if stored[at] != stored[at - 1] + 1)]
    return [(at, stored[at], stored[end - 1]) for at, end in itertools.pairwise([*starts, len(stored)])]


def check_once(bootstrap: str, run: ProduceRun) -> None:
    """What an idempotent producer sent is there in order, each record exactly once."""
    check(bootstrap, run)
    for partition in range(run.partitions):
        assert read_all(bootstrap, run.topic, partition) == list(range(run.sent[partition])), f"{run.topic}-{partition}"
