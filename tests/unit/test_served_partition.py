"""Appends to a partition whose log is being opened, or is open nowhere: what waits, what is refused, in which order."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raykafka.cluster.image import PartitionState
from raykafka.error_code import ErrorCode
from raykafka.partition.appends import ALL, ANY_EPOCH, Appended, Done
from raykafka.partition.log_view import LogView
from raykafka.replica_actor import partition
from raykafka.replica_actor.partition import ServedPartition
from raykafka.types import TopicPartition
from tests.lab.log_parts import idempotent

OWN, OTHER = 0, 1
WAIT_MS = 60_000


def led_by(leader: int, leader_epoch: int) -> PartitionState:
    return PartitionState((OWN, OTHER), leader, leader_epoch, (OWN, OTHER), leader_epoch)


class Written:
    """The writer of an open log: ``batches`` are what it was handed, in order."""

    def __init__(self) -> None:
        self.batches: list[memoryview] = []

    async def delete_records(self, offset: int) -> int:
        raise NotImplementedError

    def append(self, records: memoryview, acks: int, timeout_ms: int, leader_epoch: int, done: Done) -> None:
        self.batches.append(records)
        done(Appended(-1, ErrorCode.NONE))


class Client:
    """Sends batches to ``served``; ``answers`` has the code of each batch that was answered."""

    def __init__(self, served: ServedPartition) -> None:
        self.served = served
        self.answers: dict[bytes, ErrorCode] = {}

    def send(self, batch: memoryview, timeout_ms: int = WAIT_MS) -> Done:
        def done(appended: Appended) -> None:
            self.answers[bytes(batch)] = appended.error

        self.served.submit(batch, ALL, timeout_ms, ANY_EPOCH, done)
        return done


def run(tmp_path: Path, test: Callable[[ServedPartition, Client], Awaitable[None]]) -> None:
    async def body() -> None:
        with ThreadPoolExecutor(1) as threads:
            log = LogView(tmp_path / "events-0", threads)
            tp = TopicPartition("events", 0)
            served = ServedPartition(OWN, tp, uuid.UUID(int=1), led_by(OWN, 1), log, lambda: True)
            await test(served, Client(served))

    asyncio.run(asyncio.wait_for(body(), 30))


FIRST, SECOND, THIRD = (memoryview(bytes(idempotent(number))) for number in range(3))


def test_a_batch_behind_one_that_was_refused_is_refused_until_that_one_has_come_again(tmp_path: Path) -> None:
    async def test(served: ServedPartition, client: Client) -> None:
        writer = Written()
        served.nowhere("its disk is full")
        client.send(FIRST)
        served.attach(writer)
        client.send(SECOND)
        assert client.answers == dict.fromkeys((bytes(FIRST), bytes(SECOND)), ErrorCode.NOT_LEADER_OR_FOLLOWER)
        assert not writer.batches
        for batch in (FIRST, SECOND, THIRD):
            client.send(batch)
        assert writer.batches == [FIRST, SECOND, THIRD]

    run(tmp_path, test)


def test_a_batch_that_came_again_while_the_log_is_opened_goes_before_those_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "_LOOK_EVERY_S", 0.01)

    async def test(served: ServedPartition, client: Client) -> None:
        client.send(FIRST, timeout_ms=1)
        while bytes(FIRST) not in client.answers:
            await asyncio.sleep(0.01)
        assert client.answers.pop(bytes(FIRST)) is ErrorCode.REQUEST_TIMED_OUT
        client.send(SECOND)
        assert client.answers.pop(bytes(SECOND)) is ErrorCode.REQUEST_TIMED_OUT
        client.send(FIRST)
        client.send(SECOND)
        assert not client.answers
        writer = Written()
        served.attach(writer)
        assert writer.batches == [FIRST, SECOND]

    run(tmp_path, test)


def test_other_producers_are_not_held_up(tmp_path: Path) -> None:
    async def test(served: ServedPartition, client: Client) -> None:
        writer = Written()
        served.nowhere("its disk is full")
        client.send(FIRST)
        served.attach(writer)
        others = [idempotent(5, producer_id=8), idempotent(0, epoch=1), idempotent(-1, producer_id=-1)]
        for batch in others:
            client.send(batch)
        assert writer.batches == others

    run(tmp_path, test)


@pytest.mark.parametrize("states", [[led_by(OTHER, 2), led_by(OWN, 3)], [led_by(OWN, 3)]])
def test_what_was_refused_is_forgotten_when_another_broker_may_have_taken_it(
    tmp_path: Path, states: list[PartitionState]
) -> None:
    """The second case: an image between them was not seen here."""

    async def test(served: ServedPartition, client: Client) -> None:
        writer = Written()
        served.nowhere("its disk is full")
        client.send(FIRST)
        for state in states:
            served.told(state)
        served.attach(writer)
        client.send(SECOND)
        assert writer.batches == [SECOND]

    run(tmp_path, test)


def test_what_was_refused_counts_while_this_broker_leads_on_in_a_new_epoch(tmp_path: Path) -> None:
    async def test(served: ServedPartition, client: Client) -> None:
        writer = Written()
        served.nowhere("its disk is full")
        client.send(FIRST)
        served.told(led_by(OWN, 2))
        served.attach(writer)
        client.send(SECOND)
        assert not writer.batches and bytes(SECOND) in client.answers

    run(tmp_path, test)


def test_bytes_that_are_no_batch_are_the_writers_to_refuse(tmp_path: Path) -> None:
    async def test(served: ServedPartition, client: Client) -> None:
        writer, short = Written(), memoryview(b"short")
        client.send(short)
        served.attach(writer)
        served.nowhere("its disk is full")
        client.send(FIRST)
        client.send(short)
        served.attach(writer)
        client.send(short)
        assert writer.batches == [short, short]

    run(tmp_path, test)


def test_what_is_withdrawn_is_not_written_and_the_rest_keeps_its_order(tmp_path: Path) -> None:
    async def test(served: ServedPartition, client: Client) -> None:
        dones = [client.send(batch) for batch in (FIRST, SECOND, THIRD)]
        served.withdraw({dones[1]})
        writer = Written()
        served.attach(writer)
        assert writer.batches == [FIRST, THIRD] and bytes(SECOND) not in client.answers

    run(tmp_path, test)
