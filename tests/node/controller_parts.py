"""What tests of the controller are made of: a real ZooKeeper, real controllers, and of brokers the part that the
controller meets: registration, inter-broker port, image. Everything runs on one event loop, sessions in kazoo's
threads."""

from __future__ import annotations

import asyncio
import secrets
import select
import socket
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from raykafka.broker.neighbourhood.controller_calls import ControllerCalls, FailedLeadership
from raykafka.broker.neighbourhood.controller_link import CONTROLLER_ROLE, ControllerLink, ImageUpdate
from raykafka.broker.neighbourhood.inter_broker_port import InterBrokerPort
from raykafka.cluster.image import BrokerInfo, ClusterImage, Endpoint, PartitionState
from raykafka.controller.candidate import Candidate
from raykafka.controller.controller import Controller
from raykafka.error_code import ErrorCode
from raykafka.replica.rules.events import Propose
from raykafka.types import TopicPartition
from raykafka.zookeeper import broker_store as store
from raykafka.zookeeper.client import ZooKeeperClient
from raykafka.zookeeper.znodes import Registration
from tests.lab.loop_waiting import until

SECRET = b"s" * 32
WITHIN_S = 120.0
SESSION_MS = 10_000


class BrokerEnd:
    """One broker as the controller meets it."""

    def __init__(
        self,
        hosts: str,
        broker_id: int,
        *,
        directory_id: str = "",
        rack: str | None = None,
        session_ms: int = SESSION_MS,
    ) -> None:
        self.id = broker_id
        self._session_ms = session_ms
        self.directory_id = directory_id or f"directory-{broker_id}"
        self._hosts = hosts
        self._rack = rack
        self.client: ZooKeeperClient
        self.port: InterBrokerPort
        self.controller_link: ControllerLink
        self.controller_calls: ControllerCalls
        self.registration: Registration
        self._epoch: int | None = None
        self.applied: list[ClusterImage] = []

    async def start(self, *, boot_id: str = "boot", clean: bool = True, serve: bool = True) -> None:
        """Begin a life of this broker. Without ``serve`` its port takes connections and answers nothing."""
        self.client = await asyncio.to_thread(store.connect, self._hosts, None, self._session_ms)
        self.applied = []
        self.make_port()
        port = self.port.open("127.0.0.1", 0)
        info = BrokerInfo(
            id=self.id,
            epoch=-1,
            endpoints=(Endpoint("INSIDE", "127.0.0.1", 9092),),
            link_host="127.0.0.1",
            link_port=port,
            directory_id=self.directory_id,
            boot_id=boot_id,
            clean_shutdown=False,
            rack=self._rack,
        )
        self.registration = await asyncio.to_thread(
            store.register_broker, self.client, info, closed_in=self._epoch if clean else None
        )
        self._epoch = self.registration.info.epoch
        if serve:
            epoch = self.registration.info.epoch
            self.controller_link.begin("cluster", epoch)
            await self.port.serve("cluster", self.id, epoch)

    def make_port(self) -> None:
        self.controller_link = ControllerLink(self._apply)
        self.controller_calls = ControllerCalls(self.controller_link)
        self.port = InterBrokerPort(SECRET, {CONTROLLER_ROLE: self.controller_link.take})

    async def _apply(self, image: ClusterImage, _: ImageUpdate) -> None:
        self.applied.append(image)

    @property
    def image(self) -> ClusterImage:
        return self.controller_link.image

    def partition(self, topic: str, partition: int = 0) -> PartitionState | None:
        return self.image.partition(TopicPartition(topic, partition))

    async def report_failed(self, topic: str, reason: str, *states: PartitionState, first: int = 0) -> None:
        """Say that the leaderships ``states`` are over, of the partitions from ``first`` on."""
        topic_id = self.image.topics[topic].id
        leaderships = [
            FailedLeadership(TopicPartition(topic, p), topic_id, state.leader_epoch, reason)
            for p, state in enumerate(states, first)
        ]
        await self.controller_calls.report_failed(leaderships)

    async def propose(self, topic: str, partition: int, proposal: Propose) -> ErrorCode:
        """Ask for an ISR; NONE once it is written, or why it is not."""
        tp, topic_id = TopicPartition(topic, partition), self.image.topics[topic].id
        (code,) = await self.controller_calls.alter_partitions([(tp, topic_id, proposal)])
        return code

    def die(self) -> None:
        """As after kill -9, as long as the session has not expired: the port is closed, the registration still
        stands."""
        self.port.stop()

    async def stop(self) -> None:
        self.port.stop()
        await asyncio.to_thread(store.close, self.client)


