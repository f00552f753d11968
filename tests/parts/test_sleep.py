"""Partitions fall asleep and wake: what their seals say, who may read them, and what is left of one that is torn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from raykafka.broker.partitions.partition_host import PartitionHost
from raykafka.log import read_seal
from raykafka.log.batch import iter_batches, iter_records
from raykafka.log.seal import SEAL_FILE
from tests.lab.dataplane import TOPIC, Dataplane, batch
from tests.lab.log_parts import batch as log_batch
from tests.lab.log_parts import open_log
from tests.lab.loop_waiting import until

IDLE = {"replica.idle.ms": "1"}


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def host_of(dataplane: Dataplane) -> PartitionHost:
    host = dataplane.partitions.get((TOPIC, 0))
    assert host is not None
    return host


async def stored(dataplane: Dataplane) -> list[bytes | None]:
    data = await host_of(dataplane).log.read(0, 1 << 24)
    return [r.value for at, h in iter_batches(data) for r in iter_records(data[at : at + h.size])]


async def asleep(dataplane: Dataplane) -> PartitionHost:
    host = host_of(dataplane)
    await until(lambda: host.life == "asleep")
    return host


def test_an_idle_partition_falls_asleep_is_read_and_wakes_in_its_epoch(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path, config=IDLE) as dataplane:
            await dataplane.create()
            for n in range(3):
                await dataplane.produce(batch(b"%d" % n))
                host = await asleep(dataplane)
                assert await stored(dataplane) == [b"%d" % i for i in range(n + 1)]
                view = host.log.view
                assert view is not None and (view.high_watermark, view.leader_epoch) == (n + 1, 0)
            assert dataplane.controller_calls.reports == []
            assert len(dataplane.children.acquired) == 3

    run(test)


def test_what_is_appended_while_a_replica_falls_asleep_waits_and_wakes_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            await dataplane.create(replica_idle_ms="0")
            await dataplane.produce(batch(b"a"))
            host = host_of(dataplane)
            host.config = {**host.config, "replica.idle.ms": "1"}
            await asyncio.sleep(0.01)
            host.doze_if_idle()
            assert host.life == "dozing"
            answers = await asyncio.gather(*(dataplane.produce(batch(b"%d" % n)) for n in range(5)))
            assert [answer.error_code.value for answer in answers] == [0] * 5
            assert len(await stored(dataplane)) == 6

    run(test)


def test_an_idempotent_producer_goes_on_after_a_wake_without_a_gap_or_a_duplicate(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path, config=IDLE) as dataplane:
            await dataplane.create()
            ids = {"producer_id": 7, "producer_epoch": 0}
            first = batch(b"a", base_sequence=0, **ids)
            assert (await dataplane.produce(bytearray(first))).base_offset == 0
            await asleep(dataplane)
            assert (await dataplane.produce(bytearray(first))).base_offset == 0
            assert (await dataplane.produce(batch(b"b", base_sequence=1, **ids))).base_offset == 1
            await asleep(dataplane)
            assert (await dataplane.produce(batch(b"d", base_sequence=3, **ids))).error_code.value != 0
            assert await stored(dataplane) == [b"a", b"b"]

    run(test)


def test_an_election_is_obeyed_asleep(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path, config=IDLE) as dataplane:
            await dataplane.create()
            await dataplane.produce(batch(b"a"))
            host = await asleep(dataplane)
            await dataplane.lead()
            view = host.log.view
            assert host.life == "asleep" and view is not None
            assert (view.leader_epoch, view.epoch_start_offset, view.high_watermark) == (1, 1, 1)
            assert (await dataplane.produce(batch(b"b"))).base_offset == 1
            data = await host.log.read(0, 1 << 20)
            assert [header.leader_epoch for _, header in iter_batches(data)] == [0, 1]

    run(test)


@pytest.mark.parametrize("harm", ["none", "torn", "appended", "missing"])
def test_only_an_intact_seal_spares_a_recovery(tmp_path: Path, harm: str) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path, config=IDLE) as dataplane:
            await dataplane.create()
            await dataplane.produce(batch(b"a"))
            await asleep(dataplane)
            image = dataplane.image
        seal = tmp_path / f"{TOPIC}-0" / SEAL_FILE
        match harm:
            case "torn":
                seal.write_bytes(seal.read_bytes()[:-20])
            case "appended":
                with open(tmp_path / f"{TOPIC}-0" / f"{0:020d}.log", "ab") as log:
                    log.write(b"\0" * 10)
            case "missing":
                seal.unlink()
        async with Dataplane(tmp_path) as dataplane:
            dataplane.image = image
            await dataplane.lead()
            host = host_of(dataplane)
            assert host.life == ("asleep" if harm == "none" else "waking")
            await until(lambda: host.log.view is not None)
            assert await stored(dataplane) == [b"a"]

    run(test)


def test_a_seal_opens_a_log_for_one_writer_only(tmp_path: Path) -> None:
    log = open_log(tmp_path / "t-0")
    log.append_as_leader(log_batch(2), 0, int(time.time() * 1000))
    log.close({"kept": 1})
    seal = read_seal(tmp_path / "t-0")
    assert seal is not None and (seal.log_end_offset, seal.segments, seal.note) == (2, (0,), {"kept": 1})
    first = open_log(tmp_path / "t-0", clean=True)
    assert first.note == {"kept": 1}
    assert read_seal(tmp_path / "t-0") is None
    first.close(None)
    assert open_log(tmp_path / "t-0", clean=True).note is None


def test_a_leader_that_wakes_has_its_followers_wake_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path, config=IDLE) as dataplane:
            woken: list[tuple[int, str, dict[str, Any]]] = []

            async def call(broker: int, method: str, args: dict[str, Any], within_s: float) -> None:
                woken.append((broker, method, args))

            dataplane.broker_calls.call = call  # type: ignore[method-assign]
            topic_id = await dataplane.create()
            await dataplane.lead(leader=1)
            await dataplane.lead()
            dataplane.children.gate.clear()
            waiting = asyncio.ensure_future(dataplane.produce(batch(b"a"), acks=1))
            await until(lambda: bool(woken))
            assert not waiting.done()
            args = {"topic": TOPIC, "topic_id": str(topic_id), "partition": 0, "epoch": 2}
            assert woken == [(1, "wake_follower", args)]
            dataplane.children.gate.set()
            assert (await waiting).base_offset == 0

    run(test)


def test_a_sleeping_follower_is_woken_in_its_epoch_and_topic_only(tmp_path: Path) -> None:
    async def test() -> None:
        async with Dataplane(tmp_path) as dataplane:
            topic_id = await dataplane.create()
            await dataplane.lead(leader=1)
            args = {"topic": TOPIC, "topic_id": str(topic_id), "partition": 0, "epoch": 1}
            for wrong in ({"epoch": 0}, {"epoch": 2}, {"partition": 1}, {"topic_id": "another"}):
                await dataplane.broker_calls.answer("wake_follower", {**args, **wrong})
                assert host_of(dataplane).life == "asleep"
            await dataplane.broker_calls.answer("wake_follower", args)
            await until(lambda: host_of(dataplane).life == "awake")
            assert len(dataplane.children.acquired) == 1

    run(test)
