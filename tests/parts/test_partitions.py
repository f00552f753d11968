"""The partitions of a broker: opened by its replica actors, failed, moved, deleted, set aside, and back after a stop.

The actors are played (``tests.lab.actor_pool``), on real directories and locks.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from raykafka.broker.configs import Configs
from raykafka.broker.neighbourhood.controller_calls import FailedLeadership
from raykafka.broker.partitions import log_locks, partition_host
from raykafka.broker.partitions.checkpoints import HIGH_WATERMARKS, LOG_STARTS, RECOVERY_POINTS
from raykafka.broker.partitions.life import Phase
from raykafka.broker.partitions.partition_host import PartitionHost
from raykafka.broker.partitions.partitions import Partitions
from raykafka.broker.partitions.placement import REST_ROUNDS, ROUNDS
from raykafka.broker.partitions.seats import OPENING_AT_ONCE
from raykafka.cluster.image import ClusterImage, ImageDelta, PartitionState, Topic
from raykafka.error_code import ErrorCode
from raykafka.errors import KafkaError
from raykafka.replica.rules.events import Propose
from raykafka.types import TopicPartition
from tests.lab.actor_pool import Key, RecordedActor, RecordedPool
from tests.lab.loop_waiting import until

BROKER = 0
TOPIC = "events"


class Controller:
    """Takes reports and proposals, and decides nothing."""

    def __init__(self) -> None:
        self.reports: list[list[tuple[TopicPartition, int, str]]] = []
        self.proposals: list[tuple[TopicPartition, Propose]] = []

    async def alter_partitions(self, proposals: Sequence[tuple[TopicPartition, uuid.UUID, Propose]]) -> list[ErrorCode]:
        self.proposals += [(tp, proposal) for tp, _, proposal in proposals]
        return [ErrorCode.NONE for _ in proposals]

    async def report_failed(self, leaderships: Sequence[FailedLeadership]) -> None:
        self.reports.append([(lost.tp, lost.leader_epoch, lost.reason) for lost in leaderships])


class Broker:
    """Partitions of a broker on ``directory`` with ``actors`` replica actors. ``async with`` closes all logs after."""

    def __init__(
        self,
        directory: Path,
        actors: int = 1,
        *,
        each: bool = False,
        checkpoints: Mapping[str, Mapping[TopicPartition, int]] | None = None,
        image: ClusterImage | None = None,
    ) -> None:
        self.broker_id = BROKER
        self.configs = Configs(BROKER, {})
        self.controller_calls = Controller()
        self.image = image or ClusterImage("test")
        self.pool = RecordedPool(directory, actors, each=each)
        none: dict[str, dict[TopicPartition, int]] = {RECOVERY_POINTS: {}, HIGH_WATERMARKS: {}, LOG_STARTS: {}}
        self.partitions = Partitions(self, directory, {**none, **(checkpoints or {})}, self.pool)
        self.pool.partitions = self.partitions

    async def __aenter__(self) -> Broker:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.partitions.close()

    @property
    def actors(self) -> list[RecordedActor]:
        return self.pool.actors

    @property
    def reports(self) -> list[list[tuple[TopicPartition, int, str]]]:
        return self.controller_calls.reports

    def host(self, partition: int = 0, topic: str = TOPIC) -> PartitionHost:
        host = self.partitions.get((topic, partition))
        assert host is not None
        return host

    async def take(self, delta: ImageDelta) -> None:
        self.image = self.image.apply(delta)
        await self.partitions.apply(self.image)

    async def create(self, topic: str = TOPIC, partitions: int = 1, *, leader: int = BROKER, **config: str) -> None:
        states = {p: PartitionState((BROKER, 1), leader, 0, (BROKER, 1), 0) for p in range(partitions)}
        named = {name.replace("_", "."): value for name, value in config.items()}
        await self.take(ImageDelta(topics={topic: Topic(topic, uuid.uuid4(), states, named)}))

    async def create_open(
        self, topic: str = TOPIC, partitions: int = 1, *, leader: int = BROKER, **config: str
    ) -> None:
        await self.create(topic, partitions, leader=leader, **config)
        await self.all_open()

    async def all_open(self) -> None:
        await until(lambda: all(host.life.phase is Phase.OPEN for host in self.partitions), "all are open")
        await asyncio.sleep(0)  # who has what is told at the end of the turn

    async def lead(self, topic: str = TOPIC, partition: int = 0, leader: int = BROKER) -> None:
        """Elect ``leader`` in the next epoch."""
        old = self.image.topics[topic].partitions[partition]
        changed = dataclasses.replace(old, leader=leader, leader_epoch=old.leader_epoch + 1, version=old.version + 1)
        await self.take(ImageDelta(partitions={TopicPartition(topic, partition): changed}))

    async def delete(self, topic: str = TOPIC) -> None:
        await self.take(ImageDelta(deleted_topics=(topic,)))


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def report_row(partition: int, log_end: int, *, topic: str = TOPIC, epoch: int = 0) -> list[object]:
    return [topic, partition, epoch, 1, log_end - 1, log_end, log_end - 2, None]


# opening


def test_every_partition_is_opened_at_once_leaders_first(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path, 2) as broker:
            states = {p: PartitionState((BROKER, 1), int(p % 3 > 0), 0, (BROKER, 1), 0) for p in range(200)}
            await broker.take(ImageDelta(topics={TOPIC: Topic(TOPIC, uuid.uuid4(), states)}))
            await broker.all_open()
            asked = [key[1] for actor in broker.actors for _, key in actor.asked]
            assert sorted(asked) == list(range(200))
            for actor in broker.actors:
                led = [states[key[1]].leader == BROKER for _, key in actor.asked]
                assert led == sorted(led, reverse=True)
                assert len(actor.open_logs) == 100
                assert actor.most_at_once == OPENING_AT_ONCE
            assert broker.pool.placements == {(TOPIC, p): broker.host(p).actor for p in range(200)}

    run(test)


def test_partitions_wait_for_the_first_actor(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path, 0) as broker:
            await broker.create(partitions=3)
            await asyncio.sleep(0)
            assert {host.life.phase for host in broker.partitions} == {Phase.SEEKING}
            broker.pool.start()
            await broker.all_open()

    run(test)


def test_a_busy_actor_gets_fewer_of_the_new_replicas(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path, 2) as broker:
            await broker.create_open(partitions=2)
            broker.actors[0].busy = 0.5
            for actor in broker.actors:
                broker.partitions.take_report(actor.number, [])
            for number in range(20):
                await broker.create_open(f"more{number}")
            assert [len(actor.open_logs) for actor in broker.actors] == [1, 21]
            for number in range(10):
                await broker.create_open(f"many{number}")
            # until their load is measured, each new replica counts as some
            assert 1 < len(broker.actors[0].open_logs) < 8

    run(test)


def test_partitions_of_topics_that_did_not_change_are_not_looked_at(tmp_path: Path) -> None:
    class Watched(Mapping[int, PartitionState]):
        def __init__(self, states: dict[int, PartitionState]) -> None:
            self.states = states

        def __getitem__(self, partition: int) -> PartitionState:
            return self.states[partition]

        def __iter__(self) -> Iterator[int]:
            looks.append("looked at")
            return iter(self.states)

        def __len__(self) -> int:
            return len(self.states)

    looks: list[str] = []

    async def test() -> None:
        async with Broker(tmp_path) as broker:
            states = Watched({p: PartitionState((BROKER, 1), BROKER, 0, (BROKER, 1), 0) for p in range(20)})
            await broker.take(ImageDelta(topics={TOPIC: Topic(TOPIC, uuid.uuid4(), states)}))
            assert looks
            looks.clear()
            await broker.create("other", partitions=3)
            await broker.lead("other", 1)
            await broker.delete("other")
            await broker.take(ImageDelta(broker_configs={"": {"message.max.bytes": "100"}}))
            assert not looks
            await broker.all_open()

    run(test)


def test_of_a_topic_that_changed_only_what_changed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with Broker(tmp_path) as broker:
            await broker.create_open(partitions=20)
            applied: list[TopicPartition] = []
            apply = PartitionHost.apply

            def counted(host: PartitionHost, state: PartitionState) -> None:
                applied.append(host.tp)
                apply(host, state)

            monkeypatch.setattr(PartitionHost, "apply", counted)
            await broker.lead(TOPIC, 1)
            assert applied == [(TOPIC, 1)]

    run(test)


def test_each_replica_gets_an_actor_of_its_own(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path, 1, each=True) as broker:
            await broker.create_open(partitions=3)
            assert [len(actor.open_logs) for actor in broker.actors] == [0, 1, 1, 1]
            broker.actors[2].die()
            await broker.all_open()
            assert [len(actor.open_logs) for actor in broker.actors] == [0, 1, 0, 1, 1]
            await broker.delete()
            await until(lambda: list(broker.pool.living()) == [0])
            assert sorted(broker.pool.let_go_numbers) == [0, 1, 3, 4]

    run(test)


# failing


def test_an_actor_that_ends_is_one_report_and_its_replicas_open_elsewhere(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path, 2) as broker:
            await broker.create_open(partitions=6)
            await broker.create_open("followed", partitions=4, leader=1)
            lost = list(broker.actors[0].open_logs)
            assert len(lost) == 5
            broker.actors[0].die()
            assert {broker.host(p).life.phase for topic, p in lost if topic == TOPIC} == {Phase.WAITING}
            await broker.all_open()
            assert len(broker.actors[1].open_logs) == 10
            assert len(broker.reports) == 1
            assert sorted((tp, epoch) for tp, epoch, _ in broker.reports[0]) == sorted((key, 0) for key in lost)
            assert broker.partitions.replica_restarts == 5
            assert set(broker.pool.placements.values()) == {1}
            assert [host.failures.reason for host in broker.partitions] == [""] * 10

    run(test)


def test_a_successor_waits_for_the_log_and_an_actor_that_holds_it_long_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_locks, "LEAVE_WITHIN_S", 0.1)

    async def test() -> None:
        async with Broker(tmp_path, 2) as broker:
            await broker.create_open(partitions=4)
            broker.actors[0].lingers = True
            broker.actors[0].die()
            asked = len(broker.actors[1].asked)
            assert not broker.actors[0].killed
            await broker.all_open()
            assert broker.actors[0].killed
            assert len(broker.actors[1].asked) == asked + 2
            assert len(broker.reports) == 1

    run(test)


def test_a_log_that_is_let_go_by_itself_is_opened_and_nobody_is_killed(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path, 2) as broker:
            await broker.create_open(partitions=4)
            leaving = broker.actors[0]
            leaving.lingers = True
            leaving.die()
            await asyncio.sleep(0.03)
            waiting = [host for host in broker.partitions if host.life.phase is Phase.WAITING]
            assert len(waiting) == 2
            while leaving.open_logs:
                leaving.open_logs.popitem()[1].release()
            await broker.all_open()
            assert not leaving.killed

    run(test)


def test_a_failed_replica_is_reported_and_opened_again_and_no_other_is_touched(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path) as broker:
            await broker.create_open(partitions=3)
            (actor,) = broker.actors
            asked = len(actor.asked)
            actor.fail(broker.partitions, broker.host(1))
            assert broker.host(1).ends is None
            await until(lambda: bool(broker.reports))
            await broker.all_open()
            assert broker.reports == [[((TOPIC, 1), 0, "a write failed")]]
            assert actor.asked[asked:] == [("open", (TOPIC, 1))]
            assert actor.opened[-1]["seal"] is None
            assert (broker.host(1).failures.count, broker.partitions.replica_restarts) == (1, 1)
            # the epoch that it led before it can't go on leading
            actor.say(broker.partitions, broker.host(1), "refused", leader_epoch=0, reason="it was led before")
            await until(lambda: len(broker.reports) == 2)
            assert broker.reports[1] == [((TOPIC, 1), 0, "it was led before")]

    run(test)


def test_a_replica_that_fails_again_and_again_is_opened_with_growing_delays(tmp_path: Path) -> None:
    def refuse(actor: RecordedActor, key: Key) -> None:
        if refused[-1]:
            refused.append(True)
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "the disk is bad")

    refused = [True]

    async def test() -> None:
        async with Broker(tmp_path) as broker:
            broker.pool.refuse = refuse
            await broker.create()
            await until(lambda: len(refused) >= 3)
            await until(lambda: broker.host().life.phase is Phase.WAITING)
            assert broker.host().failures.reason == "it could not be opened: the disk is bad"
            tries = len(refused)
            await asyncio.sleep(0.05)
            assert len(refused) == tries
            refused.append(False)
            await broker.all_open()
            assert broker.host().failures.reason == ""

    run(test)


def test_a_replica_that_diverged_stays_closed_until_another_epoch(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path) as broker:
            await broker.create_open(leader=1)
            broker.actors[0].fail(broker.partitions, broker.host(), diverged=True)
            topic = broker.image.topics[TOPIC]
            again = dataclasses.replace(topic.partitions[0], version=1)
            await broker.take(ImageDelta(partitions={TopicPartition(TOPIC, 0): again}))
            assert broker.host().life.phase is Phase.FAILED
            assert broker.host().describe()["failure"] == "a write failed"
            await broker.lead()
            await broker.all_open()
            assert [[(tp, epoch) for tp, epoch, _ in report] for report in broker.reports] == [[((TOPIC, 0), 0)]]

    run(test)


def test_what_is_said_of_another_topics_partition_or_by_another_actor_counts_for_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path, 2) as broker:
            await broker.create_open()
            host = broker.host()
            other = broker.actors[1 - (host.actor or 0)]
            other.say(broker.partitions, host, "failed", reason="not mine", diverged=False)
            other.say(broker.partitions, host, "refused", leader_epoch=0, reason="not mine")
            args = {"topic": TOPIC, "partition": 0, "topic_id": str(uuid.uuid4()), "reason": "", "diverged": False}
            broker.partitions.said(host.actor or 0, "failed", args)
            await asyncio.sleep(0)
            assert host.failures.count == 0 and not broker.reports
            with pytest.raises(KafkaError):
                broker.actors[host.actor or 0].say(broker.partitions, host, "no such thing")

    run(test)


def test_a_proposed_isr_goes_to_the_controller(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path) as broker:
            await broker.create_open()
            proposed = Propose((BROKER,), (7,), 0, 0)
            args = {"isr": [BROKER], "broker_epochs": [7], "leader_epoch": 0, "version": 0}
            broker.actors[0].say(broker.partitions, broker.host(), "propose", **args)
            await until(lambda: bool(broker.controller_calls.proposals))
            assert broker.controller_calls.proposals == [((TOPIC, 0), proposed)]

    run(test)


def test_an_older_state_is_refused(tmp_path: Path) -> None:
    """Rule 16: decisions may come from a controller that does not know yet that it is none any more."""

    async def test() -> None:
        async with Broker(tmp_path) as broker:
            await broker.create_open()
            before = broker.image
            await broker.lead(leader=1)
            await broker.partitions.apply(before)
            assert broker.host().state.leader == 1

    run(test)


# moving


def test_replicas_move_off_actors_that_take_none_with_their_seals(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path, 2) as broker:
            await broker.create_open(partitions=30)
            broker.actors[1].takes_replicas = False
            broker.partitions.use_actors()
            await until(lambda: len(broker.actors[0].open_logs) == 30)
            await broker.all_open()
            assert broker.actors[1].open_logs == {}
            assert broker.pool.let_go_numbers == [1]
            moved = [args for args in broker.actors[0].opened if args["seal"] is not None]
            assert sorted(args["seal"] for args in moved) == sorted([args["partition"], 1] for args in moved)
            assert len(moved) == 15
            assert broker.reports == [] and broker.partitions.replica_restarts == 0
            assert set(broker.pool.placements.values()) == {0}

    run(test)


def test_replicas_move_to_actors_of_their_own_and_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path, 1) as broker:
            await broker.create_open(partitions=12)
            broker.pool.each, broker.actors[0].takes_replicas = True, False
            broker.partitions.use_actors()
            await until(lambda: not broker.actors[0].open_logs)
            await broker.all_open()
            own = [actor for actor in broker.pool.living().values() if actor.number]
            assert [len(actor.open_logs) for actor in own] == [1] * 12
            broker.pool.each, broker.actors[0].takes_replicas = False, True
            for actor in own:
                actor.takes_replicas = False
            broker.partitions.use_actors()
            await until(lambda: len(broker.actors[0].open_logs) == 12)
            await broker.all_open()
            assert broker.reports == []

    run(test)


def test_a_leader_that_is_not_clean_yet_is_asked_again_and_stays_placed_meanwhile(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path, 2) as broker:
            await broker.create_open()
            host = broker.host()
            here, there = broker.actors[host.actor or 0], broker.actors[1 - (host.actor or 0)]
            here.unclean, here.takes_replicas = 2, False
            there.gate.clear()
            broker.partitions.use_actors()
            await until(lambda: there.asked)
            # nobody hears that it is nowhere, and refuses what clients send: who gives it up holds that back
            assert broker.pool.placements[TOPIC, 0] == here.number
            there.gate.set()
            await until(lambda: host.actor == there.number)
            await broker.all_open()
            assert [method for method, _ in here.asked].count("leave") == 3
            assert broker.pool.placements[TOPIC, 0] == there.number

    run(test)


def test_replicas_move_from_an_actor_that_is_busy_to_one_that_idles(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path, 2) as broker:
            await broker.create_open(partitions=20)
            busy = [host for host in broker.partitions if host.actor == 0]
            end = 100
            for _ in range(ROUNDS + 1):
                end += 100
                broker.partitions.take_report(0, [report_row(host.tp.partition, end) for host in busy])
                broker.partitions.rebalance({0: 0.9, 1: 0.1})
            await until(lambda: [len(actor.open_logs) for actor in broker.actors] == [6, 14])
            await broker.all_open()
            moved = [host for host in broker.partitions if host.actor == 1]
            for _ in range(REST_ROUNDS - 1):
                end += 100
                broker.partitions.take_report(1, [report_row(host.tp.partition, end) for host in moved])
                broker.partitions.rebalance({0: 0.1, 1: 0.9})
                await asyncio.sleep(0)
            assert [method for actor in broker.actors for method, _ in actor.asked].count("leave") == 4

    run(test)


def test_an_actor_that_comes_later_gets_its_share_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path) as broker:

            def moves() -> int:
                return [method for actor in broker.actors for method, _ in actor.asked].count("leave")

            async def rebalance() -> list[int]:
                broker.partitions.rebalance({number: 0.0 for number in broker.pool.living()})
                await asyncio.sleep(0.01)
                await broker.all_open()
                return [len(actor.open_logs) for actor in broker.actors]

            await broker.create_open(partitions=20)
            late = broker.pool.start()
            late.gate.clear()
            await broker.create("young")
            broker.partitions.rebalance({0: 0.0, 1: 0.0})
            await until(lambda: late.asked)
            assert moves() == 0, "nothing is shared out while logs are being opened"
            late.gate.set()
            await broker.all_open()
            assert await rebalance() == [10, 11]
            late.die()
            await broker.all_open()
            assert await rebalance() == [21, 0]
            broker.pool.start()
            assert await rebalance() == [10, 0, 11]
            await broker.delete("young")
            shared_out = moves()
            assert sum(await rebalance()) == 20
            assert moves() == shared_out

    run(test)


# what actors report


def test_checkpoints_hold_what_was_reported_last_also_of_what_is_closed(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path) as broker:
            await broker.create_open(partitions=2)
            broker.partitions.take_report(0, [report_row(0, 10), report_row(1, 20)])
            progress = {"1": {"log_end_offset": 9}}
            broker.partitions.take_report(0, [[TOPIC, 0, 0, 1, 9, 11, 8, progress]])
            assert broker.host().follower_progress == {"leader_epoch": 0, "followers": {1: {"log_end_offset": 9}}}
            broker.partitions.take_report(0, [[TOPIC, 0, 0, 1, 9, 11, 8, None]])
            assert broker.host().follower_progress == {}
            expected = {
                RECOVERY_POINTS: {(TOPIC, 0): 8, (TOPIC, 1): 18},
                HIGH_WATERMARKS: {(TOPIC, 0): 9, (TOPIC, 1): 19},
                LOG_STARTS: {(TOPIC, 0): 1, (TOPIC, 1): 1},
            }
            assert broker.partitions.checkpoints() == expected
            broker.actors[0].gate.clear()
            broker.actors[0].fail(broker.partitions, broker.host())
            assert (broker.host().ends, broker.host().follower_progress) == (None, {})
            assert broker.partitions.checkpoints() == expected
            await until(lambda: len(broker.actors[0].opened) == 3)
            again = broker.actors[0].opened[-1]
            assert [again[name] for name in ("recovery_point", "high_watermark", "log_start_offset")] == [8, 9, 1]
            broker.actors[0].gate.set()

    run(test)


def test_checkpoints_are_kept_until_the_first_image_says_whose_they_are(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path) as first:
            first.actors[0].end = {"log_start_offset": 0, "log_end_offset": 2}
            await first.create_open()
            await first.create_open("other")
            assert await first.partitions.close()
            image, checkpoints = first.image, first.partitions.checkpoints()
            assert checkpoints[RECOVERY_POINTS] == {(TOPIC, 0): 2, ("other", 0): 2}
        async with Broker(tmp_path, checkpoints=checkpoints, image=image) as broker:
            assert broker.partitions.checkpoints() == checkpoints
            await broker.delete("other")
            assert list(broker.partitions.checkpoints()[RECOVERY_POINTS]) == [(TOPIC, 0)]
            await broker.all_open()
            assert broker.actors[0].opened[0]["recovery_point"] == 2

    run(test)


# deleting


def test_a_deleted_topic_is_renamed_away_and_its_files_go_after_the_delay(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path) as broker:
            await broker.create_open(file_delete_delay_ms="300")
            await broker.delete()
            await until(lambda: all(name.endswith("-delete") for name in names(tmp_path)))
            assert names(tmp_path)[0].startswith(f"{TOPIC}-0.")
            assert broker.actors[0].asked[-1] == ("close", (TOPIC, 0))
            assert broker.pool.placements == {(TOPIC, 0): -1}
            await until(lambda: not names(tmp_path))

    run(test)


def test_a_topic_made_again_under_its_name_begins_in_a_directory_of_its_own(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path) as broker:
            for number in range(1, 6):
                await broker.create_open()
                assert broker.host().failures.count == 0
                assert len(names(tmp_path)) == number
                await broker.delete()

    run(test)


def test_a_topic_deleted_while_its_log_is_being_opened_leaves_nothing_in_the_way_of_its_successor(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with Broker(tmp_path) as broker:
            (actor,) = broker.actors
            actor.gate.clear()
            await broker.create()
            await until(lambda: bool(actor.asked))
            await broker.delete()
            await broker.create()
            await broker.delete()
            await broker.create()
            await asyncio.sleep(0)
            assert actor.asked == [("open", (TOPIC, 0))]
            actor.gate.set()
            await broker.all_open()
            assert [method for method, _ in actor.asked] == ["open", "close", "open"]
            assert broker.host().failures.count == 0

    run(test)


def test_an_actor_that_does_not_close_a_log_in_time_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_host, "CLOSE_WITHIN_S", 0.1)

    async def test() -> None:
        async with Broker(tmp_path, 2) as broker:
            await broker.create_open(partitions=2)
            await broker.create_open("deleted")
            hangs = next(actor for actor in broker.actors if ("deleted", 0) in actor.open_logs)
            hangs.gate.clear()
            await broker.delete("deleted")
            await until(lambda: hangs.killed)
            await broker.all_open()
            await until(lambda: any(name.endswith("-delete") for name in names(tmp_path)))
            assert len(broker.actors[1 - hangs.number].open_logs) == 2

    run(test)


def test_a_deletion_that_fails_is_why_the_topics_successor_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def test() -> None:
        async with Broker(tmp_path) as broker:
            await broker.create_open()
            monkeypatch.setattr(os, "rename", refuse)
            await broker.delete()
            await broker.create()
            await until(lambda: broker.host().failures.count)
            assert "holds topic id" in broker.host().failures.reason

    run(test)


def test_a_name_of_the_longest_kind_can_be_deleted(tmp_path: Path) -> None:
    async def test() -> None:
        topic = "x" * 249
        async with Broker(tmp_path) as broker:
            await broker.create_open(topic)
            await broker.delete(topic)
            await until(lambda: [len(name) for name in names(tmp_path)] == [255])

    run(test)


def test_a_deletion_that_a_stop_cut_short_is_finished(tmp_path: Path) -> None:
    async def test() -> None:
        left = tmp_path / f"{TOPIC}-0.{uuid.uuid4().hex}-delete"
        left.mkdir()
        (left / "00000000000000000000.log").touch()
        async with Broker(tmp_path) as broker:
            await broker.take(ImageDelta())
            await until(lambda: not names(tmp_path))

    run(test)


# coming back, and the end


def test_directories_of_other_topics_are_set_aside_and_never_opened(tmp_path: Path) -> None:
    """Rule 19: a topic that is gone, one that was made again under its name, and one that moved to another broker."""

    async def test() -> None:
        async with Broker(tmp_path) as broker:
            for topic in ("gone", "again", "moved", "kept"):
                await broker.create_open(topic)
            image = broker.image
        (tmp_path / "empty-3").mkdir()
        (tmp_path / "no partition").mkdir()
        async with Broker(tmp_path) as broker:
            moved = dataclasses.replace(image.topics["moved"], partitions={0: PartitionState((1,), 1, 1, (1,), 1)})
            again = dataclasses.replace(image.topics["again"], id=uuid.uuid4())
            kept = image.topics["kept"]
            await broker.take(ImageDelta(topics={"moved": moved, "again": again, "kept": kept}))
            await broker.all_open()
            aside = [name for name in names(tmp_path) if name.endswith("-stray")]
            assert sorted(name.partition(".")[0] for name in aside) == ["again-0", "empty-3", "gone-0", "moved-0"]
            assert sorted(broker.actors[0].open_logs) == [("again", 0), ("kept", 0)]
            assert [host.failures.count for host in broker.partitions] == [0, 0]
            assert "no partition" in names(tmp_path)

    run(test)


def test_a_directory_that_can_not_be_read_fails_its_partition_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with Broker(tmp_path) as broker:
            await broker.create_open(partitions=3)
            image = broker.image
        (tmp_path / f"{TOPIC}-1" / "partition.metadata").write_text("version: 9\n" + "x" * 40)
        async with Broker(tmp_path) as broker:
            await broker.take(image.as_delta())
            await until(lambda: broker.host(1).failures.count)
            await until(lambda: {key[1] for key in broker.actors[0].open_logs} == {0, 2})
            assert sorted(names(tmp_path)) == [f"{TOPIC}-{partition}" for partition in range(3)]
            assert all(args["recovery_point"] is not None for args in broker.actors[0].opened)
        assert f"{TOPIC}-1 is left as it is" in caplog.text

    run(test)


def test_a_first_image_that_failed_is_taken_whole_at_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there was not forgotten: a partition that was written does not open as one that never was."""

    async def test() -> None:
        async with Broker(tmp_path) as broker:
            await broker.create_open(partitions=2)
            image = broker.image
        tp = TopicPartition(TOPIC, 0)
        checkpoints = {HIGH_WATERMARKS: {tp: 5}, RECOVERY_POINTS: {tp: 5}}
        async with Broker(tmp_path, checkpoints=checkpoints) as broker:
            with monkeypatch.context() as failing:
                failing.setattr(os, "scandir", _no_descriptors)
                with pytest.raises(OSError):
                    await broker.take(image.as_delta())
            assert broker.partitions.checkpoints()[HIGH_WATERMARKS] == {tp: 5}
            await broker.take(ImageDelta())
            await broker.all_open()
            opened = {args["partition"]: args["high_watermark"] for args in broker.actors[0].opened}
            assert opened[0] == 5

    run(test)


def _no_descriptors(*_: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_broker_that_stops_closes_all_logs(tmp_path: Path) -> None:
    async def test() -> None:
        async with Broker(tmp_path, 2) as broker:
            await broker.create_open(partitions=30)
            assert await broker.partitions.close()
            assert [actor.open_logs for actor in broker.actors] == [{}, {}]

    run(test)


def test_a_log_that_was_not_open_at_a_stop_was_not_closed_cleanly(tmp_path: Path) -> None:
    async def test() -> None:
        broker = Broker(tmp_path, 0)
        await broker.create(partitions=1)
        assert not await broker.partitions.close()

    run(test)
