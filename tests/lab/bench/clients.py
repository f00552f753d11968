"""The clients that load a system, the same for both, and what they measure."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tests.lab.peer.kafka import tool_command

TIMEOUT_S = 180.0
MB = 1e6


class ClientError(Exception):
    """A client failed, lost records or took too long; the message is what it said."""


@dataclass(frozen=True)
class Measured:
    """What one run of a client showed. Latencies are from the client's send to its acknowledgement."""

    records: int
    bytes: int
    seconds: float
    p50_ms: float | None = None
    p99_ms: float | None = None

    @property
    def mb_per_s(self) -> float:
        return self.bytes / MB / self.seconds

    @property
    def records_per_s(self) -> float:
        return self.records / self.seconds


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ClientError(f"not finished after {TIMEOUT_S:.0f} s") from None
    if done.returncode != 0:
        raise ClientError((done.stdout + done.stderr)[-1000:])
    return done.stdout


def producer_perf(
    bootstrap: str, topic: str, *, records: int, size: int, per_s: int, props: Mapping[str, object]
) -> Measured:
    """Kafka's kafka-producer-perf-test; ``per_s`` -1 is as fast as it goes."""
    arguments = ["--topic", topic, "--num-records", str(records), "--record-size", str(size)]
    arguments += ["--throughput", str(per_s), "--producer-props", f"bootstrap.servers={bootstrap}"]
    arguments += [f"{key}={value}" for key, value in props.items()]
    last = _run(tool_command("kafka-producer-perf-test", *arguments)).strip().splitlines()[-1]
    match = re.match(
        r"(\d+) records sent, ([\d.]+) records/sec .*?(\d+) ms 50th, \d+ ms 95th, (\d+) ms 99th", last.replace(",", ",")
    )
    if match is None or int(match[1]) != records:
        raise ClientError(f"kafka-producer-perf-test said: {last}")
    rate = float(match[2])
    return Measured(records, records * size, records / rate, float(match[3]), float(match[4]))


def consumer_perf(bootstrap: str, topic: str, *, records: int, size: int) -> Measured:
    """Kafka's kafka-consumer-perf-test; its fetch time, without the time to join the group."""
    arguments = ["--bootstrap-server", bootstrap, "--topic", topic, "--messages", str(records), "--timeout", "30000"]
    arguments += ["--group", "bench"]
    out = _run(tool_command("kafka-consumer-perf-test", *arguments))
    header, values = (line.split(", ") for line in out.strip().splitlines()[-2:])
    row = dict(zip(header, values, strict=True))
    got = int(row["data.consumed.in.nMsg"])
    if got < records:
        raise ClientError(f"kafka-consumer-perf-test got {got} of {records} records")
    return Measured(got, got * size, int(row["fetch.time.ms"]) / 1000)


def confluent_producer(bootstrap: str, topic: str, *, records: int, size: int, props: Mapping[str, object]) -> Measured:
    """confluent-kafka in this process, from the first produce() to the last acknowledgement."""
    producer = Producer({"bootstrap.servers": bootstrap, "queue.buffering.max.messages": 500_000, **props})
    delivered = 0

    def report(error: KafkaError | None, _: Message) -> None:
        nonlocal delivered
        if error is not None:
            raise KafkaException(error)
        delivered += 1

    value = bytes(size)
    started = time.monotonic()
    for _ in range(records):
        while True:
            try:
                producer.produce(topic, value, on_delivery=report)
                break
            except BufferError:
                producer.poll(0.01)
        producer.poll(0)
    left = producer.flush(TIMEOUT_S)
    seconds = time.monotonic() - started
    if left or delivered != records:
        raise ClientError(f"{delivered} of {records} records were acknowledged within {TIMEOUT_S:.0f} s")
    return Measured(records, records * size, seconds)
