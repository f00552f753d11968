"""The data path of a broker for tests: a real replica actor with its partitions and handlers, in the test's own event
loop; no cluster. What the broker and the controller would decide, the test does (``open``, ``lead``).
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import shutil
import struct
import tempfile
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kio.serial import entity_reader, entity_writer

from raykafka.cluster.image import BrokerInfo, ClusterImage, Endpoint, ImageDelta, PartitionState, Topic, delta_to_json
from raykafka.link import Link, connect_unix, handover, serve_unix
from raykafka.log.batch import Record, build_batch
from raykafka.partition.access import PartitionAccess
from raykafka.partition.appends import ANY_EPOCH, Appended
from raykafka.process.tasks import TaskSet
from raykafka.protocol import acl, codec, dispatch
from raykafka.protocol.gate import Gate
from raykafka.protocol.session import ClientSession
from raykafka.replica_actor.partitions import ServedPartitions
from raykafka.replica_actor.server import ReplicaActorServer
from raykafka.types import PartitionKey, TopicPartition
from tests.lab.loop_waiting import until
from tests.lab.served import APIS, request_context

BROKER = 0
SECRET = b"secret"
HANGS_S = 30.0
TOPIC = "events"


class Dataplane:
    """What handlers take for their process: a replica actor in the test's own event loop. Its broker is the test, at
    the other end of a real Unix socket (``broker``): it opens every partition of the image unless ``opens`` is false.

    ``heard`` is what the actor told its broker: (method, arguments). ``async with`` starts it on ``directory``, and
    ends it as the end of its broker does.
    """

    def __init__(self, directory: Path, *, config: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.denied: set[str] = set()
        self.charged: list[tuple[str, int]] = []
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.opens = True
        self.elects = True
        self._config = dict(config or {})
        self._number = 0
        self._open: dict[TopicPartition, uuid.UUID] = {}
        self._tasks = TaskSet("the test's broker")
        endpoint = Endpoint("TEST", "127.0.0.1", 9092)
        brokers = {
            b: BrokerInfo(b, 0, (dataclasses.replace(endpoint, port=9092 + b),), "127.0.0.1", 0, "", "", True)
            for b in (BROKER, 1)
        }
        self.image = ClusterImage("test", brokers=brokers)

    async def __aenter__(self) -> Dataplane:
        self._sockets = tempfile.TemporaryDirectory()
        accepted: asyncio.Queue[Link] = asyncio.Queue()
        path = f"{self._sockets.name}/s"
        self._listening = await serve_unix(path, SECRET, {"role": "broker"}, accepted.put_nowait)
        link = await connect_unix(path, SECRET, {"role": "replica"})
        self.broker = await accepted.get()
        self.broker.start(on_call=self._hear)
        self._handed = handover.listen(f"{self._sockets.name}/a{handover.SUFFIX}")
        begin = {"number": 0, "broker_id": BROKER, "log_dir": str(self.directory), "config": self._config}
        self.server = ReplicaActorServer(link, SECRET, self._handed, begin)
        self.server.gate = Gate(APIS, authorizer=self, quotas=self)
        self.server.start()
        self.lease = True
        await self._tell(True, self.image.as_delta())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.broker.close()
        await self.server.ended
        await self._tasks.close()
        self._listening.close()
        self._handed.close()
        self._sockets.cleanup()

    async def _hear(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        self.heard.append((method, args))
        if method == "failed" and self.elects:
            self._open.pop(TopicPartition(args["topic"], args["partition"]), None)
            await self.lead(args["topic"], args["partition"])
        return {}

    # what handlers ask

    def allows(self, session: ClientSession, need: acl.Need, name: str) -> bool:
        return name not in self.denied

    def charge(self, session: ClientSession, client_id: str | None, kind: str, amount: int) -> int:
        self.charged.append((kind, amount))
        return 0

    @property
    def partitions(self) -> ServedPartitions:
        return self.server.partitions

    @property
    def gate(self) -> Gate:
        return self.server.gate

    @gate.setter
    def gate(self, gate: Gate) -> None:
        self.server.gate = gate

    @property
    def lease(self) -> bool:
        return self.server.holds_lease()

    @lease.setter
    def lease(self, holds: bool) -> None:
        self.server._lease_until = float("inf") if holds else 0.0

    # what a controller decides

    async def create(
        self, topic: str = TOPIC, partitions: int = 1, *, leader: int = BROKER, **config: str
    ) -> uuid.UUID:
        """A topic led by ``leader`` in epoch 0. Underscores in config names stand for dots."""
        topic_id = uuid.uuid4()
        replicas = tuple({leader, BROKER})
        states = {p: PartitionState(replicas, leader, 0, (leader,), 0) for p in range(partitions)}
        named = {name.replace("_", "."): value for name, value in config.items()}
        await self.take(ImageDelta(topics={topic: Topic(topic, topic_id, states, named)}))
        return topic_id

    async def lead(self, topic: str = TOPIC, partition: int = 0, leader: int = BROKER) -> None:
        """Elect ``leader`` in the next epoch."""
        old = self.image.topics[topic]
        state = old.partitions[partition]
        changed = dataclasses.replace(
            state,
            replicas=tuple({*state.replicas, leader}),
            leader=leader,
            leader_epoch=state.leader_epoch + 1,
            isr=(leader,),
            version=state.version + 1,
        )
        topics = {topic: dataclasses.replace(old, partitions={**old.partitions, partition: changed})}
        await self.take(ImageDelta(topics=topics))

    async def lead_unheard(self, topic: str = TOPIC) -> threading.Event:
        """Lead what another leads first, while the disk of its only replica hangs: that does not go by it until the
        event is set."""
        await self.lead(topic, leader=1)
        hosted = self.server._hosting.get(PartitionKey(topic, self.image.topics[topic].id, 0))
        assert hosted is not None
        log, heard = hosted.replica.log, threading.Event()
        replace = log.epochs.replace

        def replace_when_heard(history: Iterable[tuple[int, int]]) -> None:
            heard.wait(HANGS_S)
            replace(history)

        log.epochs.replace = replace_when_heard  # type: ignore[assignment]
        self._tasks.run(self.lead(topic))
        await until(lambda: hosted.served.state.leader == BROKER)
        return heard

    async def delete(self, topic: str = TOPIC) -> None:
        await self.take(ImageDelta(deleted_topics=(topic,)))

    async def take(self, delta: ImageDelta) -> None:
        """Have the actor go by a change of the image; open what that gives this broker, delete what it takes."""
        self.image = self.image.apply(delta)
        await self._tell(False, delta)
        wanted = {
            TopicPartition(topic.name, p): topic.id
            for topic in self.image.topics.values()
            for p, state in topic.partitions.items()
            if BROKER in state.replicas
        }
        for tp, topic_id in list(self._open.items()):
            if wanted.get(tp) != topic_id:
                await self.close(tp)
                shutil.rmtree(self.directory / f"{tp.topic}-{tp.partition}")
        if self.opens:
            for tp in wanted.keys() - self._open.keys():
                await self.open(tp)

    async def _tell(self, full: bool, delta: ImageDelta) -> None:
        self._number += 1
        args = {"number": self._number, "full": full, "cluster_id": self.image.cluster_id}
        await self.broker.call("image", {**args, "delta": delta_to_json(delta)})

    async def open(self, tp: TopicPartition, **known: Any) -> dict[str, Any]:
        """Have a partition's log opened. ``known`` is what a broker knows of it, nothing else."""
        topic_id = self._open[tp] = self.image.topics[tp.topic].id
        start = {"recovery_point": 0, "high_watermark": None, "log_start_offset": 0, "seal": None}
        answer: dict[str, Any] = await self.broker.call("open", {**_named(tp, topic_id), **start, **known})
        return answer

    async def close(self, tp: TopicPartition) -> dict[str, Any]:
        """Have a partition's log closed: what it left."""
        left: dict[str, Any] = await self.broker.call("close", _named(tp, self._open.pop(tp)))
        return left

    # requests

    async def ask(self, api_key: int, version: int, body: bytes | bytearray, client_id: str | None = "test") -> bytes:
        """The body of the response to a request body."""
        context = request_context(api_key, version, client_id, "TEST")
        return b"".join(await dispatch.serve(self.gate, self.server, context, memoryview(bytearray(body))))

    async def ask_entity(self, api_key: int, version: int, request: Any) -> Any:
        """The response entity of kio to a request entity of kio."""
        buffer = io.BytesIO()
        entity_writer(type(request))(buffer, request)
        return decode_response(api_key, version, await self.ask(api_key, version, buffer.getvalue()))

    async def produce(
        self, batch: bytes | bytearray, topic: str = TOPIC, partition: int = 0, *, version: int = 9, acks: int = -1
    ) -> Any:
        """The partition's part of a Produce response; None for acks=0."""
        body = produce_body(version, acks, [(topic, [(partition, batch)])])
        answer = await self.ask(0, version, body)
        if not answer:
            return None
        return decode_response(0, version, answer).responses[0].partition_responses[0]


