"""The connections of one actor to the actors of another broker, in one life of that broker: one to each actor that has
replicas which this one leads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from raykafka.errors import LinkError
from raykafka.link import connect_tcp
from raykafka.process.tasks import TaskSet
from raykafka.replica import stream_frames as frames
from raykafka.replica.host import Holder
from raykafka.replica.out_connection import OutConnection, OutStream
from raykafka.replica.turn import Turn
from raykafka.types import PartitionKey

CONNECT_WITHIN_S = 2.0
_MOST_HOPS = 4
_IDLE_BEATS = 60

logger = logging.getLogger(__name__)


class Dialler(NamedTuple):
    """Who connects: ``secret`` proves it, ``broker`` and ``actor`` say who it is."""

    secret: bytes
    broker: int
    actor: int


class FollowerBroker:
    """``over(self)`` is called when the last connection has ended. ``away`` are the brokers that could not be reached
    when they were last tried: that is said once."""

    def __init__(
        self,
        turn: Turn,
        dialler: Dialler,
        broker: int,
        holder: Holder,
        away: set[int],
        tasks: TaskSet,
        over: Callable[[FollowerBroker], None],
    ) -> None:
        self.broker = broker
        self.holder = holder
        self._turn = turn
        self._dialler = dialler
        self._away = away
        self._tasks = tasks
        self._over = over
        self._connections: list[OutConnection] = []
        self._places: dict[PartitionKey, int] = {}

    def open(self, stream: OutStream) -> None:
        """Open ``stream`` to the actor that had the replica when that was last heard, else to any."""
        self._connection_to(self._places.get(stream.key)).open(stream)

    def forget(self, key: PartitionKey) -> None:
        """No stream is opened for that partition any more."""
        self._places.pop(key, None)

    def _connection_to(self, actor: int | None) -> OutConnection:
        for connection in self._connections:
            if actor is None or connection.actor == actor:
                return connection
        to = "any actor" if actor is None else f"actor {actor}"
        name = f"the streams to {to} of broker {self.broker}"
        connection = OutConnection(self._turn, name, actor, self._ready, self._elsewhere, self._ended)
        self._connections.append(connection)
        self._tasks.run(self._connect(connection))
        return connection

    async def _connect(self, connection: OutConnection) -> None:
        dialler, (host, port, broker_epoch) = self._dialler, self.holder
        identity = {
            "role": frames.REPLICATION_ROLE,
            "broker_id": dialler.broker,
            "actor": dialler.actor,
            "to": connection.actor,
        }
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                link = await connect_tcp(host, port, dialler.secret, identity)
        except (OSError, LinkError, TimeoutError) as error:
            connection.end(f"{host}:{port} can't be reached: {error or type(error).__name__}")
            return
        except BaseException as error:
            connection.end(f"{type(error).__name__}: {error}")
            raise
        if connection.is_over:
            link.close()
        elif (link.peer.get("broker_id"), link.peer.get("broker_epoch")) != (self.broker, broker_epoch):
            link.close()
            connection.end(f"{host}:{port} is answered by another life or broker")
        else:
            connection.start(link)

    def _ready(self, connection: OutConnection) -> None:
        self._away.discard(self.broker)
        connection.name = f"the streams to actor {connection.actor} of broker {self.broker}"
        logger.info("%s: connected", connection.name)

    def _elsewhere(self, stream: OutStream, actor: int) -> None:
        stream.hops += 1
        if stream.hops > _MOST_HOPS:
            stream.end_of.lost("its replica is with no actor that was named", False)
            return
        self._places[stream.key] = actor
        self._connection_to(actor).open(stream)

    def _ended(self, connection: OutConnection, reason: str) -> None:
        self._connections.remove(connection)
        self._places = {key: actor for key, actor in self._places.items() if actor != connection.actor}
        if len(connection):
            level = logging.DEBUG if self.broker in self._away else logging.WARNING
            self._away.add(self.broker)
            logger.log(level, "%s: ended with %d streams: %s", connection.name, len(connection), reason)
        if not self._connections:
            self._over(self)

    def beat(self, silent_after_ms: int) -> None:
        """One beat passed. A connection that has carried no stream for a while is given up."""
        for connection in tuple(self._connections):
            connection.beat(silent_after_ms)
            connection.idle_beats = 0 if len(connection) else connection.idle_beats + 1
            if connection.idle_beats > _IDLE_BEATS:
                connection.end("it carries no stream")

    def close(self) -> None:
        """End all connections."""
        for connection in tuple(self._connections):
            connection.end("this actor ends")
