"""The broker: one life of one broker id on its data directory, from lock and registration to clean stop.

Plain asyncio, so that it runs in a Ray actor (``raykafka.broker.actor``) or in any process. It wires together what does
the work: listeners and partitions (data), the session in ZooKeeper (truth), the controller's link (decisions), the
children.
Handlers in ``raykafka.broker.api`` get this object as their ``server``.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import inspect
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Set
from enum import StrEnum
from pathlib import Path
from typing import Any

from raykafka.broker.auto_creation import AutoCreation
from raykafka.broker.children.children import CONTROLLER, COORDINATOR, Child, Children, ChildStarter
from raykafka.broker.configs import Configs
from raykafka.broker.coordination import Coordination
from raykafka.broker.identity import DataDirectory
from raykafka.broker.neighbourhood.broker_calls import BrokerCalls
from raykafka.broker.neighbourhood.inter_broker_port import InterBrokerPort
from raykafka.broker.neighbourhood.neighbours import Neighbours
from raykafka.broker.partitions.checkpoints import HIGH_WATERMARKS, LOG_STARTS, RECOVERY_POINTS, OffsetCheckpoint
from raykafka.broker.partitions.partitions import Partitions
from raykafka.broker.registration import Session
from raykafka.broker.settings import BrokerSettings, ListenerAddress
from raykafka.cluster.image import BrokerInfo, ClusterImage, Endpoint, Topic
from raykafka.cluster.summary import partition_summary
from raykafka.error_code import ErrorCode
from raykafka.errors import DeployError, KafkaError, LinkError
from raykafka.front.listener import Listener
from raykafka.link import Link
from raykafka.log.lock import boot_id
from raykafka.metrics.consumer_lag import ConsumerLag
from raykafka.metrics.http import MetricsEndpoint
from raykafka.process.clock import boot_clock
from raykafka.protocol import acl, registry
from raykafka.protocol.context import RequestContext
from raykafka.telemetry.durations import RequestDurations
from raykafka.types import TopicPartition

CHECKPOINT_FILES = (RECOVERY_POINTS, HIGH_WATERMARKS, LOG_STARTS)
CHECKPOINT_INTERVAL_S = 5.0
_LOCK_WITHIN_S = 5.0
_ORPHANS_WITHIN_S = 5.0
_ID_FREE_WITHIN_S = 15.0
_SHUTDOWN_ASKED_WITHIN_S = 5.0
_OTHER_CONTROLLER_WITHIN_S = 5.0
_LONGEST_SOCKET_PATH = 100
LOST_EXIT_CODE = 70
_MIN_INSYNC = "min.insync.replicas"

logger = logging.getLogger(__name__)


class BrokerState(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    REGISTERED = "registered"
    RUNNING = "running"
    STOPPING = "stopping"


def exit_process(reason: str) -> None:
    """What a broker does that may no longer be one (rule 15): its children follow on end-of-file."""
    logging.shutdown()
    os._exit(LOST_EXIT_CODE)


class Broker:
    """``starter(settings)`` gives what starts child processes; ``lost(reason)`` is called when the registration is."""

    def __init__(
        self, starter: Callable[[BrokerSettings], ChildStarter], lost: Callable[[str], None] = exit_process
    ) -> None:
        self._make_starter = starter
        self._lost = lost
        self.state = BrokerState.STOPPED
        self.settings: BrokerSettings
        self.session: Session
        self.children: Children
        self.partitions: Partitions
        self.links: InterBrokerPort
        self.peers: BrokerCalls
        self.neighbours: Neighbours
        self.registration: BrokerInfo
        self.listeners: list[Listener] = []
        self.configs: Configs
        self.controller_link: Link | None = None
        self.durations = RequestDurations()
        self.metrics: MetricsEndpoint | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

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
        self._started_at = boot_clock()
        self._undo: list[Callable[[], Any]] = []
        try:
            await self._start()
        except BaseException:
            await self._unwind()
            raise
        self.state = BrokerState.REGISTERED

    async def _start(self) -> None:
        settings, undo = self.settings, self._undo
        directory = self._directory = DataDirectory(Path(settings.data_dir).expanduser().resolve())
        await asyncio.to_thread(directory.lock, _LOCK_WITHIN_S)
        undo.append(directory.release)
        orphans = await asyncio.to_thread(directory.end_orphans, _ORPHANS_WITHIN_S)
        if orphans:
            logger.warning("ended processes of an earlier life that still wrote here: %s", orphans)

        self.session = Session(settings, self._session_lost)
        undo.append(self.session.close)
        cluster_id = await self.session.open()
        self._meta = await asyncio.to_thread(directory.identify, cluster_id, settings.broker_id)
        clean = await asyncio.to_thread(directory.take_clean_shutdown_mark)
        self._written: dict[str, dict[TopicPartition, int]] = {}
        self._checkpoints = {name: OffsetCheckpoint(directory.path, name) for name in CHECKPOINT_FILES}
        found = {name: await asyncio.to_thread(file.read) for name, file in self._checkpoints.items()}

        socket_path = _socket_path(directory.path, settings.broker_id)
        self.children = Children(
            self._make_starter(settings),
            socket_path=socket_path,
            secret=settings.secret,
            identity={"role": "broker", "broker_id": settings.broker_id},
            spare_replicas=settings.spare_replicas,
        )
        undo.append(self.children.stop)
        await self.children.listen()
        # A controller makes the brokers serve; one is enough, so the others start, as all other children do, later.
        self._has_controller = False
        if settings.controller_first:
            self._keep_controller()
        self.peers = BrokerCalls(self, settings.secret)
        undo.append(self.peers.close)
        self.links = InterBrokerPort(settings.secret, self._apply, lambda link: self.partitions.take_stream(link))
        self.partitions = Partitions(self, directory.path, found)
        self.coordination = Coordination(settings.broker_id, self.partitions)
        self._auto_creation = AutoCreation(self.links)
        undo.append(self.links.stop)
        self.neighbours = Neighbours(settings.broker_id, settings.secret)
        undo.append(self.neighbours.stop)
        await self._bind_ports()
        consumer_lag = ConsumerLag(self)
        self.links.answer_peer = self.peers.answer

        info = BrokerInfo(
            id=settings.broker_id,
            epoch=-1,
            endpoints=tuple(self._endpoint(listener) for listener in self.listeners),
            link_host=settings.link_host,
            link_port=self.link_port,
            directory_id=self._meta.directory_id,
            boot_id=boot_id(),
            clean_shutdown=clean,
            rack=settings.rack,
        )
        # in a thread, and not only when the first client asks: a silent event loop is a dead broker to others
        self._run(asyncio.to_thread(registry.load, registry.BROKER))
        self.registration = await self.session.register(info, _ID_FREE_WITHIN_S)
        await self.links.serve(cluster_id, settings.broker_id, self.registration.epoch)
        self._run(self._keep_controller_at_last())
        self._run(self._keep_checkpoints())
        if self.metrics is not None:
            self._run(self._serve_metrics(self.metrics, consumer_lag))
        logger.info("broker %d is registered with epoch %d", settings.broker_id, self.registration.epoch)

    def _keep_controller(self) -> None:
        if not self._has_controller:
            self._has_controller = True
            self.children.keep(CONTROLLER, self._adopt_controller)

    def _adopt_controller(self, child: Child) -> None:
        self.controller_link = child.link
        child.link.start(on_call=self._answer_controller)

    async def _answer_controller(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        """What this broker's own controller process asks: ``silences`` {}, those of the neighbours by broker id."""
        if method != "silences":
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"a broker does not know the call {method} of its controller")
        return {str(broker): silence for broker, silence in self.neighbours.silences.items()}

    async def _keep_controller_at_last(self) -> None:
        await asyncio.sleep(_OTHER_CONTROLLER_WITHIN_S)
        self._keep_controller()

    async def _serve_metrics(self, endpoint: MetricsEndpoint, consumer_lag: ConsumerLag) -> None:
        # in a thread: prometheus-client takes a while to import, and nobody waits for it
        scrape = await asyncio.to_thread(importlib.import_module, "raykafka.metrics.scrape")
        await endpoint.start(scrape.Scrape(self, consumer_lag).answer)

    async def _bind_ports(self) -> None:
        settings = self.settings
        link = ListenerAddress("the inter-broker port", settings.link_host, settings.link_port)
        self.listeners = [
            Listener(
                address.name,
                address.host,
                address.port,
                self,
                max_request_bytes=self.configs.number("socket.request.max.bytes"),
                max_idle_ms=self.configs.number("connections.max.idle.ms"),
                durations=self.durations,
            )
            for address in settings.listeners
        ]
        binding = link
        try:
            self.link_port = self.links.open(link.host, link.port)
            for listener in self.listeners:
                binding = ListenerAddress(listener.name, listener.host, listener.port)
                self._undo.append(listener.stop)
                await listener.bind()
            if settings.metrics_port is not None:
                binding = ListenerAddress("metrics", settings.link_host, settings.metrics_port)
                self.metrics = MetricsEndpoint(binding.host, binding.port)
                self._undo.append(self.metrics.stop)
        except OSError as error:
            raise DeployError(
                f"broker {settings.broker_id} can't listen on {binding.host}:{binding.port} ({binding.name}): "
                f"{os.strerror(error.errno) if error.errno else error}"
            ) from None

    def _endpoint(self, listener: Listener) -> Endpoint:
        """What clients are told. An advertised port 0 is the one that the listener got."""
        name, settings = listener.name, self.settings
        advertised = settings.advertised_address(name) or ListenerAddress(name, listener.host, listener.port)
        return Endpoint(name, advertised.host, advertised.port or listener.port, settings.security_protocol(name))

    async def stop(self) -> None:
        """Leave: answer what was begun, close all logs, take back the registration. Safe to call at any time."""
        if self.state in (BrokerState.STOPPED, BrokerState.STOPPING):
            return
        served, self.state = self.state is BrokerState.RUNNING, BrokerState.STOPPING
        if served:
            await self._announce_stop()
        await asyncio.gather(*(listener.stop() for listener in self.listeners))
        for task in self._tasks:
            task.cancel()
        clean = await self.partitions.close()
        await self._write_checkpoints()
        if clean:
            await asyncio.to_thread(self._directory.leave_clean_shutdown_mark, self.registration.epoch)
        self.session.expect_end()  # once the inter-broker port is closed, the controller may be first to remove it
        await self._unwind()

    async def _announce_stop(self) -> None:
        """Have the controller move leaderships away, as far as it can."""
        try:
            controller = await self.links.controller(_SHUTDOWN_ASKED_WITHIN_S)
            await controller.call("controlled_shutdown", {}, _SHUTDOWN_ASKED_WITHIN_S)
        except (KafkaError, LinkError, TimeoutError) as error:
            logger.warning("the controller was not told of this stop: %s", error)

    async def _unwind(self) -> None:
        """Give back all that was taken, the last first."""
        self.state = BrokerState.STOPPING
        while self._undo:
            try:
                result = self._undo.pop()()
                if inspect.isawaitable(result):
                    await result
            except Exception:
                logger.exception("a part of broker %d did not stop as it should", self.broker_id)
        self.state = BrokerState.STOPPED

    def _session_lost(self, reason: str) -> None:
        logger.critical("broker %d exits: %s", self.broker_id, reason)
        self._lost(reason)

    # decisions of the controller

    @property
    def image(self) -> ClusterImage:
        return self.links.image

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
            for listener in self.listeners:
                await listener.start()
            self._keep_controller()
            self.children.keep(COORDINATOR, self.coordination.adopt)
            self.children.keep_spares()
            logger.info("broker %d serves clients", self.broker_id)

    async def _keep_checkpoints(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_INTERVAL_S)
            try:
                await self._write_checkpoints()
            except OSError as error:
                logger.error("checkpoints can't be written: %s", error)

    async def _write_checkpoints(self) -> None:
        for name, offsets in self.partitions.checkpoints().items():
            if offsets != self._written.get(name):
                await asyncio.to_thread(self._checkpoints[name].write, offsets)
                self._written[name] = offsets

    # what handlers ask

    @property
    def data_dir(self) -> Path:
        return self._directory.path

    def authorize(self, context: RequestContext, operation: acl.Operation, resource: acl.Resource) -> bool:
        """Whether the context's principal may do that. Everybody may do everything."""
        return True

    def authorized_operations(self, context: RequestContext, resource: acl.Resource) -> int:
        """The bits of all operations on ``resource`` that the principal may do."""
        supported = acl.SUPPORTED[resource.type]
        return acl.operation_bits(o for o in supported if self.authorize(context, o, resource))

    def charge(self, context: RequestContext, kind: str, amount: int) -> int:
        """Count ``amount`` of ``kind`` against the client's quota; the throttle time that it earns, in ms."""
        return 0

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
        return await self.links.forward(context, body)

    async def forward_to_coordinator(self, context: RequestContext, body: memoryview) -> memoryview:
        return await self.coordination.forward(context, body)

    async def next_producer_id(self) -> int:
        return await self.session.next_producer_id()

    # for people

    def status(self, partitions: bool = False) -> dict[str, Any]:
        """What this broker is and does, as plain data; with ``partitions`` also figures of each local one."""
        if self.state in (BrokerState.STOPPED, BrokerState.STARTING):
            return {"state": self.state.value, "pid": os.getpid()}
        image, now = self.image, boot_clock()
        return {
            "state": self.state.value,
            "pid": os.getpid(),
            "broker_id": self.broker_id,
            "broker_epoch": self.registration.epoch,
            "cluster_id": image.cluster_id,
            "data_dir": str(self.data_dir),
            "listeners": [
                {"name": e.listener, "host": e.host, "port": e.port, "connections": listener.connections}
                for e, listener in zip(self.registration.endpoints, self.listeners, strict=True)
            ],
            "link_port": self.link_port,
            "metrics": {"host": self.metrics.host, "port": self.metrics.port} if self.metrics else None,
            "controller_id": image.controller_id,
            "controller_epoch": image.controller_epoch,
            "lease_age_s": round(self.session.lease.age_s(now), 3),
            "holds_lease": self.holds_lease(),
            "children": [_child_status(child, now) for child in self.children.living()],
            "restarts": dict(self.children.restarts),
            "age_s": round(now - self._started_at, 1),
            "spare_replicas": self.children.spares,
            "summary": partition_summary(image, self._min_insync),
            "troubled": [host.describe() for host in self.partitions if host.restarts],
            "partitions": self.partitions.status() if partitions else None,
        }

    def _min_insync(self, topic: Topic) -> int:
        return int(topic.config.get(_MIN_INSYNC) or self.configs.texts[_MIN_INSYNC])

    def _run(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _child_status(child: Child, now: float) -> dict[str, Any]:
    return {
        "role": child.role,
        "pid": child.pid,
        "actor_id": child.actor_id,
        "for": child.note,
        "state": "connected" if child.is_connected else "starting",
        "age_s": round(now - child.started_at, 1),
    }


def _socket_path(data_dir: Path, broker_id: int) -> str:
    """Where children connect. In the data directory while its path is short: a Unix socket's holds 107 bytes."""
    path = data_dir / "children.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return str(path)
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:8]
    directory = Path(tempfile.gettempdir()) / f"rk-{digest}"
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise DeployError(
            f"{directory} belongs to somebody else: remove it, or give the broker a shorter data directory"
        )
    return str(directory / f"b{broker_id}.sock")
