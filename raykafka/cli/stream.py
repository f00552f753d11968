"""`raykafka produce` and `raykafka consume`: lines in, lines out."""

from __future__ import annotations

import sys
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, BinaryIO

import click

from raykafka.cli.options import ClusterAddress, cluster_options

if TYPE_CHECKING:
    from raykafka.client import Record, RecordMetadata

_IN_FLIGHT = 10_000


@click.command()
@click.argument("topic")
@click.argument("source", type=click.File("rb"), default="-")
@click.option("--key-separator", metavar="TEXT", help="What stands between key and value in a line (default: no keys).")
@click.option("--acks", type=click.Choice(["0", "1", "all"]), default="all", show_default=True)
@cluster_options
def produce(at: ClusterAddress, topic: str, source: BinaryIO, key_separator: str | None, acks: str) -> None:
    """Send each line of SOURCE (default: standard input) to TOPIC as a record."""
    producer = at.cluster().producer(acks=acks, enable_idempotence=acks == "all")
    waiting: deque[Future[RecordMetadata]] = deque()
    sent = 0
    for line in source:
        key, value = _split(line.rstrip(b"\r\n"), key_separator)
        waiting.append(producer.send(topic, value, key))
        sent += 1
        while waiting and (len(waiting) > _IN_FLIGHT or waiting[0].done()):
            waiting.popleft().result()
    producer.flush()
    for delivered in waiting:
        delivered.result()
    click.echo(f"Sent {sent} records to {topic}.", err=True)


def _split(line: bytes, separator: str | None) -> tuple[bytes | None, bytes]:
    if separator is None:
        return None, line
    key, found, value = line.partition(separator.encode())
    return (key, value) if found else (None, line)


@click.command()
@click.argument("topic")
@click.option("-g", "--group", help="Read as a member of this group, and commit (default: alone, without commits).")
@click.option("--from-beginning", is_flag=True, help="Start at the first record where nothing was committed.")
@click.option("-n", "--max-records", type=click.IntRange(1), help="Stop after this many.")
@click.option("--timeout", "timeout_s", type=float, help="Stop when nothing came for this many seconds.")
@click.option(
    "--format", "form", default="%v", show_default=True, help="%v value, %k key, %p partition, %o offset, %t time."
)
@cluster_options
def consume(
    at: ClusterAddress,
    topic: str,
    group: str | None,
    from_beginning: bool,
    max_records: int | None,
    timeout_s: float | None,
    form: str,
) -> None:
    """Print the records of TOPIC, one on a line, until interrupted."""
    reset = "earliest" if from_beginning else "latest"
    consumer = at.cluster().consumer(topic, group, auto_offset_reset=reset)
    output = sys.stdout.buffer
    seen, last = 0, time.monotonic()
    try:
        while max_records is None or seen < max_records:
            room = 500 if max_records is None else min(500, max_records - seen)
            records = consumer.consume(room, 0.2)
            for record in records:
                output.write(_line(record, form))
            output.flush()
            seen += len(records)
            if records:
                last = time.monotonic()
            elif timeout_s is not None and time.monotonic() - last > timeout_s:
                break
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()
    click.echo(f"Read {seen} records.", err=True)


def _line(record: Record, form: str) -> bytes:
    if form == "%v":
        return (record.value or b"") + b"\n"
    parts = {
        b"%v": record.value or b"",
        b"%k": record.key or b"",
        b"%p": str(record.partition).encode(),
        b"%o": str(record.offset).encode(),
        b"%t": str(record.timestamp_ms).encode(),
    }
    pieces, rest = [], form.encode()
    while rest:
        size = 2 if rest[:2] in parts else 1
        pieces.append(parts.get(rest[:2], rest[:1]))
        rest = rest[size:]
    return b"".join(pieces) + b"\n"
