"""Open replicas in a test's own event loop: real logs, real streams over real sockets; the test is their host, their
broker and their controller."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from raykafka.cluster.image import PartitionState
from raykafka.errors import LinkError
from raykafka.link import Link, serve_tcp
from raykafka.log import Log, LogConfig
from raykafka.log.batch import Record, build_batch, iter_batches, iter_records
from raykafka.partition.appends import Appended
from raykafka.partition.view import View
from raykafka.process.clock import boot_clock_ms, wall_clock_ms
from raykafka.replica.host import Holder, Left
from raykafka.replica.hub import StreamHub
from raykafka.replica.receiving import Receiver
from raykafka.replica.replica import Replica
from raykafka.replica.rules.events import Propose
from raykafka.replica.rules.log_state import Settings
from raykafka.replica.rules.partition import Partition
from raykafka.replica.seal_note import seal_of
from raykafka.types import PartitionKey
from tests.lab.loop_waiting import until

SECRET = b"k" * 32
TOPIC_ID = uuid.UUID("6f1c2f40-5a0e-4bb5-9a3e-3f0f7f3a1c55")
DEADLINE_S = 60.0
BROKER, FOLLOWER = 1, 2
BROKER_EPOCH = 7
KEY = PartitionKey("events", TOPIC_ID, 0)


def batch(*values: bytes, timestamp: int | None = None, **fields: Any) -> bytearray:
    at = int(time.time() * 1000) if timestamp is None else timestamp
    return build_batch([Record(None, value, at) for value in values], **fields)


def state(
    epoch: int = 0, *, leader: int = BROKER, isr: tuple[int, ...] = (BROKER,), version: int = 0
) -> PartitionState:
    replicas = tuple(sorted({BROKER, *isr}))
    return PartitionState(replicas, leader, epoch, isr, version)


def led(epoch: int = 0, *, isr: tuple[int, ...] = (BROKER, FOLLOWER), version: int = 0, **more: Any) -> PartitionState:
    """A state in which BROKER leads and FOLLOWER follows."""
    return PartitionState((BROKER, FOLLOWER), BROKER, epoch, isr, version, **more)


def followed(
    epoch: int = 0, *, leader: int = FOLLOWER, isr: tuple[int, ...] = (BROKER, FOLLOWER), **more: Any
) -> PartitionState:
    """A state in which BROKER follows ``leader``."""
    return PartitionState((BROKER, FOLLOWER), leader, epoch, isr, epoch, **more)


def stored(directory: Path) -> list[tuple[int, int, bytes]]:
    """(offset, leader epoch, value) of every record in a partition's segment files."""
    found = []
    for path in sorted(directory.glob("*.log")):
        data = memoryview(bytearray(path.read_bytes()))
        for at, header in iter_batches(data):
            for record in iter_records(data[at : at + header.size]):
                found.append((record.offset, header.leader_epoch, record.value or b""))
    return found


class Broker:
    """A broker with some actors: its inter-broker port, which hands connections on to them."""

    def __init__(self, broker: int, path: Path, *, epoch: int = BROKER_EPOCH, actors: int = 1) -> None:
        self.broker = broker
        self.epoch = epoch
        self.path = path
        self.actors = [Actor(self, number) for number in range(actors)]
        self.links: list[Link] = []
        self.holder: Holder
        self._server: asyncio.AbstractServer
        self._handing_over: set[asyncio.Task[None]] = set()

    async def start(self) -> Broker:
        identity = {"role": "broker", "broker_id": self.broker, "broker_epoch": self.epoch}
        self._server = await serve_tcp("127.0.0.1", 0, SECRET, identity, self._accept)
        self.holder = Holder("127.0.0.1", self._server.sockets[0].getsockname()[1], self.epoch)
        return self

    def _accept(self, link: Link) -> None:
        self.links.append(link)
        task = asyncio.ensure_future(self._hand_over(link))
        self._handing_over.add(task)
        task.add_done_callback(self._handing_over.discard)

    async def _hand_over(self, link: Link) -> None:
        to = link.peer["to"]
        connection = await link.detach()
        self.actors[0 if to is None else to].hub.take(connection, link.peer)

    async def close(self) -> None:
        """End everything, as a broker that is killed: no log is closed."""
        self._server.close()
        for actor in self.actors:
            actor.hub.close()
        for actor in self.actors:
            for replica in tuple(actor.replicas.values()):
                await replica.close()


class Actor:
    """One replica actor of ``broker``. ``elsewhere`` has the partitions that a sibling serves."""

    def __init__(self, broker: Broker, number: int) -> None:
        self.broker = broker
        self.number = number
        self.hub = StreamHub(SECRET, broker.broker, number, self._find)
        self.replicas: dict[PartitionKey, OpenReplica] = {}
        self.elsewhere: dict[PartitionKey, int] = {}

    def _find(self, key: PartitionKey) -> Receiver | int | None:
        opened = self.replicas.get(key)
        return opened.replica.receiver if opened is not None else self.elsewhere.get(key)

    def on(self, key: PartitionKey = KEY) -> OpenReplica:
        """A replica here that is not open yet."""
        return OpenReplica(self, key)


