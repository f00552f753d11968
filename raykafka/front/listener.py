"""The connections of Kafka clients that a process serves, and the way of a request to whoever answers it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable

from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError, UnanswerableRequestError
from raykafka.front.connection import InFlight, KafkaConnection
from raykafka.front.routes import Routes
from raykafka.front.serving import FrontServer
from raykafka.protocol import dispatch
from raykafka.protocol.answer import Buffer
from raykafka.protocol.context import RequestContext
from raykafka.protocol.registry import Api, Place
from raykafka.telemetry.durations import RequestDurations

DEFAULT_MAX_REQUEST_BYTES = 104_857_600
DEFAULT_MAX_IDLE_MS = 600_000
DEFAULT_MAX_IN_FLIGHT_BYTES = 256 * 1024 * 1024
_STOP_WITHIN_S = 1.0
_STUCK_S = 15.0  # how long the rest of a request may keep one waiting, at least


class Listener:
    """The connections that came through one named listener of the broker, whose port somebody else has: each is given
    to ``adopt``. ``max_in_flight_bytes`` -1: as many as are good. ``durations`` takes how long its requests took."""

    def __init__(
        self,
        name: str,
        server: FrontServer,
        *,
        max_request_bytes: int = DEFAULT_MAX_REQUEST_BYTES,
        max_idle_ms: int = DEFAULT_MAX_IDLE_MS,
        max_in_flight_bytes: int = DEFAULT_MAX_IN_FLIGHT_BYTES,
        durations: RequestDurations | None = None,
    ) -> None:
        self.name = name
        self._server = server
        self._max_request_bytes = max_request_bytes
        self._max_idle_ms = max_idle_ms
        self._routes = Routes(server.gate.apis)
        self._in_flight = InFlight(max_in_flight_bytes if max_in_flight_bytes > 0 else DEFAULT_MAX_IN_FLIGHT_BYTES)
        self._durations = durations or RequestDurations()
        self._connections: set[KafkaConnection] = set()
        self._idle_check: asyncio.TimerHandle | None = None
        self._stopped = False

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def in_flight_bytes(self) -> int:
        """Of requests that have come, whole or in part, and are not answered."""
        return self._in_flight.used

    async def adopt(self, connection: socket.socket) -> None:
        """Serve a client's connection from now on. Raises OSError where it has ended already."""
        if self._stopped:
            connection.close()
            return
        if self._idle_check is None:
            self._check_idle()
        connection.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(self._connection, connection)

    async def stop(self) -> None:
        """Take no more connections, give the requests that were begun a second to be answered, and close all."""
        self._stopped = True
        for connection in list(self._connections):
            connection.finish()
        if self._connections:
            await asyncio.wait([connection.ended for connection in self._connections], timeout=_STOP_WITHIN_S)
        self.abort()

    def hold(self) -> None:
        """Take and answer nothing any more, on connections that stay open until ``abort``."""
        self._stopped = True
        for connection in list(self._connections):
            connection.hold()

    def abort(self) -> None:
        """End all connections at once."""
        self._stopped = True
        if self._idle_check is not None:
            self._idle_check.cancel()
        for connection in list(self._connections):
            connection.transport.abort()

    def _connection(self) -> KafkaConnection:
        return KafkaConnection(
            self.name,
            self._routes,
            self._dispatch,
            self._connections,
            self._in_flight,
            self._max_request_bytes,
            self._durations.answered,
        )

    def _check_idle(self) -> None:
        """``connections.max.idle.ms``: close what has carried nothing for so long, -1 is never; and what stopped amid a
        request."""
        most_ms = self._max_idle_ms
        for connection in list(self._connections):
            if connection.stuck_s() >= _STUCK_S or (
                most_ms >= 0 and connection.is_idle and connection.idle_ms > most_ms
            ):
                connection.transport.close()
        again_s = min(most_ms / 10_000, _STUCK_S) if most_ms >= 0 else _STUCK_S
        self._idle_check = asyncio.get_running_loop().call_later(max(again_s, 0.05), self._check_idle)

    def _dispatch(self, api: Api, context: RequestContext, body: memoryview) -> Awaitable[list[Buffer]]:
        self._server.gate.admit(api, context, len(body))
        if api.place is Place.FRONT:
            return dispatch.answer(api, self._server, context, body)
        return self._forward(api, context, body)

    async def _forward(self, api: Api, context: RequestContext, body: memoryview) -> list[Buffer]:
        forward = (
            self._server.forward_to_coordinator if api.place is Place.COORDINATOR else self._server.forward_to_broker
        )
        try:
            response = await forward(context, body)
        except KafkaError as error:
            return await dispatch.refusal(api, context, body, error)
        except (LinkError, TimeoutError) as error:
            code = ErrorCode.COORDINATOR_NOT_AVAILABLE if api.place is Place.COORDINATOR else ErrorCode.NOT_CONTROLLER
            return await dispatch.refusal(api, context, body, KafkaError(code, str(error)))
        if not len(response):
            raise UnanswerableRequestError(f"the {api.place} could not answer {api.name}")
        return [response]
