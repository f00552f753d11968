"""Leaderships and replicas that move because somebody wants it, with a real ZooKeeper and controllers that die over
it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from raykafka.cluster.image import PartitionState
from raykafka.controller.controller import Controller
from raykafka.controller.decisions import leadership
from raykafka.controller.decisions.leadership import ElectionType, elect_leaders
from raykafka.controller.decisions.reassignments import alter_reassignments, reassignments
from raykafka.controller.decisions.topics import create_topics, delete_topics
from raykafka.controller.rules.reassignment import Assignment
from raykafka.controller.rules.topics import TopicRequest
from raykafka.error_code import ErrorCode
from raykafka.replica.rules.events import Propose
from raykafka.replica.rules.partition import SHORT_LOG
from raykafka.types import NO_LEADER, TopicPartition
from tests.lab.loop_waiting import until
from tests.node.controller_parts import SESSION_MS, WITHIN_S, BrokerEnd, Parts, parts

T0 = TopicPartition("t", 0)


def play(zookeeper: str, scenario: Callable[[Parts], Awaitable[None]]) -> None:
    async def run() -> None:
        async with parts(zookeeper, SESSION_MS) as made:
            await scenario(made)

    asyncio.run(run())


async def place(active: Controller, name: str, *replicas: tuple[int, ...], **config: str) -> None:
    """Create a topic with a partition on each of ``replicas``."""
    settings = tuple((key.replace("_", "."), value) for key, value in config.items())
    (made,) = await create_topics(
        active.ledger, [TopicRequest(name, assignments=tuple(enumerate(replicas)), config=settings)], timeout_s=WITHIN_S
    )
    assert made.error is None, made


async def change_isr(brokers: list[BrokerEnd], *isr: int) -> PartitionState:
    """As t-0's leader does, ask for an ISR; returns once that leader knows it. Like that, it asks again when it is told
    that it did not know the newest state."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            leader = await until(lambda: _leader(brokers), "somebody leads")
            state = leader.partition("t")
            assert state is not None
            epochs = tuple(brokers[b].registration.info.epoch for b in isr)
            code = await leader.propose("t", 0, Propose(isr, epochs, state.leader_epoch, state.version))
            if code is ErrorCode.INVALID_UPDATE_VERSION:
                await asyncio.sleep(0.01)
                continue
            assert code is ErrorCode.NONE
            return await until(lambda leader=leader, state=state: _newer(leader, state), "the leader knows the ISR")


def _leader(brokers: list[BrokerEnd]) -> BrokerEnd | None:
    return next((b for b in brokers if (s := b.partition("t")) is not None and s.leader == b.id), None)


def _newer(broker: BrokerEnd, than: PartitionState) -> PartitionState | None:
    state = broker.partition("t")
    return state if state is not None and state.version > than.version else None


class Successors:
    """One controller after the other."""

    def __init__(self, made: Parts) -> None:
        self._made = made
        self._running = made.controller(0)

    async def active(self) -> Controller:
        return await until(lambda: self._running.active, "the controller is active")

    async def end(self) -> None:
        await self._made.end_controller(self._running)

    async def next(self) -> Controller:
        await self.end()
        self._running = self._made.controller(0)
        return await self.active()


def test_a_move_goes_on_under_the_next_controller_in_every_phase(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(b) for b in range(4)]
        controllers = Successors(made)
        active = await controllers.active()
        await place(active, "t", (0, 1))
        assert await alter_reassignments(active.ledger, {T0: (2, 3)}) == {T0: None}
        moving = Assignment((2, 3, 0, 1), (2, 3), (0, 1))
        for isr in ((0, 1, 2), (0, 1, 2)):
            active = await controllers.next()
            assert reassignments(active.state, None) == {T0: moving}
            state = await change_isr(brokers, *isr)
            assert (state.replicas, state.adding, state.removing) == ((2, 3, 0, 1), (2, 3), (0, 1))
            assert (state.leader, state.isr) == (0, isr)
        active = await controllers.next()
        await change_isr(brokers, 0, 1, 2, 3)
        done = await until(lambda: s if (s := brokers[2].partition("t")) and not s.adding else None, "it has moved")
        assert (done.replicas, done.leader, done.isr, done.removing) == ((2, 3), 2, (2, 3), ())
        active = await controllers.next()
        assert reassignments(active.state, None) == {}
        assert active.state.image.partition(T0) == done

    play(zookeeper, scenario)


