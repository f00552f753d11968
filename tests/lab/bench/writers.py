"""Clients on confluent-kafka, in this process: as fast as it goes, a record to each partition, each once a second."""

from __future__ import annotations

import time
from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tests.lab.bench.measured import ClientError, Measured, percentile
from tests.lab.bench.memory import require_memory
from tests.lab.bench.topics import Topics

TIMEOUT_S = 180.0
SLICES_PER_S = 20
LOOK_EVERY_S = 0.25
LATE = 1.1  # a client that takes this many times as long as its rate asks for has not kept to its rate
# Asks again soon for a topic that the broker does not know yet: a pause of the client is no part of the system's time.
EAGER_FOR_METADATA = {"topic.metadata.refresh.fast.interval.ms": 20, "retry.backoff.ms": 20}


class Writer:
    """A producer that counts what is acknowledged. Any error of a record raises KafkaException."""

    def __init__(self, bootstrap: str, settings: Mapping[str, object], *, timed: bool = False) -> None:
        own = {"queue.buffering.max.messages": 500_000, "message.timeout.ms": int(TIMEOUT_S * 1000), "log_level": 3}
        self._producer = Producer({"bootstrap.servers": bootstrap, **own, **settings})
        self._report = self._timed if timed else self._counted
        self.sent = self.acknowledged = 0
        self.latencies_ms: list[float] = []  # of a timed one, for each acknowledged record

    def send(self, topic: str, value: bytes, partition: int = -1) -> None:
        """``partition`` -1 leaves the choice to the client."""
        while True:
            try:
                self._producer.produce(topic, value, partition=partition, on_delivery=self._report)
                break
            except BufferError:
                self._producer.poll(0.01)
        self.sent += 1
        self._producer.poll(0)

    def poll(self, within_s: float) -> None:
        self._producer.poll(within_s)

    def wait(self) -> None:
        """Until all is acknowledged. Raises ClientError when that takes too long or the memory runs out."""
        deadline = time.monotonic() + TIMEOUT_S
        try:
            while self._producer.flush(LOOK_EVERY_S):
                require_memory()
                if time.monotonic() > deadline:
                    raise ClientError("the time is over")
        except ClientError as error:
            self._producer.purge()
            said = f"{error}; {self.acknowledged} of {self.sent} records were acknowledged within {TIMEOUT_S:.0f} s"
            raise ClientError(said) from None

    def _counted(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            raise KafkaException(error)
        self.acknowledged += 1

    def _timed(self, error: KafkaError | None, message: Message) -> None:
        self._counted(error, message)
        self.latencies_ms.append(message.latency() * 1000)


def as_fast_as_it_goes(bootstrap: str, topic: str, *, records: int, size: int, props: Mapping[str, object]) -> Measured:
    """From the first produce() to the last acknowledgement."""
    writer, value = Writer(bootstrap, props), bytes(size)
    began = time.monotonic()
    for _ in range(records):
        writer.send(topic, value)
    writer.wait()
    return Measured(records, records * size, time.monotonic() - began)


def to_each(writer: Writer, topic: str, partitions: int, size: int) -> Measured:
    """A record to each partition at once, until the last is acknowledged."""
    began, value = time.monotonic(), bytes(size)
    for partition in range(partitions):
        writer.send(topic, value, partition)
    writer.wait()
    return Measured(partitions, partitions * size, time.monotonic() - began)


def first_writes(
    bootstrap: str, topic: str, topics: Topics, *, partitions: int, size: int, props: Mapping[str, object]
) -> Measured:
    """Creates the topic; measures from the moment at which that is acknowledged, when a record goes to each partition.

    The producer has written to every broker before, so that it is connected. That it learns of the topic is measured:
    any client has to.
    """
    before = f"{topic}-before"
    topics.create(before, topics.replication)
    try:
        writer = Writer(bootstrap, {**props, **EAGER_FOR_METADATA})
        to_each(writer, before, topics.replication, size)
        topics.create(topic, partitions)
        return to_each(writer, topic, partitions, size)
    finally:
        topics.delete(before)


def each_once_a_second(
    bootstrap: str, topic: str, *, partitions: int, records: int, size: int, props: Mapping[str, object]
) -> Measured:
    """A record to each partition every second, spread over the second. ClientError when that rate is not kept."""
    writer, value = Writer(bootstrap, props, timed=True), bytes(size)
    seconds, per_slice = records / partitions, partitions / SLICES_PER_S
    began, cpu_before = time.monotonic(), time.process_time()
    for number in range(round(seconds * SLICES_PER_S)):
        while (early_s := began + number / SLICES_PER_S - time.monotonic()) > 0:
            writer.poll(early_s)
        for k in range(round(number * per_slice), round((number + 1) * per_slice)):
            writer.send(topic, value, k % partitions)
        if number % SLICES_PER_S == 0:
            require_memory()
    writer.wait()
    took, cpu_s = time.monotonic() - began, time.process_time() - cpu_before
    if took > seconds * LATE + 1:
        raise ClientError(f"{writer.sent} records took {took:.1f} s instead of {seconds:.1f} s")
    latencies = sorted(writer.latencies_ms)
    return Measured(writer.sent, writer.sent * size, took, percentile(latencies, 50), percentile(latencies, 99), cpu_s)
