"""Clients that produce and consume until told to stop, whatever happens to the brokers, and keep book of it.

Each produces numbers, acks=all and idempotent, to a topic of its own, reads them in a group of its own, and commits.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

import raykafka
from raykafka.client import RecordMetadata
from tests.lab.peer.kafka import tool_command

PER_S = 150
_END_WITHIN_S = 120


class Rider(ABC):
    """``acked`` are the numbers that were acknowledged; ``read`` holds them by (partition, offset); ``commits`` counts
    those that succeeded; ``refused`` holds every error that the client's documentation does not call retriable."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.bootstrap = bootstrap
        self.topic = topic
        self.acked: list[int] = []
        self.read: dict[tuple[int, int], int] = {}
        self.commits = 0
        self.refused: list[str] = []
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    @abstractmethod
    def start(self) -> None:
        """Begin to produce and to consume."""

    def stop_producing(self) -> None:
        """Send nothing more, and wait for what was sent."""
        self.stopping.set()
        for thread in self._threads:
            thread.join(_END_WITHIN_S)

    @abstractmethod
    def end(self) -> None:
        """Leave nothing running."""

    def took(self, partition: int, offset: int, number: int) -> None:
        if self.read.setdefault((partition, offset), number) != number:
            self.refused.append(f"{partition}:{offset} was {self.read[partition, offset]} and is {number}")

    def progress(self) -> tuple[int, int, int]:
        return len(self.acked), len(self.read), self.commits

    def run(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:
                self.refused.append(f"{type(error).__name__}: {error}")

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()


class Handles(Rider):
    """raykafka's own handles."""

    def start(self) -> None:
        cluster = raykafka.connect(self.bootstrap)
        self._producer = cluster.producer()
        self._consumer = cluster.consumer(self.topic, group=f"{self.topic}-readers", enable_auto_commit=False)
        self._ended = threading.Event()
        self.run(self._produce)
        self._reader = threading.Thread(target=self._consume, daemon=True)
        self._reader.start()

    def _produce(self) -> None:
        number = 0
        while not self.stopping.wait(1 / PER_S):
            self._producer.send(self.topic, number).add_done_callback(self._delivered(number))
            number += 1
        self._producer.flush(_END_WITHIN_S)

    def _delivered(self, number: int) -> Callable[[Future[RecordMetadata]], None]:
        def delivered(future: Future[RecordMetadata]) -> None:
            if future.exception() is None:
                self.acked.append(number)
            else:
                self.refused.append(f"send: {future.exception()}")

        return delivered

    def _consume(self) -> None:
        while not self._ended.is_set():
            try:
                records = self._consumer.consume(100, 0.2)
                for record in records:
                    self.took(record.partition, record.offset, record.json())
                if records:
                    self._consumer.commit()
                    self.commits += 1
            except raykafka.RaykafkaError as error:
                self.refused.append(f"consumer: {type(error).__name__}: {error}")
        self._consumer.close()

    def end(self) -> None:
        self._ended.set()
        self._reader.join(_END_WITHIN_S)
        self._producer.close()


class Aiokafka(Rider):
    """A client that shares no code with the others."""

    def start(self) -> None:
        self._ended = threading.Event()
        self.run(lambda: asyncio.run(self._produce()))
        self._reader = threading.Thread(target=lambda: asyncio.run(self._consume()), daemon=True)
        self._reader.start()

    def _note(self, what: str, error: Exception) -> None:
        if not getattr(error, "retriable", False):
            self.refused.append(f"{what}: {type(error).__name__}: {error}")

    async def _produce(self) -> None:
        number = 0
        waiting: list[asyncio.Task[None]] = []
        async with AIOKafkaProducer(
            bootstrap_servers=self.bootstrap, enable_idempotence=True, acks="all", retry_backoff_ms=50
        ) as producer:
            while not self.stopping.is_set():
                sent = await producer.send(self.topic, b"%d" % number)
                waiting.append(asyncio.create_task(self._wait_for(number, sent)))
                number += 1
                await asyncio.sleep(1 / PER_S)
            await asyncio.gather(*waiting)

    async def _wait_for(self, number: int, sent: asyncio.Future[Any]) -> None:
        try:
            await sent
            self.acked.append(number)
        except Exception as error:
            self.refused.append(f"send: {type(error).__name__}: {error}")

    async def _consume(self) -> None:
        async with AIOKafkaConsumer(
            self.topic,
            bootstrap_servers=self.bootstrap,
            group_id=f"{self.topic}-readers",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=30_000,
            retry_backoff_ms=50,
        ) as consumer:
            while not self._ended.is_set():
                try:
                    taken = await consumer.getmany(timeout_ms=200, max_records=100)
                    for partition, records in taken.items():
                        for record in records:
                            self.took(partition.partition, record.offset, int(record.value))
                    if taken:
                        await consumer.commit()
                        self.commits += 1
                except Exception as error:
                    self._note("consumer", error)

    def end(self) -> None:
        self._ended.set()
        self._reader.join(_END_WITHIN_S)


class Java(Rider):
    """Kafka's own client, in the tools with which Kafka tests itself: what they meet they print as JSON."""

    def __init__(self, bootstrap: str, topic: str, directory: Path) -> None:
        super().__init__(bootstrap, topic)
        self._directory = directory
        self._processes: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        # the tool's own settings give up at the first error, which the client's defaults do not
        patient = self._directory / "producer.properties"
        patient.write_text("enable.idempotence=true\nretries=2147483647\nretry.backoff.ms=50\n")
        self._producer = self._tool(
            self._produced,
            "kafka-verifiable-producer",
            *("--throughput", str(PER_S), "--acks", "-1", "--producer.config", str(patient)),
        )
        self._tool(self._consumed, "kafka-verifiable-consumer", "--verbose", "--group-id", f"{self.topic}-readers")

    def _tool(self, took: Callable[[Mapping[str, Any]], None], name: str, *arguments: str) -> subprocess.Popen[str]:
        command = tool_command(name, "--bootstrap-server", self.bootstrap, "--topic", self.topic, *arguments)
        with open(self._directory / f"{name}.log", "w") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
        self._processes.append(process)

        def follow() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    took(json.loads(line))

        self.run(follow)
        return process

    def _produced(self, event: Mapping[str, Any]) -> None:
        if event["name"] == "producer_send_success":
            self.acked.append(int(event["value"]))
        elif event["name"] == "producer_send_error":
            self.refused.append(f"send: {event}")

    def _consumed(self, event: Mapping[str, Any]) -> None:
        if event["name"] == "record_data":
            self.took(event["partition"], event["offset"], int(event["value"]))
        elif event["name"] == "offsets_committed":
            if event["success"]:
                self.commits += 1
            else:
                self.refused.append(f"commit: {event}")

    def stop_producing(self) -> None:
        self._producer.terminate()  # it sends nothing more, and ends once all is acknowledged
        self._producer.wait(_END_WITHIN_S)
        self._threads[0].join(_END_WITHIN_S)

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            process.wait(_END_WITHIN_S)
        for thread in self._threads:
            thread.join(_END_WITHIN_S)
