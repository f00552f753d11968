"""One replica actor of a broker: hosts replicas, carries their streams, and serves the clients that it was handed.

It goes by the image that its broker relays. What it holds can be made again from the logs, the image, and what the
broker says when it has a replica opened.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from raykafka.broker import api as broker_api
from raykafka.broker.configs import Configs
from raykafka.cluster.image import ClusterImage, delta_from_json
from raykafka.controller import api as controller_api
from raykafka.coordinator import api as coordinator_api
from raykafka.error_code import ErrorCode
from raykafka.front import api as front_api
from raykafka.front.fetch_sessions import FetchSessions
from raykafka.front.image_answers import ImageAnswers
from raykafka.front.listener import Listener
from raykafka.link import Link, handover
from raykafka.process.clock import boot_clock
from raykafka.process.tasks import TaskSet
from raykafka.protocol.context import RequestContext
from raykafka.protocol.gate import Gate
from raykafka.protocol.registry import Place, Registry
from raykafka.replica.hub import StreamHub
from raykafka.replica_actor import report, siblings
from raykafka.replica_actor.broker_link import BrokerLink
from raykafka.replica_actor.coordination import Coordination
from raykafka.replica_actor.hosting import Hosting
from raykafka.replica_actor.partition import ServedPartition
from raykafka.replica_actor.partitions import ServedPartitions
from raykafka.replica_actor.siblings import Siblings
from raykafka.telemetry.durations import RequestDurations
from raykafka.types import NOWHERE, PartitionKey

_HANDED_AT_ONCE = 64
_REST_READERS_EACH = 30  # reports
_LET_GO_AFTER_S = 0.15

logger = logging.getLogger(__name__)


class ReplicaActorServer:
    """Serves one broker over ``link`` (front.serving.FrontServer). ``handed`` is where the broker hands connections
    over; ``ended`` is done when the link has ended and all logs are closed.

    ``named(title)`` is called with what the process should be called.
    """

    def __init__(
        self,
        link: Link,
        secret: bytes,
        handed: socket.socket,
        begin: Mapping[str, Any],
        named: Callable[[str], None] | None = None,
    ) -> None:
        """``begin``: ``number`` of this actor, ``broker_id``, ``log_dir``, ``config`` (the broker's static one)."""
        self.number = int(begin["number"])
        self.broker_id = int(begin["broker_id"])
        self.configs = Configs(self.broker_id, begin["config"])
        self.gate = Gate(Registry(front_api, broker_api, coordinator_api, controller_api))
        self.image = ClusterImage("")
        self.partitions = ServedPartitions(self.broker_id, Path(begin["log_dir"]), self.holds_lease)
        self.fetch_sessions = FetchSessions(self.configs.number("max.incremental.fetch.session.cache.slots"))
        self.suspects: Set[int] = frozenset()
        self.image_answers = ImageAnswers()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handed = handed
        self._loop = asyncio.get_running_loop()
        self._lease_until = 0.0
        self._takes_clients = True
        self._taken = 0
        self._durations = RequestDurations()
        self._listeners: dict[str, Listener] = {}
        self._placed: dict[PartitionKey, int] = {}
        self._siblings = Siblings(secret, self.number)
        self._tasks = TaskSet(f"replica actor {self.number}")
        self._reporting: asyncio.Task[None] | None = None
        calls = {
            "image": self._take_image,
            "open": self._open,
            "close": self._close,
            "leave": self._leave,
            "ends": self._ends,
            "placed": self._take_placed,
            "actors": self._take_actors,
            "lease": self._take_lease,
            "suspects": self._take_suspects,
            "close_listeners": self._close_listeners,
        }
        self._broker = BrokerLink(link, calls, self._ended)
        self._hosting = Hosting(
            self.broker_id,
            self.partitions,
            self.configs,
            lambda find: StreamHub(secret, self.broker_id, self.number, find),
            self._broker,
            self._placed,
            self.number,
        )
        self._coordination = Coordination(self.broker_id, self.partitions, self.gate.apis)
        self._report = report.Report(
            self._hosting,
            self.partitions.traffic,
            self._durations,
            self._listeners,
            lambda: self._taken,
        )
        if named is not None:
            named(f"replicas {self.number} of broker {self.broker_id}")

    def start(self) -> None:
        """Take what the broker hands over from now on, and report to it."""
        self._loop.add_reader(self._handed, self._take_handed)
        self._reporting = self._tasks.run(self._report_on())
        # in a thread, and not only when the first client asks: the broker kills a child whose event loop is silent
        self._tasks.run(asyncio.to_thread(self.gate.apis.load, Place.FRONT))

    async def _report_on(self) -> None:
        for count in itertools.count(1):
            await asyncio.sleep(report.EVERY_S)
            self._broker.report(self._report.next())
            if not count % _REST_READERS_EACH:
                for served in self.partitions:
                    served.log.rest()

    # what the broker says

    async def _take_image(self, args: dict[str, Any]) -> dict[str, Any]:
        """``image`` {number, full, delta}: answered when the replicas here go by it."""
        before = self.image
        base = ClusterImage(args.get("cluster_id", before.cluster_id)) if args["full"] else before
        image = self.image = base.apply(delta_from_json(args["delta"]))
        self.configs.apply(image)
        self._hosting.hub.configure(self.configs.number("replica.lag.time.max.ms"))
        changed, gone = self.partitions.apply(image)
        waits = self._hosting.apply(image, changed)
        for served in gone:
            key = served.key
            self._placed.pop(key, None)
            self._siblings.forget(key)
            self._hosting.hub.forget(key)
        for served in changed:
            self._settle(served)
            self._hosting.hub.look_again(served.key)
        self._coordination.apply(image, args["number"])
        if waits:
            await asyncio.wait(waits)
        return {}

    async def _open(self, args: dict[str, Any]) -> dict[str, Any]:
        key = PartitionKey.of_json(args)
        self._siblings.forget(key)
        return await self._hosting.open(key, args)

    async def _close(self, args: dict[str, Any]) -> dict[str, Any]:
        return (await self._hosting.close(PartitionKey.of_json(args))).to_json()

    async def _leave(self, args: dict[str, Any]) -> dict[str, Any]:
        left = await self._hosting.leave(PartitionKey.of_json(args))
        return {"left": False} if left is None else {"left": True, **left.to_json()}

    async def _ends(self, args: dict[str, Any]) -> dict[str, Any]:
        """``ends`` {partitions: [[topic, partition], ...]}: the high watermark of each that is led and open here, None
        of others and while it is not known (rule 9)."""
        return {"ends": [self._end_of(topic, partition) for topic, partition in args["partitions"]]}

    def _end_of(self, topic: str, partition: int) -> int | None:
        served = self.partitions.get((topic, partition))
        if served is None or not served.is_leader or self._hosting.get(served.key) is None:
            return None
        view = served.log.view
        if view is None or view.leader_epoch != served.state.leader_epoch:
            return None
        return view.high_watermark if view.high_watermark >= view.epoch_start_offset else None

    async def _take_placed(self, args: dict[str, Any]) -> dict[str, Any]:
        """``placed``: which actor has a replica, or is about to open it; -1: none, for now."""
        for topic, topic_id, partition, number in args["partitions"]:
            key = PartitionKey(topic, uuid.UUID(topic_id), partition)
            served = self.partitions.of(*key)
            if number == NOWHERE and served is None:
                self._placed.pop(key, None)
            else:
                self._placed[key] = number
            self._hosting.hub.look_again(key)
            if served is not None:
                self._settle(served)
        return {}

    def _settle(self, served: ServedPartition) -> None:
        """Have a partition that this actor does not hold served by whoever does."""
        key = served.key
        number = self._placed.get(key)
        if number in (None, NOWHERE, self.number) or self._hosting.has(key) or not served.is_leader:
            self._siblings.forget(key)
        else:
            self._siblings.watch(key, served, number)

    async def _take_actors(self, args: dict[str, Any]) -> dict[str, Any]:
        self._siblings.living({int(number): path for number, path in args["actors"].items()})
        return {}

    async def _take_lease(self, args: dict[str, Any]) -> dict[str, Any]:
        self._lease_until = float(args["until"])
        return {}

    async def _take_suspects(self, args: dict[str, Any]) -> dict[str, Any]:
        self.suspects = frozenset(args["brokers"])
        return {}

    async def _close_listeners(self, args: dict[str, Any]) -> dict[str, Any]:
        """Answer what clients have begun, take nothing more, and end their connections."""
        self._takes_clients = False
        await asyncio.gather(*(listener.stop() for listener in self._listeners.values()))
        return {}

    # who connects

    def _take_handed(self) -> None:
        for _ in range(_HANDED_AT_ONCE):
            try:
                taken = handover.take(self._handed)
            except OSError as error:
                logger.error("a connection that was handed over is lost: %s", error)
                continue
            if taken is None:
                return
            connection, peer = taken
            if handover.CLIENT in peer:
                self._tasks.run(self._serve_client(peer[handover.CLIENT], connection))
            else:
                self._hosting.hub.take(connection, peer)

    async def _serve_client(self, name: str, connection: socket.socket) -> None:
        if not self._takes_clients:
            connection.close()
            return
        listener = self._listeners.get(name)
        if listener is None:
            listener = self._listeners[name] = Listener(
                name,
                self,
                max_request_bytes=self.configs.number("socket.request.max.bytes"),
                max_idle_ms=self.configs.number("connections.max.idle.ms"),
                max_in_flight_bytes=self.configs.number("queued.max.request.bytes"),
                durations=self._durations,
            )
        try:
            await listener.adopt(connection)
        except OSError as error:
            logger.info("a client had gone before it was served: %s", error)
        self._taken += 1

    def accept(self, link: Link) -> None:
        """A sibling or a coordinator has connected."""
        match link.peer.get("role"):
            case siblings.ROLE:
                self._hosting.watchers.accept(link)
            case "coordinator":
                self._coordination.adopt(link)
            case _:
                link.start()

    # what handlers ask

    def holds_lease(self) -> bool:
        return boot_clock() < self._lease_until

    async def auto_create(self, names: Iterable[str], *, internal: bool = False) -> dict[str, ErrorCode]:
        return await self._broker.auto_create(list(names), internal=internal)

    async def forward_to_coordinator(self, context: RequestContext, body: memoryview) -> memoryview:
        return await self._coordination.forward(context, body)

    async def forward_to_broker(self, context: RequestContext, body: memoryview) -> memoryview:
        return await self._broker.forward(context, body)

    # the end

    def _ended(self) -> None:
        self._tasks.run(self._end())

    async def _end(self) -> None:
        """The broker is gone: nobody can be answered, so leave the logs whole, and let clients go. These ask others at
        once who leads: so they are let go when others have had the time to decide that."""
        let_go_at_s = self._loop.time() + _LET_GO_AFTER_S
        self._takes_clients = False
        self._loop.remove_reader(self._handed)
        if self._reporting is not None:
            self._reporting.cancel()
        for listener in self._listeners.values():
            listener.hold()
        self._siblings.close()
        await self._hosting.end()
        self.partitions.close()
        await asyncio.sleep(let_go_at_s - self._loop.time())
        for listener in self._listeners.values():
            listener.abort()
        if not self.ended.done():
            self.ended.set_result(None)