def _named(tp: TopicPartition, topic_id: uuid.UUID) -> dict[str, Any]:
    return {"topic": tp.topic, "topic_id": str(topic_id), "partition": tp.partition}


async def append(
    partition: PartitionAccess, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int = ANY_EPOCH
) -> Appended:
    """The outcome of an append, awaited."""
    outcome: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
    partition.submit(records, acks, timeout_ms, leader_epoch, outcome.set_result)
    return await outcome


def decode_response(api_key: int, version: int, body: bytes) -> Any:
    entity, size = entity_reader(codec.response_class(api_key, version))(body, 0)
    assert size == len(body), "the response has more bytes than its schema"
    return entity


def batch(*values: bytes, timestamp: int = 1_000_000, **options: Any) -> bytearray:
    """A batch of records without keys, one millisecond apart."""
    return build_batch([Record(None, value, timestamp + i) for i, value in enumerate(values)], **options)


def produce_body(
    version: int,
    acks: int,
    topics: Sequence[tuple[str, Sequence[tuple[int, bytes | bytearray | None]]]],
    *,
    transactional_id: str | None = None,
    timeout_ms: int = 5000,
) -> bytes:
    """A Produce request body, written out from Kafka's protocol guide."""
    flexible = version >= 9

    def length(count: int) -> bytes:
        return unsigned_varint(count + 1) if flexible else struct.pack(">i", count)

    def text(value: str | None) -> bytes:
        if value is None:
            return b"\0" if flexible else b"\xff\xff"
        data = value.encode()
        return (unsigned_varint(len(data) + 1) if flexible else struct.pack(">h", len(data))) + data

    tags = b"\0" if flexible else b""
    out = bytearray(text(transactional_id) if version >= 3 else b"")
    out += struct.pack(">hi", acks, timeout_ms) + length(len(topics))
    for name, partitions in topics:
        out += text(name) + length(len(partitions))
        for index, records in partitions:
            out += struct.pack(">i", index) + length(-1 if records is None else len(records)) + (records or b"") + tags
        out += tags
    return bytes(out + tags)


def unsigned_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
