"""The other ends of a replica's streams, played frame by frame: a follower's broker, and followers and leaders on
connections of their own."""

from __future__ import annotations

import asyncio
import socket

from raykafka.epoch_history import EpochHistory
from raykafka.link import Link, adopt, serve_tcp
from raykafka.replica import stream_frames as frames
from raykafka.replica.host import Holder
from raykafka.replica.rules.events import Hello, StreamId
from raykafka.types import PartitionKey
from tests.parts.replica.opened import BROKER, BROKER_EPOCH, DEADLINE_S, FOLLOWER, KEY, SECRET, Actor

ACTOR = 5


class FollowersBroker:
    """The inter-broker port of the follower's broker, and the actor behind it: streams go to whoever awaits
    ``stream``. ``is_ready``: the actor says at once that it is there. ``heard`` counts frames."""

    def __init__(self, *, is_ready: bool = True) -> None:
        self.taken = 0
        self.heard = 0
        self._is_ready = is_ready
        self.links: list[Link] = []
        self._streams: asyncio.Queue[PlayedFollower] = asyncio.Queue()

    async def start(self) -> dict[int, Holder]:
        """Listen. What is returned are the ``holders`` of a state."""
        identity = {"role": "broker", "broker_id": FOLLOWER, "broker_epoch": BROKER_EPOCH}
        self._server = await serve_tcp("127.0.0.1", 0, SECRET, identity, self._accept)
        port = self._server.sockets[0].getsockname()[1]
        return {BROKER: Holder("127.0.0.1", 1, 1), FOLLOWER: Holder("127.0.0.1", port, BROKER_EPOCH)}

    def _accept(self, link: Link) -> None:
        self.taken += 1
        self.links.append(link)
        streams: dict[int, PlayedFollower] = {}

        def frame(kind: int, payload: memoryview) -> None:
            self.heard += 1
            if kind == frames.HELLO:
                number, key, hello = frames.unpack_hello(payload)
                streams[number] = PlayedFollower(link, number, key, hello)
                self._streams.put_nowait(streams[number])
            elif kind == frames.BEAT:
                link.transport.write(frames.BEAT_FRAME)
                for stream in streams.values():
                    stream.frames.put_nowait((kind, b""))
            elif kind == frames.HEADS:
                for number, *head in frames.unpack_heads(payload):
                    streams[number].frames.put_nowait((frames.DATA, (*head, b"")))
            elif kind == frames.DATA:
                number, start, high_watermark, records = frames.unpack_data(payload)
                streams[number].frames.put_nowait((kind, (start, high_watermark, bytes(records))))
            elif kind == frames.ASK:
                number, owed = frames.unpack_bytes(payload)
                streams[number].frames.put_nowait((kind, owed))
            elif kind == frames.END:
                streams[frames.unpack_end(payload)[0]].over.set()

        def ended(_: object) -> None:
            for stream in streams.values():
                stream.over.set()

        link.start(on_frame=frame, on_close=ended)
        if self._is_ready:
            self.ready(link)

    def ready(self, link: Link) -> None:
        """Say that the actor is there."""
        link.transport.write(frames.pack_ready(ACTOR))

    async def stream(self) -> PlayedFollower:
        """The next stream, in our hands."""
        return await asyncio.wait_for(self._streams.get(), DEADLINE_S)

    def close(self) -> None:
        self._server.close()
        for link in self.links:
            link.close()


class PlayedFollower:
    """The follower's end of one stream."""

    def __init__(self, link: Link, number: int, key: PartitionKey, hello: Hello) -> None:
        self.link = link
        self.number = number
        self.key = key
        self.hello = hello
        self.over = asyncio.Event()
        self.frames: asyncio.Queue[tuple[int, object]] = asyncio.Queue()

    async def _next(self, *kinds: int) -> tuple[int, object]:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                kind, payload = await self.frames.get()
                if kind in kinds:
                    return kind, payload
                assert kind == frames.BEAT, f"a frame of kind {kind} came where one of {kinds} was to"

    def answer(self, log_end: int, last_epoch: int) -> None:
        position = frames.Position(log_end, last_epoch, BROKER_EPOCH)
        self.link.transport.write(frames.pack_answer(self.number, position))

    async def data(self) -> tuple[int, int, bytes]:
        """Log start, high watermark and records of the next frame."""
        return (await self._next(frames.DATA))[1]  # type: ignore[return-value]

    async def records(self, size: int) -> bytes:
        """What the next frames bring, until that is ``size`` bytes or more."""
        found = b""
        while len(found) < size:
            found += (await self.data())[2]
        return found

    async def beats(self, count: int) -> None:
        """Wait for so many beats, between which nothing but high watermarks may come."""
        while count:
            kind, payload = await self._next(frames.BEAT, frames.DATA)
            count -= kind == frames.BEAT
            assert kind == frames.BEAT or not payload[2]  # type: ignore[index]

    async def asked(self) -> int:
        """The leader asks for an allowance: what it owes."""
        while True:
            kind, payload = await self._next(frames.ASK, frames.DATA)
            if kind == frames.ASK:
                return payload  # type: ignore[return-value]
            assert not payload[2]  # type: ignore[index]

    def grant(self, size: int) -> None:
        self.link.transport.write(frames.pack_bytes(frames.GRANT, self.number, size))

    def ack(self, log_end: int) -> None:
        self.link.transport.write(frames.pack_acks([(self.number, log_end)]))

    def end(self, reason: int) -> None:
        self.link.transport.write(frames.pack_end(self.number, reason))

    async def ended(self) -> None:
        await asyncio.wait_for(self.over.wait(), DEADLINE_S)


