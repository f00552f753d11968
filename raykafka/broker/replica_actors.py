"""The replica actors of a broker: kept alive, told of everything they go by, and given the connections to serve.

What they do with partitions is decided in ``broker.partitions``; this is the way to them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from raykafka.broker.children.child import REPLICA, Child
from raykafka.broker.children.children import Children
from raykafka.broker.neighbourhood.controller_link import ImageUpdate
from raykafka.broker.partitions.partitions import Partitions
from raykafka.broker.settings import EACH
from raykafka.broker.status import ActorRow
from raykafka.cluster.image import ClusterImage, delta_to_json
from raykafka.errors import KafkaError, LinkError, RaykafkaError
from raykafka.link import Link
from raykafka.link.handover import CLIENT, Giver
from raykafka.process.backoff import Backoff
from raykafka.process.clock import boot_clock
from raykafka.process.tasks import TaskSet
from raykafka.types import NOWHERE, TopicPartition

# a replica that hangs must not keep its broker from what else the controller decides
TELL_WITHIN_S = 0.25
_CLOSE_LISTENERS_WITHIN_S = 3.0
_STEADY_AFTER_S = 30.0
_REBALANCE_S = 1.0
_TOGETHER_WITHIN_S = 2.0
_KILL_AFTER_S = 0.15

logger = logging.getLogger(__name__)


class ReplicaActorProcess:
    """One life of a replica actor (``partitions.actors.Actor``), connected. As last reported: ``busy`` is the share of
    a core that it used in the last second, ``connections`` how many it serves, by listener, ``taken`` how many of those
    that it was ``given`` it had taken over by then. ``is_deaf`` once it did not take a connection: its process has
    ended, and that is about to be noticed."""

    def __init__(
        self,
        number: int,
        child: Child,
        lost: Callable[[ReplicaActorProcess, socket.socket, dict[str, Any]], None],
    ) -> None:
        self.number = number
        self.child = child
        self.busy = 0.0
        self.takes_replicas = True
        self.leaves = False
        self.is_deaf = False
        self.connections: Mapping[str, int] = {}
        self.given = 0
        self.taken = 0
        self.giver = Giver(child.fds, partial(lost, self))

    @property
    def link(self) -> Link:
        return self.child.link

    @property
    def weight(self) -> int:
        """How many connections it serves, as far as is known."""
        return sum(self.connections.values()) + self.given - self.taken

    async def open(self, args: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await self.link.call("open", args)
        return answer

    async def close(self, args: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await self.link.call("close", args)
        return answer

    async def leave(self, args: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await self.link.call("leave", args)
        return answer

    def kill(self) -> None:
        self.child.kill()


class ReplicaActors:
    """``partitions.actors.ActorPool``. ``count`` actors are kept, or, with EACH, one and as many as are asked for.

    ``begin`` is what each is told first (``replica_actor.server``), beside its number. ``answer(number, method, args)``
    answers what they ask, ``forward(payload)`` what they forward. ``paths_changed(paths)`` is called with where the
    living listen, ``homes_changed(rows)`` with what all are told of where logs are.
    """

    def __init__(
        self,
        children: Children,
        count: int,
        begin: Mapping[str, Any],
        *,
        answer: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]],
        forward: Callable[[memoryview], Awaitable[list[bytes | bytearray | memoryview]]],
        paths_changed: Callable[[Mapping[int, str]], None],
        homes_changed: Callable[[list[tuple[TopicPartition, uuid.UUID, int]]], None],
        room: Callable[[], None],
    ) -> None:
        """``room`` is called when there is an actor to serve connections after there was none."""
        self._children = children
        self._begin = begin
        self._answer = answer
        self._forward = forward
        self._paths_changed = paths_changed
        self._homes_changed = homes_changed
        self._room = room
        self._count = count
        self._numbers = 0
        self._starting = 0
        self._extra = 0
        self._living: dict[int, ReplicaActorProcess] = {}
        self._partitions: Partitions | None = None
        self._tasks = TaskSet("replica actors")
        self._image: ClusterImage | None = None
        self._image_number = 0
        self._lease_until = 0.0
        self._suspects: tuple[int, ...] = ()
        self._placed: dict[tuple[TopicPartition, uuid.UUID], int] = {}
        self._backoff = Backoff()
        self._homeless: list[tuple[str, socket.socket]] = []
        self._streams: list[tuple[socket.socket, dict[str, Any]]] = []
        self._is_together = False
        self._stopping = False

    @property
    def each(self) -> bool:
        return self._count == EACH

    @property
    def wanted(self) -> int:
        """How many there should be, beside those that were asked for."""
        return max(1, self._count)

    def living(self) -> Mapping[int, ReplicaActorProcess]:
        return self._living

    def start(self, partitions: Partitions) -> None:
        """Start the actors; ``partitions`` hears of them."""
        self._partitions = partitions
        self._fill()
        self._tasks.run(self._rebalance())

    async def _rebalance(self) -> None:
        while True:
            await asyncio.sleep(_REBALANCE_S)
            if self._partitions is not None:
                self._partitions.rebalance({number: actor.busy for number, actor in self._living.items()})

    def use(self, count: int) -> None:
        """Keep so many from now on. Those that are too many are let go once ``let_go`` says that they have no
        replica."""
        self._count = count
        self._extra = 0
        self._settle_roles()
        self._fill()

    def _settle_roles(self) -> None:
        """The oldest are those that are wanted. With EACH that one serves clients only, and every other one has one
        replica; else those that are too many take none any more."""
        for place, number in enumerate(sorted(self._living)):
            self._living[number].takes_replicas = (place < self.wanted) is not self.each

    def _servers(self) -> list[ReplicaActorProcess]:
        """Those that clients are given to: not those that may be let go soon."""
        return [self._living[number] for number in sorted(self._living)[: self.wanted]]

    def need_another(self) -> None:
        self._extra += 1
        self._fill()

    def let_go(self, number: int) -> None:
        actor = self._living.get(number)
        if actor is None or number in sorted(self._living)[: self.wanted]:
            return
        self._extra = max(0, self._extra - 1)
        actor.leaves = True
        actor.link.close()

    def _fill(self) -> None:
        while not self._stopping and len(self._living) + self._starting < self.wanted + self._extra:
            self._starting += 1
            self._tasks.run(self._start())

    async def _start(self) -> None:
        await asyncio.sleep(self._backoff.delay_s)
        child = None
        try:
            child = await self._children.start(REPLICA)
            self._numbers += 1
            actor = ReplicaActorProcess(self._numbers - 1, child, self._not_given)
            await self._begin_with(actor)
        except (RaykafkaError, LinkError, OSError) as error:
            if not self._stopping:
                logger.error("a replica actor did not start: %s", error)
                if child is not None:
                    child.kill()
                self._backoff.failed()
            return
        finally:
            self._starting -= 1
            if not self._stopping:
                asyncio.get_running_loop().call_soon(self._fill)
        self._came(actor)

    async def _begin_with(self, actor: ReplicaActorProcess) -> None:
        link = actor.link
        child, number = actor.child, actor.number
        child.note = f"number {number}"
        child.before_kill = partial(self._silent, actor)

        async def on_call(method: str, args: dict[str, Any]) -> dict[str, Any]:
            return await self._hear(actor, method, args)

        link.start(on_call=on_call, on_forward=self._forward, on_close=lambda _: self._gone(actor))
        await link.call("begin", {**self._begin, "number": number})

    def _came(self, actor: ReplicaActorProcess) -> None:
        link = actor.link
        if link.is_closed or self._partitions is None:
            return
        self._living[actor.number] = actor
        self._settle_roles()
        link.tell("lease", {"until": self._lease_until})
        link.tell("suspects", {"brokers": list(self._suspects)})
        if self._image is not None:
            image = self._image
            update = ImageUpdate(True, delta_to_json(image.as_delta()))
            self._tasks.run(self._tell_image(actor, self._image_number, update, image.cluster_id))
        self._tell_paths()
        link.tell("placed", _placed_told((tp, topic_id, n) for (tp, topic_id), n in self._placed.items()))
        if self._is_together:
            self._partitions.actor_came(actor)
        elif len(self._living) >= self.wanted:
            self._are_together()
        elif len(self._living) == 1:
            asyncio.get_running_loop().call_later(_TOGETHER_WITHIN_S, self._are_together)
        self._serve_homeless()
        streams, self._streams = self._streams, []
        for connection, peer in streams:
            self.take_stream(connection, peer)

    def _are_together(self) -> None:
        """The first actors are there, or late: from here on each gets replicas when it comes. The first of several
        would otherwise get all that there are."""
        if not self._is_together and self._partitions is not None:
            self._is_together = True
            for actor in tuple(self._living.values()):
                self._partitions.actor_came(actor)

    def _tell_paths(self) -> None:
        paths = {number: actor.child.links for number, actor in self._living.items()}
        self._tell_all("actors", {"actors": paths})
        self._paths_changed(paths)

    async def _silent(self, actor: ReplicaActorProcess) -> None:
        """It is about to be killed: end its leaderships first. Its clients, who notice the kill, ask at once who leads,
        and should hear of the next leaders."""
        self._gone(actor)
        await asyncio.sleep(_KILL_AFTER_S)

    def _gone(self, actor: ReplicaActorProcess) -> None:
        was_living = self._living.pop(actor.number, None) is not None
        actor.giver.close()
        if not was_living or self._stopping:
            return
        if boot_clock() - actor.child.started_at > _STEADY_AFTER_S:
            self._backoff.succeeded()
        else:
            self._backoff.failed()
        if not actor.leaves:
            self._children.restarts[REPLICA] += 1
            logger.error("replica actor %d (process %d) ended", actor.number, actor.child.pid)
            if self.each and actor.takes_replicas:
                self._extra = max(0, self._extra - 1)  # who had a replica on it asks for another
        self._settle_roles()
        assert self._partitions is not None
        self._partitions.actor_gone(actor.number)
        self._tell_paths()
        self._serve_homeless()
        self._fill()

    # what they say

    async def _hear(self, actor: ReplicaActorProcess, method: str, args: dict[str, Any]) -> dict[str, Any]:
        if method == "report":
            actor.busy = float(args["busy"])
            actor.connections = args["connections"]
            actor.taken = int(args["taken"])
        if method in ("failed", "refused", "propose"):
            if self._partitions is not None:
                self._partitions.said(actor.number, method, args)
            return {}
        if method == "report" and self._partitions is not None:
            self._partitions.take_report(actor.number, args["partitions"])
        return await self._answer(method, args)

    # what they are told

    def _tell_all(self, method: str, args: dict[str, Any]) -> None:
        for actor in self._living.values():
            if not actor.link.is_closed:
                actor.link.tell(method, args)

    def tell_image(self, image: ClusterImage, update: ImageUpdate) -> list[asyncio.Task[None]]:
        """Relay an update; what is returned ends when an actor goes by it."""
        self._image = image
        self._image_number += 1
        number, cluster_id = self._image_number, image.cluster_id
        return [self._tasks.run(self._tell_image(actor, number, update, cluster_id)) for actor in self._living.values()]

    async def _tell_image(self, actor: ReplicaActorProcess, number: int, update: ImageUpdate, cluster_id: str) -> None:
        args = {"number": number, "cluster_id": cluster_id, **update._asdict()}
        try:
            await actor.link.call("image", args)
        except LinkError:
            pass  # its end is handled where it is noticed
        except KafkaError as error:
            logger.critical("replica actor %d can't take an image and is ended: %s", actor.number, error)
            actor.kill()

    def tell_lease(self, until: float) -> None:
        """The lease holds until that moment of the boot-time clock."""
        self._lease_until = until
        self._tell_all("lease", {"until": until})

    def tell_suspects(self, brokers: Iterable[int]) -> None:
        self._suspects = tuple(brokers)
        self._tell_all("suspects", {"brokers": list(self._suspects)})

    def placed(self, rows: list[tuple[TopicPartition, uuid.UUID, int]]) -> None:
        for tp, topic_id, number in rows:
            if number == NOWHERE:
                self._placed.pop((tp, topic_id), None)
            else:
                self._placed[tp, topic_id] = number
        self._tell_all("placed", _placed_told(rows))
        self._homes_changed(rows)

    async def ends(self, partitions: Iterable[TopicPartition], within_s: float) -> dict[TopicPartition, int]:
        """The high watermarks of partitions that are led here (``neighbourhood.log_ends.LocalEnds``)."""
        asked = list(partitions)
        found: dict[TopicPartition, int] = {}

        async def ask(actor: ReplicaActorProcess) -> None:
            try:
                answer = await actor.link.call("ends", {"partitions": [list(tp) for tp in asked]}, within_s)
            except (KafkaError, LinkError, TimeoutError):
                return
            found.update({tp: end for tp, end in zip(asked, answer["ends"], strict=True) if end is not None})

        await asyncio.gather(*map(ask, self._living.values()))
        return found

    # connections

    def serve(self, listener: str, connection: socket.socket) -> bool:
        """Have an actor serve a client's connection. Whether another one may come."""
        hearing = [actor for actor in self._servers() if not actor.is_deaf]
        actor = min(hearing, key=lambda actor: actor.weight, default=None)
        if actor is None:
            self._homeless.append((listener, connection))
            return False
        actor.given += 1
        actor.giver.give(connection, {CLIENT: listener})
        return True

    def take_stream(self, connection: socket.socket, peer: dict[str, Any]) -> None:
        """Give another broker's replication connection to the actor that it is for. One that is for any waits for the
        first: other brokers connect as soon as this one is registered."""
        wanted = peer.get("to")
        actor = self._living.get(wanted) if wanted is not None else next(iter(self._living.values()), None)
        if actor is not None:
            actor.giver.give(connection, peer)
        elif wanted is None and not self._stopping:
            self._streams.append((connection, peer))
        else:
            connection.close()

    def _not_given(self, actor: ReplicaActorProcess, connection: socket.socket, peer: dict[str, Any]) -> None:
        """The actor that it was meant for has ended: another one serves it, or the next one that comes."""
        actor.is_deaf = True
        if CLIENT in peer and not self._stopping:
            self.serve(peer[CLIENT], connection)
        else:
            connection.close()

    def _serve_homeless(self) -> None:
        """Serve the connections that found no actor, and take more, if there is one now."""
        if any(not actor.is_deaf for actor in self._servers()):
            homeless, self._homeless = self._homeless, []
            for listener, connection in homeless:
                self.serve(listener, connection)
            self._room()

    def connections(self, listener: str) -> int:
        """How many connections of a listener are served, as last reported."""
        return sum(actor.connections.get(listener, 0) for actor in self._living.values())

    # the end, and status

    async def close_listeners(self) -> None:
        """Have all answer what clients have begun, and end their connections."""
        calls = [actor.link.call("close_listeners", {}, _CLOSE_LISTENERS_WITHIN_S) for actor in self._living.values()]
        await asyncio.gather(*calls, return_exceptions=True)

    def stop(self) -> None:
        """Keep none any more; the broker's children are ended by whoever keeps them."""
        self._stopping = True
        self._tasks.cancel()
        for connection in (*(client for _, client in self._homeless), *(stream for stream, _ in self._streams)):
            connection.close()

    def rows(self) -> list[ActorRow]:
        """Each living actor, for status and metrics."""
        now, rows = boot_clock(), []
        replicas: Counter[int] = Counter()
        leaders: Counter[int] = Counter()
        for host in self._partitions or ():
            if host.actor is not None:
                replicas[host.actor] += 1
                leaders[host.actor] += host.is_leader
        for number, actor in sorted(self._living.items()):
            child, age_s = actor.child, round(now - actor.child.started_at, 1)
            has = (replicas[number], leaders[number], actor.connections, actor.busy)
            rows.append(ActorRow(number, child.pid, child.actor_id, *has, age_s))
        return rows


def _placed_told(rows: Iterable[tuple[TopicPartition, uuid.UUID, int]]) -> dict[str, Any]:
    """Which actor has which replica, as actors are told."""
    return {"partitions": [[tp.topic, str(topic_id), tp.partition, number] for tp, topic_id, number in rows]}
