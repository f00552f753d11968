"""The other ends of a replica process's streams: a broker's inter-broker port that takes them, and a follower or leader
played frame by frame."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

from raykafka.cluster.image import PartitionState
from raykafka.epoch_history import EpochHistory
from raykafka.link import Link, adopt, handover, serve_tcp
from raykafka.replica import stream_frames as frames
from raykafka.replica.rules.events import Hello, StreamId
from tests.parts.replica.process import BROKER, DEADLINE_S, SECRET, ReplicaProcess

FOLLOWER = 2
BROKER_EPOCH = 7


def led(epoch: int = 0, *, isr: tuple[int, ...] = (BROKER, FOLLOWER), version: int = 0, **more: Any) -> PartitionState:
    """A state in which BROKER leads and FOLLOWER follows."""
    return PartitionState((BROKER, FOLLOWER), BROKER, epoch, isr, version, **more)


def followed(
    epoch: int = 0, *, leader: int = FOLLOWER, isr: tuple[int, ...] = (BROKER, FOLLOWER), **more: Any
) -> PartitionState:
    """A state in which BROKER follows ``leader``."""
    return PartitionState((BROKER, FOLLOWER), leader, epoch, isr, epoch, **more)


class FollowersBroker:
    """The inter-broker port of the follower's broker. Streams go to ``follower`` if there is one, else to whoever
    awaits ``stream``."""

    def __init__(self, follower: ReplicaProcess | None = None) -> None:
        self.follower = follower
        self.streams: asyncio.Queue[Link] = asyncio.Queue()
        self.taken = 0
        self._handing_over: set[asyncio.Task[None]] = set()

    async def start(self) -> dict[str, list[Any]]:
        """Listen. What is returned names this place in the ``holders`` of a state."""
        identity = {"role": "broker", "broker_id": FOLLOWER, "broker_epoch": BROKER_EPOCH}
        self._server = await serve_tcp("127.0.0.1", 0, SECRET, identity, self._accept)
        port = self._server.sockets[0].getsockname()[1]
        return {str(BROKER): ["127.0.0.1", 1, 1], str(FOLLOWER): ["127.0.0.1", port, BROKER_EPOCH]}

    def _accept(self, link: Link) -> None:
        self.taken += 1
        if self.follower is None:
            self.streams.put_nowait(link)
            return
        task = asyncio.ensure_future(self._hand_over(link, self.follower))
        self._handing_over.add(task)
        task.add_done_callback(self._handing_over.discard)

    async def _hand_over(self, link: Link, follower: ReplicaProcess) -> None:
        with await link.detach() as connection:
            handover.hand_over(follower.streams, connection, link.peer)

    async def stream(self) -> PlayedFollower:
        """The next stream, in our hands."""
        return PlayedFollower(await asyncio.wait_for(self.streams.get(), DEADLINE_S))

    def close(self) -> None:
        self._server.close()


class PlayedFollower:
    """The follower's end of one stream, played by a test."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._frames: asyncio.Queue[tuple[int, memoryview]] = asyncio.Queue()
        link.start(on_frame=lambda kind, payload: self._frames.put_nowait((kind, payload)))
        link.send(frames.READY)

    async def _next(self, wanted: int) -> memoryview:
        kind, payload = await asyncio.wait_for(self._frames.get(), DEADLINE_S)
        assert kind == wanted
        return payload

    async def hello(self) -> Hello:
        return frames.unpack_hello(await self._next(frames.HELLO))

    def answer(self, log_end: int, last_epoch: int) -> None:
        self.link.send(frames.ANSWER, frames.Position(log_end, last_epoch, BROKER_EPOCH).pack())

    async def data(self) -> tuple[int, int, bytes]:
        """Log start, high watermark and records of the next frame."""
        log_start, high_watermark, records = frames.unpack_data(await self._next(frames.DATA))
        return log_start, high_watermark, bytes(records)

    async def records(self, size: int) -> bytes:
        """What the next frames bring, until that is ``size`` bytes or more."""
        found = b""
        while len(found) < size:
            found += (await self.data())[2]
        return found

    async def beats(self, count: int) -> None:
        """Take frames, which must have no records, and say that we live."""
        for _ in range(count):
            log_start, _, records = await self.data()
            assert not records
            self.ack(log_start)

    async def asked(self) -> int:
        """The leader asks for an allowance: what it owes."""
        return frames.unpack_bytes(await self._next(frames.ASK))

    def grant(self, size: int) -> None:
        self.link.send(frames.GRANT, frames.pack_bytes(size))

    def ack(self, log_end: int) -> None:
        self.link.send(frames.ACK, frames.pack_ack(log_end))

    async def ended(self) -> None:
        await asyncio.wait_for(asyncio.shield(self.link.ended), DEADLINE_S)


class PlayedLeader:
    """The leader's end of one stream to a follower's replica process, played by a test."""

    def __init__(self, link: Link, stream: StreamId) -> None:
        self.link = link
        self.stream = stream
        self._frames: asyncio.Queue[tuple[int, memoryview]] = asyncio.Queue()
        link.start(on_frame=lambda kind, payload: self._frames.put_nowait((kind, payload)))

    @staticmethod
    async def connect(streams: str, epoch: int, leader: int = FOLLOWER, number: int = 1) -> PlayedLeader:
        """``streams`` is where the replica takes connections over."""
        stream = StreamId(epoch, leader, BROKER_EPOCH, number)
        ours, theirs = socket.socketpair()
        with theirs:
            handover.hand_over(streams, theirs, {"stream": list(stream)})
        played = PlayedLeader(await adopt(ours, {}), stream)
        await played._next(frames.READY)
        return played

    async def _next(self, wanted: int) -> memoryview:
        kind, payload = await asyncio.wait_for(self._frames.get(), DEADLINE_S)
        assert kind == wanted
        return payload

    def hello(self, history: list[tuple[int, int]], log_end: int, high_watermark: int = 0) -> None:
        hello = Hello(self.stream, EpochHistory.of(history), 0, log_end, high_watermark)
        self.link.send(frames.HELLO, frames.pack_hello(hello))

    async def answer(self) -> tuple[int, int]:
        """The follower's log end and last epoch."""
        position = frames.Position.unpack(await self._next(frames.ANSWER))
        return position.log_end, position.last_epoch

    def data(self, high_watermark: int, records: bytes | bytearray = b"") -> None:
        self.link.send(frames.DATA, frames.pack_data(0, high_watermark), records)

    async def ack(self) -> int:
        return frames.unpack_ack(await self._next(frames.ACK))

    def ask(self, owed: int) -> None:
        self.link.send(frames.ASK, frames.pack_bytes(owed))

    async def granted(self) -> int:
        return frames.unpack_bytes(await self._next(frames.GRANT))

    @property
    def has_heard(self) -> bool:
        return not self._frames.empty()

    async def ended(self) -> None:
        await asyncio.wait_for(asyncio.shield(self.link.ended), DEADLINE_S)


async def follower_beside(leader: ReplicaProcess) -> ReplicaProcess:
    """A second replica process, in a directory of its own."""
    directory = Path(leader.directory).parent / "f"
    directory.mkdir(exist_ok=True)
    follower = ReplicaProcess(directory)
    await follower.start()
    return follower
