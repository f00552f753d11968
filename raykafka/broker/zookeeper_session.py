"""A broker's ZooKeeper session: its registration, the lease that rests on it, and producer ids (rules 13, 15)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kazoo.client import KazooState
from kazoo.exceptions import ConnectionClosedError, SessionExpiredError

from raykafka.broker.lease import Lease
from raykafka.broker.settings import BrokerSettings
from raykafka.cluster.image import BrokerInfo
from raykafka.process.clock import boot_clock
from raykafka.process.tasks import TaskSet
from raykafka.zookeeper import broker_store as store
from raykafka.zookeeper.client import ZooKeeperClient

LEASE_READ_INTERVAL_S = 1.0
_CLOSE_WITHIN_S = 3.0
_T = TypeVar("_T")

logger = logging.getLogger(__name__)


class ZooKeeperSession:
    """One ZooKeeper session of a broker, from ``open`` on. kazoo's calls block; they run in threads of its own, so that
    a ZooKeeper outage holds up nothing else. ``on_lost(reason)`` is called at most once, on the event loop, when the
    session has expired or the registration is gone: the broker must exit then."""

    def __init__(
        self, settings: BrokerSettings, on_lost: Callable[[str], None], on_renewed: Callable[[Lease], None]
    ) -> None:
        """``on_renewed(lease)`` is called whenever the lease was renewed."""
        self._settings = settings
        self._on_renewed = on_renewed
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(3, thread_name_prefix="zookeeper")
        self._over = False
        self._tasks = TaskSet("session")
        self._registered = False
        self._producer_ids = iter(range(0))
        self._producer_ids_lock = asyncio.Lock()
        self._client: ZooKeeperClient | None = None
        self.registration: store.Registration
        self.lease: Lease

    async def open(self) -> str:
        """Connect; return the cluster's id. Raises ZooKeeperUnreachable."""
        zookeeper = self._settings.zookeeper
        secret = self._settings.secret if zookeeper.auth else None
        client = await self._run(lambda: store.connect(zookeeper.hosts, secret, zookeeper.session_timeout_ms))
        self._client = client
        client.add_listener(self._state_changed)
        return await self._run(lambda: store.ensure_cluster_id(client))

    async def register(self, info: BrokerInfo, wait_s: float, closed_in: int | None) -> BrokerInfo:
        """Begin this life of the broker and its lease; the answer carries the broker epoch. ``closed_in`` as
        ``register_broker`` says. Raises BrokerIdTaken."""
        sent = boot_clock()
        self.registration = await self._run(
            lambda: store.register_broker(self._connected, info, wait_s, closed_in=closed_in)
        )
        self.lease = Lease(self.timeout_s, sent)
        self._on_renewed(self.lease)
        self._registered = True
        self._tasks.run(self._renew())
        return self.registration.info

    def expect_end(self) -> None:
        """This life is being ended: that its registration goes, by whomever, is no loss any more."""
        self._over = True

    async def close(self) -> None:
        """Take the registration back and end the session. An unreachable ZooKeeper is left to notice by itself."""
        self._over = True
        self._tasks.cancel()
        try:
            await asyncio.wait_for(self._run(self._leave), _CLOSE_WITHIN_S)
        except (TimeoutError, SessionExpiredError, ConnectionClosedError):
            logger.warning("ZooKeeper did not answer the end of the session; the registration goes when it times out")
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def next_producer_id(self) -> int:
        """A producer id that nobody else ever gets; one ZooKeeper write for each 1,000 of them."""
        async with self._producer_ids_lock:
            producer_id = next(self._producer_ids, None)
            if producer_id is None:
                broker_id = self._settings.broker_id
                first, last = await self._run(lambda: store.allocate_producer_id_block(self._connected, broker_id))
                self._producer_ids = iter(range(first, last + 1))
                producer_id = next(self._producer_ids)
            return producer_id

    @property
    def state(self) -> str:
        """connected, suspended (no server answers just now) or lost."""
        return "lost" if self._client is None else str(self._client.state).lower()

    @property
    def timeout_s(self) -> float:
        """The session timeout that the server granted."""
        return self._connected.negotiated_session_timeout_ms / 1000

    @property
    def _connected(self) -> ZooKeeperClient:
        assert self._client is not None
        return self._client

    async def _renew(self) -> None:
        broker_id, incarnation = self._settings.broker_id, self.registration.incarnation
        while True:
            await asyncio.sleep(LEASE_READ_INTERVAL_S)
            sent = boot_clock()
            try:
                standing = await self._run(lambda: store.read_registration(self._connected, broker_id))
            except (SessionExpiredError, ConnectionClosedError):
                self._lost("its ZooKeeper session has expired")
                return
            if standing is None or standing.incarnation != incarnation:
                self._lost("its registration was removed" if standing is None else "another life of it has registered")
                return
            self.lease.renew(sent, self.timeout_s)
            self._on_renewed(self.lease)

    def _leave(self) -> None:
        if self._client is None:
            return
        if self._registered:
            store.unregister_broker(self._client, self.registration)
        store.close(self._client)

    def _state_changed(self, state: str) -> None:
        # runs in kazoo's thread
        if state == KazooState.LOST and not self._over:
            self._loop.call_soon_threadsafe(self._lost, "its ZooKeeper session has expired")

    def _lost(self, reason: str) -> None:
        if not self._over:
            self._over = True
            self._on_lost(reason)

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await self._loop.run_in_executor(self._threads, work)
