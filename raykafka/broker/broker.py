"""The broker: one life of one broker id on its data directory, from lock and registration to clean stop.

Plain asyncio, so that it runs in a Ray actor (``raykafka.broker.actor``) or in any process. It puts together what does
the work: ports, partitions (which replica actor has what), the session in ZooKeeper (truth), the controller's link
(decisions), the children, the other brokers. Its replica actors write the logs and serve the clients. Handlers in
``raykafka.broker.api`` get this object as their ``server``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

from raykafka.broker import api as broker_api
from raykafka.broker.acceptor import Acceptor
from raykafka.broker.auto_creation import AutoCreation
from raykafka.broker.children.child import COORDINATOR, ChildStarter
from raykafka.broker.children.children import Children
from raykafka.broker.children.own_controller import OwnController
from raykafka.broker.children.socket_path import socket_path
from raykafka.broker.configs import Configs
from raykafka.broker.coordinator_child import CoordinatorChild
from raykafka.broker.identity import DataDirectory, MetaProperties
from raykafka.broker.lease import Lease
from raykafka.broker.life import BrokerState, Unwinding, exit_process
from raykafka.broker.neighbourhood.broker_calls import BROKER_ROLE, BrokerCalls
from raykafka.broker.neighbourhood.controller_calls import ControllerCalls
from raykafka.broker.neighbourhood.controller_link import CONTROLLER_ROLE, ControllerLink, ImageUpdate
from raykafka.broker.neighbourhood.inter_broker_port import InterBrokerPort
from raykafka.broker.neighbourhood.log_ends import LogEnds
from raykafka.broker.neighbourhood.neighbours import Neighbours
from raykafka.broker.partitions.checkpoint_files import CheckpointFiles
from raykafka.broker.partitions.partitions import Partitions
from raykafka.broker.ports import Exporter, Ports
from raykafka.broker.replica_actors import TELL_WITHIN_S, ReplicaActors
from raykafka.broker.settings import BrokerSettings, ListenerAddress
from raykafka.broker.status import status_of
from raykafka.broker.zookeeper_session import ZooKeeperSession
from raykafka.cluster.image import BrokerInfo, ClusterImage
from raykafka.controller import api as controller_api
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, LinkError
from raykafka.link import Link
from raykafka.log.lock import boot_id
from raykafka.process.clock import boot_clock
from raykafka.process.tasks import TaskSet
from raykafka.protocol import dispatch
from raykafka.protocol.answer import Buffer
from raykafka.protocol.context import unpack_forward
from raykafka.protocol.gate import Gate
from raykafka.protocol.registry import Place, Registry
from raykafka.replica.stream_frames import REPLICATION_ROLE
from raykafka.telemetry.durations import RequestDurations
from raykafka.telemetry.traffic import Traffic
from raykafka.types import TopicPartition

_LOCK_WITHIN_S = 5.0
_ORPHANS_WITHIN_S = 5.0
_ID_FREE_WITHIN_S = 15.0
_SHUTDOWN_ASKED_WITHIN_S = 5.0
_OTHER_CONTROLLER_WITHIN_S = 5.0

logger = logging.getLogger(__name__)


class ListenerCount(NamedTuple):
    """A listener's name, and its open connections."""

    name: str
    connections: int


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
        self.gate = Gate(Registry(broker_api, controller_api))
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
        self.log_ends: LogEnds
        self.coordination: CoordinatorChild
        self.replica_actors: ReplicaActors
        self.ports: Ports
        self.durations = RequestDurations()
        self.traffic = Traffic()
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
        self.session = ZooKeeperSession(settings, self._session_lost, self._lease_renewed)
        unwinding.add(self.session.close)
        self._checkpoint_files = CheckpointFiles(directory.path)
        checkpointed = await self._checkpoint_files.read()
        self.children = Children(
            self._make_starter(settings),
            socket_path=socket_path(directory.path, settings.broker_id),
            secret=settings.secret,
            identity={"role": "broker", "broker_id": settings.broker_id},
        )
        unwinding.add(self.children.stop)
        await self.children.listen()
        self._meet_others()
        # Processes take longest to start: they do so while this one waits for ZooKeeper. They touch nothing before they
        # are told the image.
        self._lay_out_replicas(directory.path, checkpointed)
        self.replica_actors.start(self.partitions)
        cluster_id = await self.session.open()
        meta = await asyncio.to_thread(directory.identify, cluster_id, settings.broker_id)
        # A controller makes the brokers serve; one is enough, so the others start, as all other children do, later.
        if settings.controller_first:
            self.own_controller.keep()
        self.log_ends = LogEnds(self)
        await self._take_ports()
        # in a thread, and not only when the first client asks: a silent event loop is a dead broker to others
        self._tasks.run(asyncio.to_thread(self.gate.apis.load, Place.BROKER))
        await self._register(meta)

    def _lay_out_replicas(self, log_dir: Path, checkpointed: Mapping[str, Mapping[TopicPartition, int]]) -> None:
        settings = self.settings
        self.coordination = CoordinatorChild()
        self.replica_actors = ReplicaActors(
            self.children,
            settings.replica_actors,
            {"broker_id": settings.broker_id, "log_dir": str(log_dir), "config": dict(settings.config)},
            answer=self._answer_actor,
            forward=self._answer_forward,
            paths_changed=self.coordination.actors,
            homes_changed=self.coordination.placed,
            room=self._serve_again,
        )
        self._unwinding.add(self.replica_actors.stop)
        self.partitions = Partitions(self, log_dir, checkpointed, self.replica_actors)

    async def _take_directory(self) -> DataDirectory:
        """Lock the data directory, and end what an earlier life left running on it (rule 4). Raises IdentityError."""
        directory = self._directory = DataDirectory(Path(self.settings.data_dir).expanduser().resolve())
        await asyncio.to_thread(directory.lock, _LOCK_WITHIN_S)
        self._unwinding.add(directory.release)
        orphans = await asyncio.to_thread(directory.end_orphans, _ORPHANS_WITHIN_S)
        if orphans:
            logger.warning("ended processes of an earlier life that still wrote here: %s", orphans)
        return directory

    async def _register(self, meta: MetaProperties) -> None:
        """Be there for others, from now on. Raises BrokerIdTaken."""
        settings, directory = self.settings, self._directory
        info = BrokerInfo(
            id=settings.broker_id,
            epoch=-1,
            endpoints=self.ports.endpoints(),
            link_host=settings.link_host,
            link_port=self.ports.link_port,
            directory_id=meta.directory_id,
            boot_id=boot_id(),
            clean_shutdown=False,  # until the registration finds that the mark is of the life before this one
            rack=settings.rack,
        )
        closed_in = await asyncio.to_thread(directory.clean_shutdown_epoch)
        self.registration = await self.session.register(info, _ID_FREE_WITHIN_S, closed_in)
        await asyncio.to_thread(directory.remove_clean_shutdown_mark)
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
        self.neighbours = Neighbours(settings.broker_id, settings.secret, self._suspected)
        unwinding.add(self.neighbours.stop)
        self.own_controller = OwnController(
            self.children, lambda: self.neighbours.silences, lambda: self.controller_link.highest_epoch
        )

    async def _take_ports(self) -> None:
        """Bind every port. Raises DeployError."""
        takers = {
            CONTROLLER_ROLE: self.controller_link.take,
            BROKER_ROLE: self.broker_calls.take,
            REPLICATION_ROLE: self._take_stream,
        }
        self._inter_broker_port = InterBrokerPort(self.settings.secret, takers)
        self._unwinding.add(self._inter_broker_port.stop)
        listeners = [self._listener(address) for address in self.settings.listeners]
        exporter = self._exporter
        make_exporter = (lambda host, port: exporter(self, host, port)) if exporter is not None else None
        self.ports = Ports(self.settings, self._inter_broker_port, listeners, make_exporter)
        await self.ports.bind(self._unwinding)

    def _listener(self, address: ListenerAddress) -> Acceptor:
        return Acceptor(address.name, address.host, address.port, self.replica_actors.serve)

    def _take_stream(self, link: Link) -> None:
        """Another broker's replica actor has connected: give its connection to the actor that it is for."""
        self._tasks.run(self._hand_over(link))

    async def _hand_over(self, link: Link) -> None:
        try:
            self.replica_actors.take_stream(await link.detach(), link.peer)
        except LinkError as error:
            logger.warning("a replication connection could not be handed over: %s", error)

    async def stop(self) -> None:
        """Leave: answer what was begun, close all logs, take back the registration. Safe to call at any time."""
        if self.state in (BrokerState.STOPPED, BrokerState.STOPPING):
            return
        served, self.state = self.state is BrokerState.RUNNING, BrokerState.STOPPING
        if served:
            await self._move_leaderships()
        self.ports.close_listeners()
        await self.replica_actors.close_listeners()
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

    async def _apply(self, image: ClusterImage, update: ImageUpdate) -> None:
        self.configs.apply(image)
        self.neighbours.apply(image.brokers)
        told = self.replica_actors.tell_image(image, update)
        await self.partitions.apply(image)
        if told:
            await asyncio.wait(told, timeout=TELL_WITHIN_S)
        if self.state is BrokerState.REGISTERED:
            self.state = BrokerState.RUNNING
            self.ports.open_listeners()
            self.own_controller.keep()
            self.children.keep(COORDINATOR, self.coordination.adopt)
            logger.info("broker %d serves clients", self.broker_id)

    # what replica actors go by, beside the image

    def _lease_renewed(self, lease: Lease) -> None:
        self.replica_actors.tell_lease(lease.until)

    def _suspected(self, brokers: Set[int]) -> None:
        self.replica_actors.tell_suspects(brokers)

    def _serve_again(self) -> None:
        """There is a replica actor again to serve clients."""
        if self.state is BrokerState.RUNNING:
            self.ports.go_on()

    def use_actors(self, count: int) -> None:
        """Have so many replica actors from now on, 0 for one each replica: replicas move as that needs it."""
        self.settings = dataclasses.replace(self.settings, replica_actors=count)
        self.replica_actors.use(count)
        self.partitions.use_actors()

    # what replica actors ask

    async def _answer_actor(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        match method:
            case "report":
                self.traffic.take(args["traffic"])
                self.durations.take(args["durations"])
            case "allowance":
                return await self.partitions.throttle.take(args)
            case "spent":
                self.partitions.throttle.spent(args)
            case "auto_create":
                codes = await self.auto_create(args["names"], internal=args["internal"])
                return {name: int(code) for name, code in codes.items()}
            case _:
                raise KafkaError(ErrorCode.INVALID_REQUEST, f"a broker does not answer {method!r}")
        return {}

    async def _answer_forward(self, payload: memoryview) -> list[Buffer]:
        """A client's request that a replica actor passes on: answered here, or by the active controller."""
        context, body = unpack_forward(payload)
        api = self.gate.apis.get(context.api_key)
        if api is None or api.place is not Place.CONTROLLER:
            return await dispatch.serve_forwarded(self.gate, self, context, body)
        self.gate.admit(api, context, len(body))
        try:
            return [await self.controller_calls.forward(context, body)]
        except KafkaError as error:
            return await dispatch.refusal(api, context, body, error)
        except (LinkError, TimeoutError) as error:
            return await dispatch.refusal(api, context, body, KafkaError(ErrorCode.NOT_CONTROLLER, str(error)))

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

    async def next_producer_id(self) -> int:
        """A producer id that nobody else ever gets."""
        return await self.session.next_producer_id()

    # for people and metrics

    @property
    def listeners(self) -> Sequence[ListenerCount]:
        """Each listener and how many connections it has, as far as the replica actors have reported."""
        return [ListenerCount(one.name, self.replica_actors.connections(one.name)) for one in self.ports.listeners]

    @property
    def local_ends(self) -> ReplicaActors:
        """Who knows where the logs end that are led here."""
        return self.replica_actors

    def status(self, partitions: bool = False) -> dict[str, Any]:
        """What this broker is and does, as plain data; with ``partitions`` also a row for each local one."""
        return status_of(self, partitions)
