"""The broker: one life of one broker id on its data directory, from lock and registration to clean stop.

Plain asyncio, so that it runs in a Ray actor (``raykafka.broker.actor``) or in any process. It puts together what does
the work: listeners and partitions (data), the session in ZooKeeper (truth), the controller's link (decisions), the
children, the other brokers. Handlers in ``raykafka.front.api`` and ``raykafka.broker.api`` get this object as their
``server``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence, Set
from pathlib import Path
from typing import Any

from raykafka.broker import api as broker_api
from raykafka.broker.auto_creation import AutoCreation
from raykafka.broker.children.child import COORDINATOR, ChildStarter
from raykafka.broker.children.children import Children
from raykafka.broker.children.own_controller import OwnController
from raykafka.broker.children.socket_path import socket_path
from raykafka.broker.configs import Configs
from raykafka.broker.coordination import Coordination
from raykafka.broker.identity import DataDirectory, MetaProperties
from raykafka.broker.life import BrokerState, Unwinding, exit_process
from raykafka.broker.neighbourhood.broker_calls import BROKER_ROLE, BrokerCalls
from raykafka.broker.neighbourhood.controller_calls import ControllerCalls
from raykafka.broker.neighbourhood.controller_link import CONTROLLER_ROLE, ControllerLink
from raykafka.broker.neighbourhood.inter_broker_port import InterBrokerPort
from raykafka.broker.neighbourhood.log_ends import LogEnds
from raykafka.broker.neighbourhood.neighbours import Neighbours
from raykafka.broker.partitions.checkpoint_files import CheckpointFiles
from raykafka.broker.partitions.partitions import Partitions
from raykafka.broker.ports import Exporter, Ports
from raykafka.broker.settings import BrokerSettings, ListenerAddress
from raykafka.broker.status import status_of
from raykafka.broker.zookeeper_session import ZooKeeperSession
from raykafka.cluster.image import BrokerInfo, ClusterImage
from raykafka.controller import api as controller_api
from raykafka.coordinator import api as coordinator_api
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.front import api as front_api
from raykafka.front.fetch_sessions import FetchSessions
from raykafka.front.listener import Listener
from raykafka.log.lock import boot_id
from raykafka.process.clock import boot_clock
from raykafka.process.tasks import TaskSet
from raykafka.protocol.context import RequestContext
from raykafka.protocol.gate import Gate
from raykafka.protocol.registry import Place, Registry
from raykafka.replica.stream_frames import STREAM_ROLE
from raykafka.telemetry.durations import RequestDurations

_LOCK_WITHIN_S = 5.0
_ORPHANS_WITHIN_S = 5.0
_ID_FREE_WITHIN_S = 15.0
_SHUTDOWN_ASKED_WITHIN_S = 5.0
_OTHER_CONTROLLER_WITHIN_S = 5.0

logger = logging.getLogger(__name__)


class Broker:
    """One life of a broker: made, ``start``ed once, ``stop``ped.

    ``starter(settings)`` gives what starts child processes; ``lost(reason)`` is called when the registration is lost
    (rule 15); ``exporter(broker, host, port)`` makes what serves metrics at the address that the settings name.
    """

    def __init__(
        self,
        starter: Callable[[BrokerSettings], ChildStarter],
        lost: Callable[[str], None] = exit_process,
        exporter: Callable[[Broker, str, int], Exporter] | None = None,
    ) -> None:
        self._make_starter = starter
        self._lost = lost
        self._exporter = exporter
        self.state = BrokerState.STOPPED
        self.gate = Gate(Registry(front_api, broker_api, coordinator_api, controller_api))
        self.broker_id: int
        self.settings: BrokerSettings
        self.configs: Configs
        self.session: ZooKeeperSession
        self.registration: BrokerInfo
        self.children: Children
        self.own_controller: OwnController
        self.controller_link: ControllerLink
        self.controller_calls: ControllerCalls
        self.broker_calls: BrokerCalls
        self.neighbours: Neighbours
        self.partitions: Partitions
        self.fetch_sessions: FetchSessions
        self.log_ends: LogEnds
        self.coordination: Coordination
        self.ports: Ports
        self.durations = RequestDurations()
        self.started_at = 0.0
        self._unwinding = Unwinding()
        self._tasks = TaskSet("broker")

    # life

    async def start(self, settings: BrokerSettings) -> None:
        """Begin this life: returns once registered; listeners open with the controller's first image.

        Raises IdentityError, ZooKeeperUnreachable, BrokerIdTaken, or DeployError for an address in use; nothing is left
        behind then.
        """
        assert self.state is BrokerState.STOPPED
        self.settings = settings
        self.broker_id = settings.broker_id
        self.configs = Configs(settings.broker_id, settings.config)
        self.state = BrokerState.STARTING
        self.started_at = boot_clock()
        try:
            await self._start()
        except BaseException:
            await self._unwind()
            raise
        self.state = BrokerState.REGISTERED

    async def _start(self) -> None:
        settings, unwinding = self.settings, self._unwinding
        directory = await self._take_directory()
        self.session = ZooKeeperSession(settings, self._session_lost)
        unwinding.add(self.session.close)
        cluster_id = await self.session.open()
        meta = await asyncio.to_thread(directory.identify, cluster_id, settings.broker_id)
        clean = await asyncio.to_thread(directory.take_clean_shutdown_mark)
        self._checkpoint_files = CheckpointFiles(directory.path)
        checkpointed = await self._checkpoint_files.read()

        self.children = Children(
            self._make_starter(settings),
            socket_path=socket_path(directory.path, settings.broker_id),
            secret=settings.secret,
            identity={"role": "broker", "broker_id": settings.broker_id},
            spare_replicas=1,
        )
        unwinding.add(self.children.stop)
        await self.children.listen()
        self._meet_others()
        # A controller makes the brokers serve; one is enough, so the others start, as all other children do, later.
        if settings.controller_first:
            self.own_controller.keep()
        self.partitions = Partitions(self, directory.path, checkpointed)
        self.fetch_sessions = FetchSessions(self.configs.number("max.incremental.fetch.session.cache.slots"))
        self.coordination = Coordination(settings.broker_id, self.partitions, self.gate.apis)
        self.log_ends = LogEnds(self)
        await self._take_ports()
        # in a thread, and not only when the first client asks: a silent event loop is a dead broker to others
        self._tasks.run(asyncio.to_thread(self.gate.apis.load, Place.BROKER))
        await self._register(meta, clean)

    async def _take_directory(self) -> DataDirectory:
        """Lock the data directory, and end what an earlier life left running on it (rule 4). Raises IdentityError."""
        directory = self._directory = DataDirectory(Path(self.settings.data_dir).expanduser().resolve())
        await asyncio.to_thread(directory.lock, _LOCK_WITHIN_S)
        self._unwinding.add(directory.release)
        orphans = await asyncio.to_thread(directory.end_orphans, _ORPHANS_WITHIN_S)
        if orphans:
            logger.warning("ended processes of an earlier life that still wrote here: %s", orphans)
        return directory

    async def _register(self, meta: MetaProperties, clean_shutdown: bool) -> None:
        """Be there for others, from now on. Raises BrokerIdTaken."""
        settings = self.settings
        info = BrokerInfo(
            id=settings.broker_id,
            epoch=-1,
            endpoints=self.ports.endpoints(),
            link_host=settings.link_host,
            link_port=self.ports.link_port,
            directory_id=meta.directory_id,
            boot_id=boot_id(),
            clean_shutdown=clean_shutdown,
            rack=settings.rack,
        )
        self.registration = await self.session.register(info, _ID_FREE_WITHIN_S)
        self.controller_link.begin(meta.cluster_id, self.registration.epoch)
        await self._inter_broker_port.serve(meta.cluster_id, settings.broker_id, self.registration.epoch)
        self._tasks.run(self.own_controller.keep_after(_OTHER_CONTROLLER_WITHIN_S))
        self._tasks.run(self._checkpoint_files.keep(self.partitions.checkpoints))
        if self.ports.metrics is not None:
            self._tasks.run(self.ports.metrics.start())
        logger.info("broker %d is registered with epoch %d", settings.broker_id, self.registration.epoch)

    def _meet_others(self) -> None:
        """Lay out the way to the controller and to the other brokers; nothing is connected yet."""
        settings, unwinding = self.settings, self._unwinding
        self.controller_link = ControllerLink(self._apply)
        self.controller_calls = ControllerCalls(self.controller_link)
        self._auto_creation = AutoCreation(self.controller_calls, lambda: self.image)
        self.broker_calls = BrokerCalls(self, settings.secret)
        unwinding.add(self.broker_calls.close)
        self.neighbours = Neighbours(settings.broker_id, settings.secret)
        unwinding.add(self.neighbours.stop)
        self.own_controller = OwnController(
            self.children, lambda: self.neighbours.silences, lambda: self.controller_link.highest_epoch
        )

    async def _take_ports(self) -> None:
        """Bind every port. Raises DeployError."""
        takers = {
            CONTROLLER_ROLE: self.controller_link.take,
            BROKER_ROLE: self.broker_calls.take,
            STREAM_ROLE: self.partitions.take_stream,
        }
        self._inter_broker_port = InterBrokerPort(self.settings.secret, takers)
        self._unwinding.add(self._inter_broker_port.stop)
        listeners = [self._listener(address) for address in self.settings.listeners]
        exporter = self._exporter
        make_exporter = (lambda host, port: exporter(self, host, port)) if exporter is not None else None
        self.ports = Ports(self.settings, self._inter_broker_port, listeners, make_exporter)
        await self.ports.bind(self._unwinding)

    def _listener(self, address: ListenerAddress) -> Listener:
        return Listener(
            address.name,
            address.host,
            address.port,
            self,
            max_request_bytes=self.configs.number("socket.request.max.bytes"),
            max_idle_ms=self.configs.number("connections.max.idle.ms"),
            durations=self.durations,
        )

    async def stop(self) -> None:
        """Leave: answer what was begun, close all logs, take back the registration. Safe to call at any time."""
        if self.state in (BrokerState.STOPPED, BrokerState.STOPPING):
            return
        served, self.state = self.state is BrokerState.RUNNING, BrokerState.STOPPING
        if served:
            await self._move_leaderships()
        await self.ports.close_listeners()
        self._tasks.cancel()
        clean = await self.partitions.close()
        await self._checkpoint_files.write(self.partitions.checkpoints())
        if clean:
            await asyncio.to_thread(self._directory.leave_clean_shutdown_mark, self.registration.epoch)
        self.session.expect_end()  # once the inter-broker port is closed, the controller may be first to remove it
        await self._unwind()

    async def _move_leaderships(self) -> None:
        """Controlled shutdown: have the controller move leaderships away, as far as it can."""
        try:
            await self.controller_calls.controlled_shutdown(_SHUTDOWN_ASKED_WITHIN_S)
        except (KafkaError, LinkError, TimeoutError) as error:
            logger.warning("the controller was not told of this stop: %s", error)

    async def _unwind(self) -> None:
        self.state = BrokerState.STOPPING
        self._tasks.cancel()
        await self._unwinding.unwind()
        self.state = BrokerState.STOPPED

    def _session_lost(self, reason: str) -> None:
        logger.critical("broker %d exits: %s", self.broker_id, reason)
        self._lost(reason)

    # decisions of the controller

    @property
    def image(self) -> ClusterImage:
        return self.controller_link.image

    @property
    def suspects(self) -> Set[int]:
        """Brokers of the image that seem to be dead, while the controller has not said so."""
        return self.neighbours.suspects

    async def _apply(self, image: ClusterImage) -> None:
        self.configs.apply(image)
        self.neighbours.apply(image.brokers)
        self.coordination.expect()
        await self.partitions.apply(image)
        self.coordination.apply(image)
        if self.state is BrokerState.REGISTERED:
            self.state = BrokerState.RUNNING
            await self.ports.open_listeners()
            self.own_controller.keep()
            self.children.keep(COORDINATOR, self.coordination.adopt)
            self.children.keep_spares()
            logger.info("broker %d serves clients", self.broker_id)

    # what handlers ask

    @property
    def data_dir(self) -> Path:
        return self._directory.path

    def holds_lease(self) -> bool:
        """Whether acks 0 and 1 may be answered and anything new begun (rule 15)."""
        return self.session.lease.holds(boot_clock())

    async def auto_create(self, names: Iterable[str], *, internal: bool = False) -> dict[str, ErrorCode]:
        """Create topics that were asked for, if config allows it: NONE where the topic then stands in the image,
        no entries where config does not allow it."""
        if not internal and not self.configs.flag("auto.create.topics.enable"):
            return {}
        return await self._auto_creation.create(names)

    async def forward_to_controller(self, context: RequestContext, body: memoryview) -> memoryview:
        """Have the active controller answer a request: the response's body. Raises KafkaError, TimeoutError."""
        return await self.controller_calls.forward(context, body)

    async def forward_to_coordinator(self, context: RequestContext, body: memoryview) -> memoryview:
        """Have the coordinator beside this broker answer a request: the response's body. Raises KafkaError."""
        return await self.coordination.forward(context, body)

    async def next_producer_id(self) -> int:
        """A producer id that nobody else ever gets."""
        return await self.session.next_producer_id()

    # for people and metrics

    @property
    def listeners(self) -> Sequence[Listener]:
        return self.ports.listeners

    def status(self, partitions: bool = False) -> dict[str, Any]:
        """What this broker is and does, as plain data; with ``partitions`` also a row for each local one."""
        return status_of(self, partitions)