class OpenReplica:
    """One replica, and its host. ``frames`` holds what it showed and answered, in order; ``calls`` what it told its
    host, by method; ``answers`` how an allowance is answered."""

    replica: Replica

    def __init__(self, actor: Actor, key: PartitionKey = KEY) -> None:
        self.actor = actor
        self.key = key
        self.directory = actor.broker.path / f"{key.topic}-{key.partition}"
        self.frames: list[View | Appended] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Callable[[str, int], Awaitable[int]]] = {}
        self.shows = False
        self._changed = asyncio.Event()

    # ReplicaHost

    def show(self, view: View) -> None:
        self.shows = True
        self.frames.append(view)
        self._changed.set()

    def show_nothing(self) -> None:
        self.shows = False

    def propose(self, proposal: Propose) -> None:
        self._called("propose", proposal._asdict())

    def refused(self, leader_epoch: int, reason: str) -> None:
        self._called("refused", {"leader_epoch": leader_epoch, "reason": reason})

    def failed(self, reason: str, diverged: bool) -> None:
        self._called("failed", {"reason": reason, "diverged": diverged})

    async def allowance(self, side: str, owed: int) -> int:
        answer = self.answers.get("allowance")
        if answer is None:
            raise LinkError("nobody grants anything here")
        return await answer(side, owed)

    def spent(self, side: str, size: int) -> None:
        self._called("spent", {"side": side, "bytes": size})

    def _called(self, method: str, args: dict[str, Any]) -> None:
        self.calls.append((method, args))
        self._changed.set()

    # what the test does

    async def open(
        self,
        state_: PartitionState | None = None,
        *,
        holders: Mapping[int, Holder] | None = None,
        config: dict[str, str] | None = None,
        high_watermark: int | None = None,
        recovery_point: int = 0,
        left: Left | None = None,
    ) -> Log:
        """Open the log and tell the replica its state; the actor has it from then on. ``left``: what another actor told
        that closed the log."""
        log = await asyncio.to_thread(
            Log.open,
            self.directory,
            LogConfig.from_topic_config(config or {}),
            topic_id=self.key.topic_id,
            recovery_point=recovery_point,
            now_ms=wall_clock_ms(),
        )
        broker = self.actor.broker
        rules = Partition(
            broker.broker,
            Settings(),
            log_start=log.log_start_offset,
            log_end=log.log_end_offset,
            history=log.epochs.history,
            checkpoint=left.high_watermark if left is not None else high_watermark,
            seal=seal_of(log.note, left.note["seal"] if left is not None and left.note is not None else None),
        )
        self.replica = Replica(log, rules, self.key, broker.epoch, self.actor.hub, self)
        self.replica.configure(config or {})
        self.actor.replicas[self.key] = self
        await self.tell(state_ or state(), holders=holders)
        return log

    async def tell(self, state_: PartitionState, *, holders: Mapping[int, Holder] | None = None) -> bool:
        """Whether it leads now."""
        await self.replica.told(state_, holders or {})
        return self.leads

    @property
    def leads(self) -> bool:
        return self.replica.partition.leading is not None

    async def close(self, **how: bool) -> Left:
        self.actor.replicas.pop(self.key, None)
        return await self.replica.close(**how)

    async def called(self, method: str, holds: Callable[[dict[str, Any]], bool] = lambda args: True) -> dict[str, Any]:
        """The arguments of a call of the replica's for which ``holds``: one that came, or the first that comes."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for name, args in self.calls:
                    if name == method and holds(args):
                        return args
                self._changed.clear()
                await self._changed.wait()

    async def follower_where(self, holds: Callable[[dict[str, Any]], bool], broker: int = FOLLOWER) -> dict[str, Any]:
        """How a follower stands, once that is so that ``holds``."""

        def found() -> dict[str, Any] | None:
            figures = self.replica.describe_followers(boot_clock_ms()).get(broker)
            return figures if figures is not None and holds(figures) else None

        return await until(found)

    def append(
        self, records: bytes | bytearray, *, acks: int = -1, leader_epoch: int = -1, timeout_ms: int = 60_000
    ) -> asyncio.Future[Appended]:
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()

        def done(appended: Appended) -> None:
            self.frames.append(appended)
            answer.set_result(appended)

        self.replica.append(memoryview(bytearray(records)), acks, timeout_ms, leader_epoch, done)
        return answer

    async def appended(self, records: bytes | bytearray, **how: int) -> Appended:
        return await asyncio.wait_for(self.append(records, **how), DEADLINE_S)

    @property
    def views(self) -> list[View]:
        return [frame for frame in self.frames if isinstance(frame, View)]

    async def view_where(self, holds: Callable[[View], bool]) -> View:
        """The newest view, once it is one for which ``holds``."""
        async with asyncio.timeout(DEADLINE_S):
            while not (self.views and holds(self.views[-1])):
                self._changed.clear()
                await self._changed.wait()
        return self.views[-1]


def with_replica(test: Callable[[OpenReplica], Awaitable[None]]) -> Callable[[Path], None]:
    """A test on one replica of BROKER, which is closed afterwards."""

    def run(tmp_path: Path) -> None:
        async def play() -> None:
            broker = await Broker(BROKER, tmp_path).start()
            try:
                await test(broker.actors[0].on())
            finally:
                await broker.close()

        asyncio.run(play())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
