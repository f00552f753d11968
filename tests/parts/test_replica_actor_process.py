"""A replica actor as a process of its own: what it does while logs are being opened, and when its broker has ended."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from raykafka.cluster.image import BrokerInfo, ClusterImage, Endpoint, PartitionState, Topic, delta_to_json
from raykafka.error_code import ErrorCode
from raykafka.link import Link, handover, serve_unix
from raykafka.log import lock_holder
from raykafka.log.seal import read_seal
from tests.lab.client_frames import read_response, request
from tests.lab.dataplane import batch, decode_response, produce_body
from tests.lab.log_parts import open_log

SECRET = b"k" * 32
TOPIC = "events"
TOPIC_ID = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
BROKER = 0
PRODUCE, VERSION = 0, 9
WITHIN_S = 60
_START = {"recovery_point": 0, "high_watermark": None, "log_start_offset": 0, "seal": None}


class ActorProcess:
    """One replica actor; the test is its broker, at the other end of ``link``."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], link: Link) -> None:
        self.directory = directory
        self.process = process
        self.link = link

    def log(self, partition: int) -> Path:
        return self.directory / f"{TOPIC}-{partition}"

    async def begin(self, partitions: int) -> None:
        """Have it be actor 0 of a broker that leads a topic."""
        info = BrokerInfo(BROKER, 1, (Endpoint("TEST", "127.0.0.1", 9092),), "127.0.0.1", 0, "", "", True)
        states = {p: PartitionState((BROKER,), BROKER, 0, (BROKER,), 0) for p in range(partitions)}
        image = ClusterImage("test", brokers={BROKER: info}, topics={TOPIC: Topic(TOPIC, TOPIC_ID, states, {})})
        begin = {"number": 0, "broker_id": BROKER, "log_dir": str(self.directory), "config": {}}
        await self.link.call("begin", begin, WITHIN_S)
        update = {"number": 1, "full": True, "cluster_id": "test", "delta": delta_to_json(image.as_delta())}
        await self.link.call("image", update, WITHIN_S)

    async def open(self, partition: int) -> dict[str, Any]:
        named = {"topic": TOPIC, "topic_id": str(TOPIC_ID), "partition": partition}
        answer: dict[str, Any] = await self.link.call("open", {**named, **_START}, WITHIN_S)
        return answer

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client's connection, which the actor was handed."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            accepted, _ = listening.accept()
        accepted.setblocking(False)
        giver = handover.Giver(self.link.peer["fds"], lambda connection, peer: connection.close())
        giver.give(accepted, {"client": "TEST"})
        giver.close()
        return reader, writer


async def produce(client: tuple[asyncio.StreamReader, asyncio.StreamWriter], partition: int, value: bytes) -> Any:
    """The partition's part of the answer to a Produce with acks=all."""
    reader, writer = client
    body = produce_body(VERSION, -1, [(TOPIC, [(partition, batch(value))])])
    writer.write(request(PRODUCE, VERSION, 1, body))
    _, answer = await asyncio.wait_for(read_response(reader), WITHIN_S)
    # the header's tagged fields come first
    return decode_response(PRODUCE, VERSION, answer[1:]).responses[0].partition_responses[0]


@asynccontextmanager
async def actor_process(directory: Path) -> AsyncIterator[ActorProcess]:
    accepted: asyncio.Queue[Link] = asyncio.Queue()
    with tempfile.TemporaryDirectory() as sockets:
        path = f"{sockets}/children.sock"
        listening = await serve_unix(path, SECRET, {"role": "broker"}, accepted.put_nowait)
        command = [sys.executable, "-m", "raykafka.replica_actor.actor", "--socket", path, "--token", "t"]
        process = subprocess.Popen(command, env={**os.environ, "RAYKAFKA_SECRET_HEX": SECRET.hex()})
        try:
            link = await asyncio.wait_for(accepted.get(), WITHIN_S)
            link.start()
            yield ActorProcess(directory, process, link)
        finally:
            process.kill()
            process.wait()
            listening.close()


def run(directory: Path, test: Callable[[ActorProcess], Awaitable[None]]) -> None:
    async def play() -> None:
        async with actor_process(directory) as actor:
            await test(actor)

    asyncio.run(play())


def test_an_actor_whose_brokers_link_ends_lets_its_clients_go_closes_its_logs_and_exits(tmp_path: Path) -> None:
    """Rule 4."""

    async def test(actor: ActorProcess) -> None:
        await actor.begin(partitions=3)
        await asyncio.gather(*(actor.open(partition) for partition in range(3)))
        client = await actor.client()
        for partition in range(3):
            assert (await produce(client, partition, b"a")).error_code.value == ErrorCode.NONE
            holder = lock_holder(actor.log(partition))
            assert holder is not None and holder.pid == actor.process.pid
        actor.link.close()
        assert await asyncio.wait_for(client[0].read(), WITHIN_S) == b""
        assert await asyncio.to_thread(actor.process.wait, WITHIN_S) == 0
        for partition in range(3):
            assert lock_holder(actor.log(partition)) is None
            seal = read_seal(actor.log(partition))
            assert seal is not None and seal.log_end_offset == 1, "the next to open it has to recover it"

    run(tmp_path, test)


def test_an_actor_answers_pings_and_serves_other_logs_while_it_opens_one(tmp_path: Path) -> None:
    """Rule 22."""

    async def test(actor: ActorProcess) -> None:
        for partition in range(2):
            open_log(actor.log(partition)).close(None)
        await actor.begin(partitions=2)
        # opening reads the leader-epoch file: a pipe holds that up until somebody writes
        pipe = actor.log(0) / "leader-epoch-checkpoint"
        os.mkfifo(pipe)
        opening = asyncio.ensure_future(actor.open(0))
        await actor.link.ping(WITHIN_S)
        await actor.open(1)
        client = await actor.client()
        assert (await produce(client, 1, b"beside it")).base_offset == 0
        await actor.link.ping(WITHIN_S)
        assert not opening.done()
        await asyncio.to_thread(pipe.write_text, "0\n0\n")
        assert (await opening)["log_end_offset"] == 0
        assert (await produce(client, 0, b"then it")).base_offset == 0

    run(tmp_path, test)
