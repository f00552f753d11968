"""Replica actors as real processes, with the half of a broker that keeps them and the port that clients connect to.
What a broker and a controller decide of partitions, the test does."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import struct
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raykafka.broker.acceptor import Acceptor
from raykafka.broker.children.children import Children
from raykafka.broker.neighbourhood.controller_link import ImageUpdate
from raykafka.broker.replica_actors import ReplicaActorProcess, ReplicaActors
from raykafka.broker.settings import BrokerSettings, ZooKeeperSettings
from raykafka.cluster.image import BrokerInfo, ClusterImage, Endpoint, ImageDelta, PartitionState, Topic, delta_to_json
from raykafka.log.batch import iter_batches, iter_records
from raykafka.process.clock import boot_clock
from raykafka.types import TopicPartition
from tests.lab.client_frames import read_response, request
from tests.lab.clusters.plain_broker import PlainStarter
from tests.lab.dataplane import TOPIC, batch, decode_response, produce_body
from tests.lab.loop_waiting import until

BROKER = 0
PRODUCE, FETCH = 0, 1
PRODUCE_VERSION, FETCH_VERSION = 9, 4
SECRET_HEX = "6b" * 32


class ActorProcesses:
    """``count`` replica actors of one broker, kept at that number; ``pool`` keeps them. ``heard`` is what they told of
    partitions: (actor, method, arguments)."""

    def __init__(self, directory: Path, count: int = 2) -> None:
        self.directory = directory
        self.heard: list[tuple[int, str, dict[str, Any]]] = []
        self._count = count
        endpoint = Endpoint("TEST", "127.0.0.1", 9092)
        broker = BrokerInfo(BROKER, 0, (endpoint,), "127.0.0.1", 0, "", "", True)
        self.image = ClusterImage("test", brokers={BROKER: broker})

    async def __aenter__(self) -> ActorProcesses:
        self._sockets = tempfile.TemporaryDirectory(prefix="rk-")
        settings = BrokerSettings(
            "test", BROKER, SECRET_HEX, str(self.directory), ZooKeeperSettings(""), (), (), "127.0.0.1", 0, "TEST"
        )
        self.children = Children(
            PlainStarter(settings),
            socket_path=f"{self._sockets.name}/children.sock",
            secret=settings.secret,
            identity={"role": "broker"},
        )
        await self.children.listen()
        self.pool = ReplicaActors(
            self.children,
            self._count,
            {"broker_id": BROKER, "log_dir": str(self.directory), "config": {}},
            answer=self._answer,
            forward=self._forward,
            paths_changed=lambda paths: None,
            homes_changed=lambda rows: None,
            room=lambda: self.port.go_on(),
        )
        self.port = Acceptor("TEST", "127.0.0.1", 0, self.pool.serve)
        self.port.bind()
        self.port.start()
        self.pool.tell_lease(boot_clock() + 3600)
        await self._relay(True, self.image.as_delta())
        self.pool.start(self)  # type: ignore[arg-type]
        await until(lambda: len(self.pool.living()) == self._count)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.port.stop()
        self.pool.stop()
        await self.children.stop()
        self._sockets.cleanup()

    async def _answer(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        return {}

    async def _forward(self, payload: memoryview) -> list[bytes | bytearray | memoryview]:
        return []

    # what the pool tells of (broker.partitions.Partitions)

    def actor_came(self, actor: ReplicaActorProcess) -> None: ...
    def actor_gone(self, number: int) -> None: ...
    def take_report(self, number: int, rows: list[Any]) -> None: ...
    def rebalance(self, busy: Mapping[int, float]) -> None: ...

    def said(self, number: int, method: str, args: dict[str, Any]) -> None:
        self.heard.append((number, method, args))

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    # what a controller decides

    async def create(self, topic: str = TOPIC, partitions: int = 1) -> None:
        """A topic of one replica, led by this broker in epoch 0; open nowhere."""
        states = {p: PartitionState((BROKER,), BROKER, 0, (BROKER,), 0) for p in range(partitions)}
        await self._take(ImageDelta(topics={topic: Topic(topic, uuid.uuid4(), states, {})}))

    async def lead(self, topic: str = TOPIC, partition: int = 0) -> None:
        """Lead on in the next epoch."""
        old = self.image.topics[topic]
        state = old.partitions[partition]
        state = dataclasses.replace(state, leader_epoch=state.leader_epoch + 1, version=state.version + 1)
        await self._take(
            ImageDelta(topics={topic: dataclasses.replace(old, partitions={**old.partitions, partition: state})})
        )

    async def _take(self, delta: ImageDelta) -> None:
        self.image = self.image.apply(delta)
        await self._relay(False, delta)

    async def _relay(self, full: bool, delta: ImageDelta) -> None:
        waits = self.pool.tell_image(self.image, ImageUpdate(full, delta_to_json(delta)))
        if waits:
            await asyncio.wait(waits)

    # what a broker decides

    def _named(self, tp: TopicPartition) -> dict[str, Any]:
        return {"topic": tp.topic, "topic_id": str(self.image.topics[tp.topic].id), "partition": tp.partition}

    async def open(self, tp: TopicPartition, number: int, *, seal: list[Any] | None = None) -> dict[str, Any]:
        """Have actor ``number`` open a log, and tell all that it has it."""
        known = {"recovery_point": 0, "high_watermark": None, "log_start_offset": 0, "seal": seal}
        answer = await self.pool.living()[number].open({**self._named(tp), **known})
        self.pool.placed([(tp, self.image.topics[tp.topic].id, number)])
        return answer

    async def move(self, tp: TopicPartition, number: int, to: int) -> None:
        """As ``broker.partitions.life`` has it moved."""
        left = await self.pool.living()[number].leave(self._named(tp))
        while not left["left"]:
            left = await self.pool.living()[number].leave(self._named(tp))
        await self.open(tp, to, seal=left["note"]["seal"])

    def gone(self, tp: TopicPartition) -> None:
        """Tell all that a log is open nowhere."""
        self.pool.placed([(tp, self.image.topics[tp.topic].id, -1)])

    def kill(self, number: int) -> None:
        os.kill(self.pool.living()[number].child.pid, signal.SIGKILL)

    async def successor(self, number: int) -> int:
        """The number of the actor that takes the place of ``number``, once it has come."""
        await until(lambda: number not in self.pool.living() and len(self.pool.living()) == self._count)
        return max(self.pool.living())

    # clients

    async def client(self, number: int) -> Client:
        """A client whose connection actor ``number`` serves."""
        own, other = socket.socketpair()
        self.pool.living()[number].giver.give(other, {"client": "TEST"})
        return Client(*await asyncio.open_connection(sock=own))

    async def connect(self) -> Client:
        """A client that connects to the port."""
        return Client(*await asyncio.open_connection("127.0.0.1", self.port.port))


class Client:
    """A client's connection: requests go out in order, and so do their answers come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._correlation = 0

    def send(self, key: int, version: int, body: bytes = b"") -> int:
        """Send a request: its correlation id."""
        self._correlation += 1
        self.writer.write(request(key, version, self._correlation, body))
        return self._correlation

    def send_produce(self, *values: bytes, acks: int = -1, partition: int = 0, **batch_options: Any) -> int:
        body = produce_body(PRODUCE_VERSION, acks, [(TOPIC, [(partition, batch(*values, **batch_options))])])
        return self.send(PRODUCE, PRODUCE_VERSION, body)

    async def answer(self, correlation: int) -> bytes:
        """The answer to the oldest request that is not answered, which must be that one."""
        found, body = await asyncio.wait_for(read_response(self.reader), 60)
        assert found == correlation
        return body

    async def produced(self, correlation: int) -> Any:
        """The partition's part of the answer to a Produce request."""
        body = (await self.answer(correlation))[1:]  # behind the tags of the header
        return decode_response(PRODUCE, PRODUCE_VERSION, body).responses[0].partition_responses[0]

    async def produce(self, *values: bytes, **options: Any) -> Any:
        return await self.produced(self.send_produce(*values, **options))

    def send_fetch(self, offset: int = 0, partition: int = 0) -> int:
        head = struct.pack(">iiii b i", -1, 0, 1, 1 << 30, 0, 1) + struct.pack(">h", len(TOPIC)) + TOPIC.encode()
        return self.send(FETCH, FETCH_VERSION, head + struct.pack(">i iqi", 1, partition, offset, 1 << 30))

    async def fetched(self, correlation: int) -> list[bytes]:
        """The values in the answer to a Fetch request, which must be without an error."""
        answer = decode_response(FETCH, FETCH_VERSION, await self.answer(correlation))
        partition = answer.responses[0].partitions[0]
        assert partition.error_code.value == 0, partition.error_code
        data = memoryview(partition.records or b"")
        return [r.value or b"" for at, h in iter_batches(data) for r in iter_records(data[at : at + h.size])]

    async def fetch(self, offset: int = 0, partition: int = 0) -> list[bytes]:
        return await self.fetched(self.send_fetch(offset, partition))

    def close(self) -> None:
        self.writer.close()