class PlayedLeaders:
    """The leaders' end of a connection to an actor: the streams of a broker that leads."""

    def __init__(self, link: Link, broker: int) -> None:
        self.link = link
        self.broker = broker
        self.count = 0
        self.acks: list[list[tuple[int, ...]]] = []
        self.frames: dict[int, asyncio.Queue[tuple[int, object]]] = {}
        self._ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        link.start(on_frame=self._frame)

    @staticmethod
    async def connect(actor: Actor, broker: int = FOLLOWER) -> PlayedLeaders:
        ours, theirs = socket.socketpair()
        actor.hub.take(theirs, {"role": "replication", "broker_id": broker, "actor": 0, "to": None})
        played = PlayedLeaders(await adopt(ours, {}), broker)
        assert await asyncio.wait_for(played._ready, DEADLINE_S) == actor.number
        return played

    def _frame(self, kind: int, payload: memoryview) -> None:
        if kind == frames.READY:
            self._ready.set_result(frames.unpack_ready(payload))
        elif kind == frames.ACKS:
            acks = list(frames.unpack_acks(payload))
            self.acks.append(acks)
            for number, log_end in acks:
                self.frames[number].put_nowait((kind, log_end))
        elif kind == frames.ANSWER:
            number, position = frames.unpack_answer(payload)
            self.frames[number].put_nowait((kind, position))
        elif kind == frames.GRANT:
            number, size = frames.unpack_bytes(payload)
            self.frames[number].put_nowait((kind, size))
        elif kind == frames.END:
            number, reason = frames.unpack_end(payload)
            self.frames[number].put_nowait((kind, reason))
        elif kind == frames.ELSEWHERE:
            number, actor = frames.unpack_elsewhere(payload)
            self.frames[number].put_nowait((kind, actor))

    def leader(self, epoch: int, *, number: int = 1, key: PartitionKey = KEY) -> PlayedLeader:
        """One more stream; ``number`` is that of its StreamId."""
        self.count += 1
        self.frames[self.count] = asyncio.Queue()
        return PlayedLeader(self, self.count, StreamId(epoch, self.broker, BROKER_EPOCH, number), key)

    async def ended(self) -> None:
        await asyncio.wait_for(asyncio.shield(self.link.ended), DEADLINE_S)


class PlayedLeader:
    """The leader's end of one stream."""

    def __init__(self, leaders: PlayedLeaders, number: int, stream: StreamId, key: PartitionKey) -> None:
        self.leaders = leaders
        self.number = number
        self.stream = stream
        self.key = key

    @staticmethod
    async def connect(actor: Actor, epoch: int, leader: int = FOLLOWER, number: int = 1) -> PlayedLeader:
        """A stream on a connection of its own."""
        return (await PlayedLeaders.connect(actor, leader)).leader(epoch, number=number)

    async def _next(self, wanted: int) -> object:
        kind, payload = await asyncio.wait_for(self.leaders.frames[self.number].get(), DEADLINE_S)
        assert kind == wanted
        return payload

    def hello(self, history: list[tuple[int, int]], log_end: int, high_watermark: int = 0) -> None:
        hello = Hello(self.stream, EpochHistory.of(history), 0, log_end, high_watermark)
        self.leaders.link.transport.write(frames.pack_hello(self.number, self.key, hello))

    async def answer(self) -> tuple[int, int]:
        """The follower's log end and last epoch."""
        position = await self._next(frames.ANSWER)
        assert isinstance(position, frames.Position)
        return position.log_end, position.last_epoch

    def data(self, high_watermark: int, records: bytes | bytearray = b"") -> None:
        write = self.leaders.link.transport.write
        if records:
            write(frames.pack_data(self.number, 0, high_watermark, len(records)) + records)
        else:
            write(frames.pack_heads([(self.number, 0, high_watermark)]))

    async def ack(self) -> int:
        return await self._next(frames.ACKS)  # type: ignore[return-value]

    def ask(self, owed: int) -> None:
        self.leaders.link.transport.write(frames.pack_bytes(frames.ASK, self.number, owed))

    async def granted(self) -> int:
        return await self._next(frames.GRANT)  # type: ignore[return-value]

    @property
    def has_heard(self) -> bool:
        return not self.leaders.frames[self.number].empty()

    async def ended(self) -> int:
        """The stream was ended: why."""
        return await self._next(frames.END)  # type: ignore[return-value]

    async def elsewhere(self) -> int:
        """The actor that has the replica."""
        return await self._next(frames.ELSEWHERE)  # type: ignore[return-value]
