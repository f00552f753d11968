"""A controller process: a candidate that stands by, competes for ``/controller`` and, when it wins, is the active one
(rule 16).

A standby holds a socket to the active controller. End-of-file and then a refused connect mean that it is dead, and so
does silence of its event loop for the session timeout: the standby takes its place in one transaction (if the epoch is
still that one), without waiting for the dead one's session to expire. It goes on listening while ZooKeeper is away, as
it is when the host that fell silent led ZooKeeper as well; and what its broker knows of the silence of others counts
for the brokers on that host.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from kazoo.client import KazooState
from kazoo.exceptions import ConnectionClosedError, SessionExpiredError

from raykafka.controller.broker_channels import Silences
from raykafka.controller.cluster_counts import cluster_counts
from raykafka.controller.controller import Controller
from raykafka.controller.standby import StandbyPort, StandbyWatch
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.zookeeper import broker_store, controller_election
from raykafka.zookeeper.client import ZooKeeperClient, ZooKeeperUnreachable, close, connect
from raykafka.zookeeper.controller_election import Claim
from raykafka.zookeeper.znodes import ControllerNode

_RETRY_S = 1.0
_UNREGISTERED_RETRY_S = 0.1

logger = logging.getLogger(__name__)


async def _nobody_listens() -> Silences:
    return {}


class Candidate:
    """The candidate of one broker. ``run`` it for life; ``active`` is the Controller while it is the elected one,
    ``standing_by`` is true while it holds a socket to another that is.

    ``zookeeper`` has ``hosts``, ``auth`` and ``session_timeout_ms`` (``raykafka.broker.settings.ZooKeeperSettings``);
    ``config`` holds the broker's static configs; ``silences`` asks the broker for how long others have been silent.
    """

    def __init__(
        self,
        *,
        broker_id: int,
        secret: bytes,
        zookeeper: Mapping[str, Any],
        config: Mapping[str, str],
        silences: Callable[[], Awaitable[Silences]] = _nobody_listens,
    ) -> None:
        self.broker_id = broker_id
        self.active: Controller | None = None
        self._secret = secret
        self._zookeeper = zookeeper
        self._config = config
        self._silences = silences
        self._incarnation = uuid.uuid4().hex
        self._touched = asyncio.Event()
        self._lost = asyncio.Event()
        self._cluster_id = ""
        self._client: ZooKeeperClient | None = None
        self._registered = False
        self._watch = StandbyWatch(broker_id, secret)
        self._port = StandbyPort(secret)

    @property
    def standing_by(self) -> bool:
        """Whether it holds a socket to another that is active."""
        return self._watch.listening

    async def broker_is_deposed(self) -> bool:
        """Whether this controller's broker was registered and is so no more; False while ZooKeeper can't be asked."""
        client = self._client
        if client is None or not client.connected or not self._registered:
            return False
        try:
            return await asyncio.to_thread(broker_store.read_registration, client, self.broker_id) is None
        except (SessionExpiredError, ConnectionClosedError):
            return False

    async def on_call(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        """What the broker asks: ``cluster_counts`` {}, those of the cluster while this is the active controller, else
        {}."""
        if method != "cluster_counts":
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"a controller does not know the call {method}")
        active = self.active
        return cluster_counts(active.state) if active is not None and not active.resigned.done() else {}

    async def run(self) -> None:
        """Compete and serve, session after session, until cancelled."""
        while True:
            try:
                client = await self._connect()
            except ZooKeeperUnreachable as error:
                logger.warning("%s", error)
                continue
            self._client = client
            try:
                await self._use(client)
            except (SessionExpiredError, ConnectionClosedError):
                logger.warning("the controller's ZooKeeper session has expired; it opens another")
            finally:
                self._client = None
                await asyncio.to_thread(close, client)

    async def _connect(self) -> ZooKeeperClient:
        secret = self._secret if self._zookeeper["auth"] else None
        hosts, timeout_ms = self._zookeeper["hosts"], self._zookeeper["session_timeout_ms"]
        client = await asyncio.to_thread(connect, hosts, secret, timeout_ms)
        loop, lost = asyncio.get_running_loop(), asyncio.Event()

        def changed(state: str) -> None:
            # runs in kazoo's thread
            if state == KazooState.LOST:
                loop.call_soon_threadsafe(lost.set)

        client.add_listener(changed)
        self._lost = lost
        return client

    async def _use(self, client: ZooKeeperClient) -> None:
        """Be a candidate for as long as the session lasts."""
        host = await self._link_host(client)
        self._cluster_id = await asyncio.to_thread(broker_store.ensure_cluster_id, client)
        identity = {"role": "controller", "broker_id": self.broker_id, "incarnation": self._incarnation}
        port = await self._port.open(host, identity)
        try:
            node = ControllerNode(self.broker_id, host, port, self._incarnation)
            while not self._lost.is_set():
                standing, epoch_version = await self._look(client)
                if standing is not None:
                    claim = await self._stand_by(client, node, standing, epoch_version)
                else:
                    self._watch.stop()
                    claim = await asyncio.to_thread(controller_election.claim_controller, client, node)
                if claim is not None:
                    await self._be_active(client, claim)
        finally:
            self._watch.stop()
            self._port.close()

    async def abandon(self) -> None:
        """Let the standbys know that this process ends."""
        await self._port.abandon()

    async def _link_host(self, client: ZooKeeperClient) -> str:
        """Where this node is reached by others: as its broker has registered it."""
        while True:
            registration = await asyncio.to_thread(broker_store.read_registration, client, self.broker_id)
            if registration is not None:
                self._registered = True
                return registration.info.link_host
            await asyncio.sleep(_UNREGISTERED_RETRY_S)

    async def _look(self, client: ZooKeeperClient) -> tuple[ControllerNode | None, int]:
        """Who is active; ``_touched`` is set when that changes."""
        loop, touched = asyncio.get_running_loop(), asyncio.Event()
        self._touched = touched

        def changed(event: Any) -> None:
            # runs in kazoo's thread
            loop.call_soon_threadsafe(touched.set)

        return await asyncio.to_thread(controller_election.read_controller, client, changed)

    # standing by

    async def _stand_by(
        self, client: ZooKeeperClient, node: ControllerNode, active: ControllerNode, epoch_version: int
    ) -> Claim | None:
        """Return when ``/controller`` may have changed; with a claim, when the active controller was found dead and
        this one is its successor."""
        watching = self._watch.watch(active, client.negotiated_session_timeout_ms / 1000)
        if await self._first(watching, self._touched, self._lost) is not watching:
            return None
        self._watch.stop()
        logger.warning("the controller on broker %d is dead: %s", active.broker_id, watching.result())
        return await asyncio.to_thread(controller_election.succeed_controller, client, node, epoch_version)

    # being active

    async def _be_active(self, client: ZooKeeperClient, claim: Claim) -> None:
        try:
            active = Controller(
                client=client,
                claim=claim,
                cluster_id=self._cluster_id,
                broker_id=self.broker_id,
                secret=self._secret,
                config=self._config,
                silent_after_s=client.negotiated_session_timeout_ms / 1000,
                silences=await self._silences(),
            )
            watching = asyncio.create_task(self._until_deposed(client))
            try:
                await active.start()
                self.active = active
                await self._first(watching, active.resigned, self._lost)
            finally:
                watching.cancel()
                self.active = None
                await active.stop()
            logger.warning("controller epoch %d ends: %s", claim.epoch, active.resigned.result())
        except (SessionExpiredError, ConnectionClosedError):
            raise
        except Exception:
            # another candidate may do better, and this one must not spin
            logger.exception("controller epoch %d failed", claim.epoch)
            await asyncio.sleep(_RETRY_S)
        finally:
            with suppress(SessionExpiredError, ConnectionClosedError):
                await asyncio.to_thread(controller_election.depose_controller, client, claim.version)

    async def _until_deposed(self, client: ZooKeeperClient) -> None:
        while True:
            standing, _ = await self._look(client)
            if standing is None or standing.incarnation != self._incarnation:
                return
            await self._touched.wait()

    @staticmethod
    async def _first(*waits: asyncio.Future[Any] | asyncio.Event) -> asyncio.Future[Any] | asyncio.Event:
        """Wait for the first of futures and events, and return it."""
        tasks = {asyncio.ensure_future(w.wait()) if isinstance(w, asyncio.Event) else w: w for w in waits}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return tasks[done.pop()]
        finally:
            for task, wait in tasks.items():
                if isinstance(wait, asyncio.Event):
                    task.cancel()
