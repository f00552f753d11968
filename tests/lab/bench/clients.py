"""The tools that load a system, the same for all: Kafka's perf tests and kcat, and what they print."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping

from tests.lab.bench.measured import ClientError, Measured
from tests.lab.peer.kafka import tool_command

TIMEOUT_S = 180.0
_PRODUCED = re.compile(r"(\d+) records sent, ([\d.]+) records/sec .*?(\d+) ms 50th, \d+ ms 95th, (\d+) ms 99th")


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
    return read_producer_perf(_run(tool_command("kafka-producer-perf-test", *arguments)), records, size)


def read_producer_perf(printed: str, records: int, size: int) -> Measured:
    """From its last line, which is of the whole run. Raises ClientError when it is of fewer records."""
    lines = printed.strip().splitlines()
    last = lines[-1] if lines else ""
    match = _PRODUCED.match(last)
    if match is None or int(match[1]) != records:
        raise ClientError(f"kafka-producer-perf-test said: {last}")
    return Measured(records, records * size, records / float(match[2]), float(match[3]), float(match[4]))


def consumer_perf(bootstrap: str, topic: str, *, records: int, size: int) -> Measured:
    """Kafka's kafka-consumer-perf-test; its fetch time, without the time to join the group."""
    arguments = ["--bootstrap-server", bootstrap, "--topic", topic, "--messages", str(records), "--timeout", "30000"]
    arguments += ["--group", "bench"]
    return read_consumer_perf(_run(tool_command("kafka-consumer-perf-test", *arguments)), records, size)


def read_consumer_perf(printed: str, records: int, size: int) -> Measured:
    """From its header and the line of values. Raises ClientError when it got fewer records."""
    lines = printed.strip().splitlines()[-2:]
    names, values = ([word.strip() for word in line.split(",")] for line in lines) if len(lines) == 2 else ([], [])
    row = dict(zip(names, values, strict=False))
    if "data.consumed.in.nMsg" not in row or "fetch.time.ms" not in row:
        raise ClientError(f"kafka-consumer-perf-test said: {printed[-1000:]}")
    got = int(row["data.consumed.in.nMsg"])
    if got < records:
        raise ClientError(f"kafka-consumer-perf-test got {got} of {records} records")
    return Measured(got, got * size, int(row["fetch.time.ms"]) / 1000)


def kcat_consume(bootstrap: str, topic: str, *, records: int, size: int) -> Measured:
    """kcat from the beginning of every partition, from its start to its end. It prints the size of each value alone, so
    that all are counted and what it prints weighs little."""
    command = ["kcat", "-C", "-q", "-b", bootstrap, "-t", topic, "-o", "beginning", "-c", str(records), "-f", "%S\\n"]
    began = time.monotonic()
    printed = _run(command)
    return read_kcat(printed, records, size, time.monotonic() - began)


def read_kcat(printed: str, records: int, size: int, seconds: float) -> Measured:
    """Raises ClientError when it got fewer records or any of another size."""
    sizes = printed.split()
    if len(sizes) != records or set(sizes) != {str(size)}:
        raise ClientError(f"kcat got {sizes.count(str(size))} of {records} records of {size} bytes")
    return Measured(records, records * size, seconds)
