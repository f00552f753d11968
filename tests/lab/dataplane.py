"""The data path of a broker for tests: real partitions, replicas over a real Unix socket, handlers; no cluster.

The replicas run in the test's own event loop. What the controller would decide, the test does (``lead``).
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import socket
import struct
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kio.serial import entity_reader, entity_writer

from raykafka.broker.configs import Configs
from raykafka.broker.neighbourhood.broker_calls import BrokerCalls
from raykafka.broker.partitions.partitions import Partitions
from raykafka.cluster.image import BrokerInfo, ClusterImage, Endpoint, ImageDelta, PartitionState, Topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.front.fetch_sessions import FetchSessions
from raykafka.link import Link, connect_unix, serve_unix
from raykafka.log.batch import Record, build_batch
from raykafka.partition.access import PartitionAccess
from raykafka.partition.appends import ANY_EPOCH, Appended
from raykafka.protocol import acl, codec, dispatch
from raykafka.protocol.gate import Gate
from raykafka.protocol.session import ClientSession
from raykafka.replica.rules.events import Propose
from raykafka.replica.server import ReplicaServer
from raykafka.types import TopicPartition
from tests.lab.served import APIS, request_context

BROKER = 0
SECRET = b"secret"
TOPIC = "events"


@dataclasses.dataclass(eq=False)
class LocalChild:
    link: Link
    replica: ReplicaServer
    actor_id: str = "local"
    pid: int = 0
    note: str = ""

    def kill(self) -> None:
        """What the broker sees of a process that dies."""
        self.replica._link.transport.abort()

    def hand_over(self, connection: socket.socket, peer: dict[str, Any]) -> None:
        raise OSError("a replica in the test's own process takes no connections over")

    def stop_reading(self) -> None:
        """What the broker sees of a process that hangs."""
        self.replica._link.transport.pause_reading()

    def read_on(self) -> None:
        self.replica._link.transport.resume_reading()


class LocalReplicas:
    """A replica source whose replicas live in this process. ``gate`` holds new ones back while it is cleared;
    ``hang_new`` has them hang from their beginning."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.gate = asyncio.Event()
        self.gate.set()
        self.hang_new = False
        self.acquired: list[LocalChild] = []
        self._accepted: asyncio.Queue[Link] = asyncio.Queue()
        self._server: asyncio.AbstractServer | None = None

    async def listen(self) -> None:
        self._server = await serve_unix(self.path, SECRET, {"role": "broker"}, self._accepted.put_nowait)

    async def acquire_replica(self) -> LocalChild:
        await self.gate.wait()
        replica = ReplicaServer(await connect_unix(self.path, SECRET, {"role": "replica"}), SECRET)
        replica.start()
        child = LocalChild(await self._accepted.get(), replica)
        if self.hang_new:
            child.stop_reading()
        self.acquired.append(child)
        return child

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for child in self.acquired:
            child.kill()
            await child.replica.ended


class ControllerCalls:
    """Takes reports of failed partitions as a controller that elects again at once (rule 1), if ``elects``."""

    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane
        self.elects = True
        self.reports: list[tuple[TopicPartition, int, str]] = []

    async def alter_partition(self, tp: TopicPartition, topic_id: uuid.UUID, proposal: dict[str, Any]) -> None:
        raise KafkaError(ErrorCode.NOT_CONTROLLER, "no ISR changes here")

    async def alter_partitions(self, proposals: Sequence[tuple[TopicPartition, uuid.UUID, Propose]]) -> int:
        raise KafkaError(ErrorCode.NOT_CONTROLLER, "no ISR changes here")

    async def report_failed_partition(self, tp: TopicPartition, state: PartitionState, reason: str) -> None:
        self.reports.append((tp, state.leader_epoch, reason))
        current = self._dataplane.image.partition(tp)
        if self.elects and current is not None and current.leader_epoch == state.leader_epoch:
            await self._dataplane.lead(tp.topic, tp.partition)


class Dataplane:
    """What handlers take for their broker. ``async with`` starts it on ``directory``, and closes all logs after."""

    def __init__(self, directory: Path, *, config: Mapping[str, str] | None = None) -> None:
        self.broker_id = BROKER
        self.gate = Gate(APIS, authorizer=self, quotas=self)
        self.directory = directory
        self.configs = Configs(BROKER, config or {})
        self.controller_calls = ControllerCalls(self)
        self.lease = True
        self.suspects: set[int] = set()
        self.denied: set[str] = set()
        self.charged: list[tuple[str, int]] = []
        endpoint = Endpoint("TEST", "127.0.0.1", 9092)
        brokers = {
            b: BrokerInfo(b, 0, (dataclasses.replace(endpoint, port=9092 + b),), "127.0.0.1", 0, "", "", True)
            for b in (BROKER, 1)
        }
        self.image = ClusterImage("test", brokers=brokers)
        self.broker_calls = BrokerCalls(self, SECRET)
        self._checkpoints: Mapping[str, Mapping[TopicPartition, int]] = {}

    async def __aenter__(self) -> Dataplane:
        self._sockets = tempfile.TemporaryDirectory()
        self.children = LocalReplicas(f"{self._sockets.name}/s")
        await self.children.listen()
        names = ("recovery-point-offset-checkpoint", "replication-offset-checkpoint", "log-start-offset-checkpoint")
        checkpoints = {name: self._checkpoints.get(name, {}) for name in names}
        self.fetch_sessions = FetchSessions(self.configs.number("max.incremental.fetch.session.cache.slots"))
        self.partitions = Partitions(self, self.directory, checkpoints)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.partitions.close()
        await self.children.close()
        self._sockets.cleanup()

    # what handlers ask

    def allows(self, session: ClientSession, need: acl.Need, name: str) -> bool:
        return name not in self.denied

    def charge(self, session: ClientSession, client_id: str | None, kind: str, amount: int) -> int:
        self.charged.append((kind, amount))
        return 0

    def holds_lease(self) -> bool:
        return self.lease

    # what a controller decides

    async def create(
        self, topic: str = TOPIC, partitions: int = 1, *, leader: int = BROKER, **config: str
    ) -> uuid.UUID:
        """A topic led by ``leader`` in epoch 0. Underscores in config names stand for dots."""
        topic_id = uuid.uuid4()
        states = {p: PartitionState((leader,), leader, 0, (leader,), 0) for p in range(partitions)}
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
            version=state.version + 1,
        )
        topics = {topic: dataclasses.replace(old, partitions={**old.partitions, partition: changed})}
        await self.take(ImageDelta(topics=topics))

    async def lead_unheard(self, topic: str = TOPIC) -> LocalChild:
        """Lead what another leads first, and what the only replica process does not hear of until it reads on."""
        await self.lead(topic, leader=1)
        (replica,) = self.children.acquired
        replica.stop_reading()
        await self.lead(topic)
        return replica

    async def delete(self, topic: str = TOPIC) -> None:
        await self.take(ImageDelta(deleted_topics=(topic,)))

    async def take(self, delta: ImageDelta) -> None:
        self.image = self.image.apply(delta)
        await self.partitions.apply(self.image)

    # requests

    async def ask(self, api_key: int, version: int, body: bytes | bytearray, client_id: str | None = "test") -> bytes:
        """The body of the response to a request body."""
        context = request_context(api_key, version, client_id, "TEST")
        return b"".join(await dispatch.serve(self.gate, self, context, memoryview(bytearray(body))))

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