def test_a_move_that_was_ready_when_its_controller_died_is_ended_by_the_next(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(b) for b in range(3)]
        controllers = Successors(made)
        active = await controllers.active()
        await place(active, "t", (0, 1))
        # in sync, but the controller ends before it has looked again
        await alter_reassignments(active.ledger, {T0: (2,)})
        record = active.state.records["t"]
        everybody = tuple(brokers[b].registration.info.epoch for b in range(3))
        ready = replace(record.states[0], isr=(0, 1, 2), isr_epochs=everybody)
        await asyncio.to_thread(active._store.write_isrs, {T0: ready})
        active = await controllers.next()
        done = active.state.image.partition(T0)
        assert done is not None and (done.replicas, done.leader, done.isr) == ((2,), 2, (2,))
        await until(lambda: brokers[2].partition("t") == done, "the new leader knows")

    play(zookeeper, scenario)


def test_a_cancelled_move_and_a_partition_that_does_not_exist(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(b) for b in range(3)]
        active = await made.active(0)
        await place(active, "t", (0, 1))
        await alter_reassignments(active.ledger, {T0: (2, 1)})
        await change_isr(brokers, 0, 1)
        missing = TopicPartition("t", 1)
        outcome = await alter_reassignments(active.ledger, {T0: None, missing: None})
        assert outcome[T0] is None
        error = outcome[missing]
        assert error is not None and error.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        state = await until(lambda: s if (s := brokers[1].partition("t")) and not s.adding else None, "cancelled")
        assert (state.replicas, state.leader, state.isr, state.removing) == ((1, 0), 0, (0, 1), ())
        again = (await alter_reassignments(active.ledger, {T0: None}))[T0]
        assert again is not None and again.code is ErrorCode.NO_REASSIGNMENT_IN_PROGRESS

    play(zookeeper, scenario)


def test_more_partitions_move_than_one_transaction_takes(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        for b in range(2):
            await made.broker(b)
        active = await made.active(0)
        await place(active, "wide", *[(0, 1)] * 1000)
        wanted = {TopicPartition("wide", p): (1,) for p in range(1000)}
        assert set((await alter_reassignments(active.ledger, wanted)).values()) == {None}
        assert {s.replicas for s in active.state.image.topics["wide"].partitions.values()} == {(1,)}
        assert {s.leader for s in active.state.image.topics["wide"].partitions.values()} == {1}

    play(zookeeper, scenario)


def test_preferred_replicas_lead_again_by_request_and_by_themselves(
    zookeeper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "_FIRST_LOOK_S", 0.1)

    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(b) for b in range(2)]
        config = {"leader.imbalance.check.interval.seconds": "1"}
        active = await made.active(0, config | {"auto.leader.rebalance.enable": "false"})
        await place(active, "t", (0, 1))
        failed = brokers[0].partition("t")
        assert failed is not None
        await brokers[0].report_failed("t", "tried", failed)
        state = await until(lambda: s if (s := active.state.image.partition(T0)) and s.leader == 1 else None, "1 leads")
        assert state.isr == (1,)
        codes = []
        for isr in ((1,), (1, 0)):
            await change_isr(brokers, *isr)
            error = (await elect_leaders(active.ledger, ElectionType.PREFERRED, [T0], WITHIN_S))[T0]
            codes.append(error.code if error else ErrorCode.NONE)
        assert codes == [ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, ErrorCode.NONE]
        led = active.state.image.partition(T0)
        assert led is not None and (led.leader, led.leader_epoch, led.isr) == (0, state.leader_epoch + 1, (1, 0))
        needless = (await elect_leaders(active.ledger, ElectionType.PREFERRED, [T0], WITHIN_S))[T0]
        assert needless is not None and needless.code is ErrorCode.ELECTION_NOT_NEEDED

        await brokers[0].report_failed("t", "tried", led)
        await until(lambda: (s := active.state.image.partition(T0)) and s.leader == 1, "1 leads again")
        await change_isr(brokers, 1, 0)
        active.static_config["auto.leader.rebalance.enable"] = "true"
        await until(lambda: (s := brokers[0].partition("t")) and s.leader == 0, "0 leads again by itself")

    play(zookeeper, scenario)