class Parts:
    """Brokers and controllers of one test, and the chroot that they share."""

    def __init__(self, zookeeper: str, session_ms: int = SESSION_MS) -> None:
        self.session_ms = session_ms
        self.hosts = f"{zookeeper}/controller-{secrets.token_hex(4)}"
        self._brokers: list[BrokerEnd] = []
        self._controllers: list[tuple[Candidate, asyncio.Task[None]]] = []

    async def broker(
        self, broker_id: int = 0, *, directory_id: str = "", rack: str | None = None, **start: Any
    ) -> BrokerEnd:
        made = BrokerEnd(self.hosts, broker_id, directory_id=directory_id, rack=rack, session_ms=self.session_ms)
        await made.start(**start)
        self._brokers.append(made)
        return made

    def controller(self, broker_id: int = 0, config: dict[str, str] | None = None, **more: Any) -> Candidate:
        settings = {"hosts": self.hosts, "auth": False, "session_timeout_ms": self.session_ms}
        made = Candidate(broker_id=broker_id, secret=SECRET, zookeeper=settings, config=config or {}, **more)
        self._controllers.append((made, asyncio.create_task(made.run())))
        return made

    async def active(self, broker_id: int = 0, config: dict[str, str] | None = None) -> Controller:
        """A controller of that broker, once it is active."""
        controller = self.controller(broker_id, config)
        return await until(lambda: controller.active, "the controller is active")

    async def end_controller(self, controller: Candidate) -> None:
        """Let it go: its session ends."""
        for pair in list(self._controllers):
            if pair[0] is controller:
                self._controllers.remove(pair)
                await _cancelled(pair[1])

    async def client(self) -> ZooKeeperClient:
        """A session for the test to look with; closed with the rest."""
        end = BrokerEnd(self.hosts, -1)
        end.client = await asyncio.to_thread(store.connect, self.hosts, None, self.session_ms)
        end.make_port()
        self._brokers.append(end)
        return end.client

    async def end(self) -> None:
        for _, task in self._controllers:
            await _cancelled(task)
        for broker in self._brokers:
            await broker.stop()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def parts(zookeeper: str, session_ms: int = SESSION_MS) -> AsyncIterator[Parts]:
    made = Parts(zookeeper, session_ms)
    try:
        yield made
    finally:
        await made.end()


def random_id() -> uuid.UUID:
    return uuid.uuid4()


class LossyProxy:
    """Stands between a client and ZooKeeper; loses the answer to the next request that contains ``marker``, once, by
    cutting the connection after ZooKeeper has answered. The next ``swallows`` connections are taken and never
    answered."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.partition(":")
        self._upstream = (host, int(port))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.hosts = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.marker: bytes | None = None
        self.cuts = self.swallows = 0
        self._swallowed: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                if self.swallows:
                    self.swallows -= 1
                    self._swallowed.append(client)
                    continue
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        lose_answer = False
        with client, socket.create_connection(self._upstream) as server, suppress(OSError):
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    if ready is client:
                        if self.marker is not None and self.marker in data:
                            self.marker, lose_answer = None, True
                        server.sendall(data)
                    elif lose_answer:
                        self.cuts += 1
                        return
                    else:
                        client.sendall(data)

    def close(self) -> None:
        self._server.close()
        for client in self._swallowed:
            client.close()
