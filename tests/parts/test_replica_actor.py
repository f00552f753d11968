"""One replica actor with several replicas: what it goes by, what it tells its broker, and what a failure takes along.
The actor runs in the test's own event loop; the test is its broker, at the other end of a real socket."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raykafka.cluster.image import ImageDelta, PartitionState
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError, UnanswerableRequestError
from raykafka.link import handover
from raykafka.log import Log, LogConfig
from raykafka.log.seal import SEAL_FILE
from raykafka.process.clock import boot_clock, wall_clock_ms
from raykafka.replica_actor import report
from raykafka.replica_actor.hosting import Hosted
from raykafka.types import PartitionKey, TopicPartition
from tests.lab.actor_processes import Client
from tests.lab.dataplane import BROKER, TOPIC, Dataplane, batch
from tests.lab.loop_waiting import until


def run(directory: Path, test: Callable[[Dataplane], Awaitable[None]]) -> None:
    async def body() -> None:
        async with Dataplane(directory) as dataplane:
            await test(dataplane)

    asyncio.run(asyncio.wait_for(body(), 60))


def hosted(dataplane: Dataplane, partition: int = 0) -> Hosted:
    found = dataplane.server._hosting.get(PartitionKey(TOPIC, dataplane.image.topics[TOPIC].id, partition))
    assert found is not None
    return found


async def error_of(dataplane: Dataplane, partition: int = 0, acks: int = -1) -> ErrorCode:
    """What a write is answered."""
    answer = await dataplane.produce(batch(b"x"), partition=partition, acks=acks)
    return ErrorCode(answer.error_code.value)


# failures


@contextmanager
def _full(log: Log) -> Iterator[None]:
    """What is written to the log's last file meets a full disk, and it can't be cut back."""
    kept, full = os.dup(log._segments.active.fd), os.open("/dev/full", os.O_WRONLY)
    try:
        os.dup2(full, log._segments.active.fd)
        yield
    finally:
        os.dup2(kept, log._segments.active.fd)
        os.close(kept)
        os.close(full)


def test_a_log_that_fails_takes_its_replica_down_and_no_other(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        dataplane.elects = False
        await dataplane.create(partitions=3)
        for partition in range(3):
            assert await error_of(dataplane, partition) is ErrorCode.NONE
        with _full(hosted(dataplane, 1).replica.log):
            assert await error_of(dataplane, 1) is ErrorCode.KAFKA_STORAGE_ERROR
        failed = await until(lambda: [args for method, args in dataplane.heard if method == "failed"])
        assert [(args["topic"], args["partition"], args["diverged"]) for args in failed] == [(TOPIC, 1, False)]
        assert await error_of(dataplane, 1) is ErrorCode.NOT_LEADER_OR_FOLLOWER
        for partition in (0, 2):
            assert await error_of(dataplane, partition) is ErrorCode.NONE
        # it can be opened again, by the same actor
        tp = TopicPartition(TOPIC, 1)
        await dataplane.open(tp)
        await dataplane.lead(partition=1)
        assert await error_of(dataplane, 1) is ErrorCode.NONE

    run(tmp_path, test)


def test_a_log_that_can_not_be_opened_is_refused_and_can_be_opened_later(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        dataplane.opens = False
        await dataplane.create()
        tp = TopicPartition(TOPIC, 0)
        held = Log.open(
            tmp_path / f"{TOPIC}-0",
            LogConfig.from_topic_config({}),
            topic_id=dataplane.image.topics[TOPIC].id,
            recovery_point=0,
            now_ms=wall_clock_ms(),
        )
        with pytest.raises(KafkaError) as refused:
            await dataplane.open(tp)
        assert refused.value.code is ErrorCode.KAFKA_STORAGE_ERROR
        held.close(None)
        await dataplane.open(tp)
        assert await error_of(dataplane) is ErrorCode.NONE

    run(tmp_path, test)


def test_the_end_of_its_broker_ends_its_clients_and_leaves_all_logs_whole(tmp_path: Path) -> None:
    topic_ids = []

    async def play() -> None:
        async with Dataplane(tmp_path) as dataplane:
            topic_ids.append(await dataplane.create(partitions=3))
            giver = handover.Giver(f"{dataplane._sockets.name}/a{handover.SUFFIX}", lambda connection, peer: None)
            own, other = socket.socketpair()
            giver.give(other, {"client": "TEST"})
            client = Client(*await asyncio.open_connection(sock=own))
            for partition in range(3):
                assert (await client.produce(b"a", b"b", partition=partition)).base_offset == 0
            dataplane.broker.transport.abort()
            assert await asyncio.wait_for(client.reader.read(), 30) == b""
            await dataplane.server.ended
            assert not dataplane.server._listeners["TEST"].connections
            giver.close()

    asyncio.run(asyncio.wait_for(play(), 60))
    for partition in range(3):
        log = Log.open(
            tmp_path / f"{TOPIC}-{partition}",
            LogConfig.from_topic_config({}),
            topic_id=topic_ids[0],
            recovery_point=0,
            now_ms=wall_clock_ms(),
        )
        assert log.note is not None, "it was not sealed: it is recovered"
        assert (log.log_end_offset, log.recovered_bytes_cut) == (2, 0)
        log.close(None)


# what its broker asks


async def ends(dataplane: Dataplane, *partitions: int, topic: str = TOPIC) -> list[int | None]:
    answer: dict[str, Any] = await dataplane.broker.call("ends", {"partitions": [[topic, p] for p in partitions]})
    found: list[int | None] = answer["ends"]
    return found


def test_ends_are_told_of_what_is_led_and_open_here(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(partitions=2)
        await dataplane.create("followed", leader=1)
        await dataplane.produce(batch(b"a", b"b"))
        assert await ends(dataplane, 0, 1, 7) == [2, 0, None]
        assert await ends(dataplane, 0, topic="followed") == [None]
        assert await ends(dataplane, 0, topic="unknown") == [None]
        await dataplane.close(TopicPartition(TOPIC, 0))
        assert await ends(dataplane, 0, 1) == [None, 0]

    run(tmp_path, test)


def test_a_leader_whose_replica_has_not_heard_of_it_tells_no_end(tmp_path: Path) -> None:
    """Rule 9: what that knows is from the time when it followed."""

    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.produce(batch(b"a", b"b"))
        heard = await dataplane.lead_unheard()
        assert await ends(dataplane, 0) == [None]
        heard.set()
        assert await until_answered(lambda: ends(dataplane, 0)) == [2]

    run(tmp_path, test)


def test_a_new_leader_tells_no_end_before_its_high_watermark_reaches_where_its_epoch_begins(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        await dataplane.produce(batch(b"a", b"b"))
        await dataplane.close(TopicPartition(TOPIC, 0))
        (tmp_path / f"{TOPIC}-0" / SEAL_FILE).unlink()  # as if it had been killed
        # another is in sync, as far as is known, and acknowledges nothing
        await change(dataplane, replicas=(BROKER, 1), isr=(BROKER, 1))
        view = await until(lambda: hosted(dataplane).view)
        assert view.high_watermark < view.epoch_start_offset
        assert await ends(dataplane, 0) == [None]
        await change(dataplane, isr=(BROKER,))
        assert await until_answered(lambda: ends(dataplane, 0)) == [2]

    run(tmp_path, test)


async def until_answered(ask: Callable[[], Awaitable[list[int | None]]]) -> list[int | None]:
    """The first answer that has no None in it."""
    while None in (answer := await ask()):
        await asyncio.sleep(0.005)
    return answer


async def change(dataplane: Dataplane, **changes: Any) -> None:
    """Have partition 0 in another state, in the next epoch where it says so."""
    old = dataplane.image.topics[TOPIC]
    state = old.partitions[0]
    epoch = state.leader_epoch + ("replicas" in changes)
    state = dataclasses.replace(state, leader_epoch=epoch, version=state.version + 1, **changes)
    await dataplane.take(ImageDelta(topics={TOPIC: dataclasses.replace(old, partitions={**old.partitions, 0: state})}))


def test_a_report_has_the_partitions_that_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "EVERY_S", 0.05)

    async def reported(dataplane: Dataplane) -> list[tuple[int, int, int]]:
        """Partition, high watermark and log end of each row of the two reports that begin from now on."""
        dataplane.heard.clear()

        def reports() -> list[dict[str, Any]] | None:
            found = [args for method, args in dataplane.heard if method == "report"]
            return found if len(found) >= 2 else None

        return [(row[1], row[4], row[5]) for found in await until(reports) for row in found["partitions"]]

    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(partitions=3)
        await until(lambda: any(args.get("partitions") for method, args in dataplane.heard if method == "report"))
        while await reported(dataplane):
            pass
        dataplane.heard.clear()
        await dataplane.produce(batch(b"a", b"b"), partition=1)
        rows = await reported(dataplane)
        assert {row[0] for row in rows} == {1}
        assert rows[-1] == (1, 2, 2)
        assert await reported(dataplane) == []

    run(tmp_path, test)


def test_when_the_lease_has_run_out_only_acks_all_is_taken(tmp_path: Path) -> None:
    """Rule 15: by the moment that its broker told, without another word of it."""

    async def test(dataplane: Dataplane) -> None:
        await dataplane.create()
        until_s = boot_clock() + 3600
        dataplane.broker.tell("lease", {"until": until_s})
        await until(lambda: dataplane.server._lease_until == until_s)
        assert await error_of(dataplane, acks=1) is ErrorCode.NONE
        until_s = boot_clock() + 0.1
        dataplane.broker.tell("lease", {"until": until_s})
        await until(lambda: boot_clock() > until_s)
        assert await error_of(dataplane, acks=1) is ErrorCode.NOT_LEADER_OR_FOLLOWER
        with pytest.raises(UnanswerableRequestError):
            await dataplane.produce(batch(b"x"), acks=0)
        assert await error_of(dataplane, acks=-1) is ErrorCode.NONE

    run(tmp_path, test)


def test_what_waited_for_its_log_needs_the_lease_that_holds_then(tmp_path: Path) -> None:
    """Rule 15: acks=1 that came while the lease held is not answered once it has run out."""

    async def test(dataplane: Dataplane) -> None:
        dataplane.opens = False
        await dataplane.create()
        waiting = [asyncio.ensure_future(error_of(dataplane, acks=acks)) for acks in (1, -1)]
        await until(lambda: all(not one.done() for one in waiting) and dataplane.partitions.get((TOPIC, 0)) is not None)
        await asyncio.sleep(0)
        dataplane.lease = False
        await dataplane.open(TopicPartition(TOPIC, 0))
        assert await asyncio.gather(*waiting) == [ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NONE]

    run(tmp_path, test)


def test_images_are_taken_in_order_and_answered_when_replicas_go_by_them(tmp_path: Path) -> None:
    """Many at once: none waits for the answer to the one before it."""
    elections = 20

    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(partitions=2)
        led: list[int] = []

        async def elect() -> None:
            await dataplane.lead()
            led.append(hosted(dataplane).replica.partition.epoch)

        await asyncio.gather(*(elect() for _ in range(elections)))
        assert all(epoch >= number for number, epoch in enumerate(led, 1)), led
        state: PartitionState = hosted(dataplane).served.state
        assert state.leader_epoch == elections
        assert await error_of(dataplane) is ErrorCode.NONE

    run(tmp_path, test)


def test_a_replica_that_is_taken_from_its_broker_is_closed_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    async def test(dataplane: Dataplane) -> None:
        await dataplane.create(partitions=2)
        await dataplane.delete()
        assert len(dataplane.server._hosting) == 0
        assert not list(dataplane.partitions)
        assert not list(tmp_path.iterdir())
        dataplane.broker.tell("placed", {"partitions": [[TOPIC, "6f1c2f40-5a0e-4bb5-9a3e-3f0f7f3a1c55", 0, -1]]})
        await dataplane.create()
        assert await error_of(dataplane) is ErrorCode.NONE
        assert not dataplane.server._placed

    run(tmp_path, test)