def test_a_log_that_lost_committed_records_leads_only_after_an_unclean_election(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(b) for b in range(2)]
        controllers = Successors(made)
        active = await controllers.active()
        await place(active, "t", (0, 1))
        state = await change_isr(brokers, 0)
        await brokers[0].report_failed("t", SHORT_LOG, state)
        offline = await until(lambda: _newer(brokers[0], state), "it is offline")
        assert (offline.leader, offline.isr) == (NO_LEADER, (0,))
        # whatever happens next: another controller, other brokers that come
        active = await controllers.next()
        await made.broker(2)
        await until(lambda: 2 in active.state.image.brokers, "broker 2 is known")
        assert active.state.image.partition(T0) == offline
        assert (await elect_leaders(active.ledger, ElectionType.UNCLEAN, [T0], WITHIN_S))[T0] is None
        led = active.state.image.partition(T0)
        assert led is not None and (led.leader, led.isr) == (0, (0,))
        assert led.unclean_epoch == led.leader_epoch == offline.leader_epoch + 1
        needless = (await elect_leaders(active.ledger, ElectionType.UNCLEAN, [T0], WITHIN_S))[T0]
        assert needless is not None and needless.code is ErrorCode.ELECTION_NOT_NEEDED

    play(zookeeper, scenario)


def test_a_broker_id_on_an_empty_disk_leads_nothing_that_others_wrote(zookeeper: str) -> None:
    """Also under a controller that did not see it come."""

    async def scenario(made: Parts) -> None:
        brokers = [await made.broker(b) for b in range(3)]
        controllers = Successors(made)
        active = await controllers.active()
        await place(active, "t", (0, 1), (0, 1))
        state = await change_isr(brokers, 0)
        await controllers.end()
        await brokers[0].stop()
        brokers[0].directory_id = "empty"
        await brokers[0].start()
        active = await controllers.next()
        alone, both = (active.state.image.partition(TopicPartition("t", p)) for p in (0, 1))
        assert alone is not None and both is not None
        assert (alone.leader, alone.isr) == (NO_LEADER, (0,))
        assert alone.leader_epoch == state.leader_epoch + 1
        assert (both.leader, both.isr) == (1, (1,))
        active = await controllers.next()
        assert active.state.image.partition(T0) == alone
        await until(lambda: brokers[0].partition("t") == alone, "the broker knows that it does not lead")
        assert (await elect_leaders(active.ledger, ElectionType.UNCLEAN, [T0], WITHIN_S))[T0] is None
        led = active.state.image.partition(T0)
        assert led is not None and (led.leader, led.isr, led.unclean_epoch) == (0, (0,), led.leader_epoch)

    play(zookeeper, scenario)


def test_a_topic_that_moves_can_be_deleted(zookeeper: str) -> None:
    async def scenario(made: Parts) -> None:
        for b in range(2):
            await made.broker(b)
        controllers = Successors(made)
        active = await controllers.active()
        await place(active, "t", (0,))
        await alter_reassignments(active.ledger, {T0: (1,)})
        assert await delete_topics(active.ledger, ["t"], timeout_s=WITHIN_S) == {"t": None}
        active = await controllers.next()
        assert active.state.image.topics == {} and reassignments(active.state, None) == {}

    play(zookeeper, scenario)
